//! The audit trail.
//!
//! - [`chain`]: links records in commit order · [`windows`]: lets one record cover repeated reads

mod chain;
mod windows;

pub use chain::{Break, Chain, Position, check};
pub use windows::{Coverage, WindowKey, Windows};
