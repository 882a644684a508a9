//! Faults on demand.
//!
//! - `fault`: what can go wrong · `plan`: which requests it happens to · `hold`: requests held back
//! - `intercept`: makes it happen · `remote`: the same over HTTP

mod fault;
mod hold;
mod intercept;
mod plan;
mod remote;

pub use self::{
    fault::{Answer, Fault, InvalidAnswer, MissingRefreshToken},
    hold::{Hold, HoldPoint},
    plan::Faults,
};
pub(super) use self::{intercept::intercept, remote::routes};
