//! A user with a browser, without a browser: follows the development server's pages over real HTTP.
//!
//! - `visit`: the way to the redirect URI · `browser`: requests and cookies · `form`: the pages' forms

mod browser;
mod form;
mod visit;

pub use visit::{Decision, Visitor, VisitorError};
