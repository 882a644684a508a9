//! The audit trail.
//!
//! - [`chain`]: links records in commit order · [`trail`]: where the chain begins, and whether all of it holds
//! - [`windows`]: lets one record cover repeated reads

mod chain;
mod trail;
mod windows;

pub use crate::domain::ChainPosition as Position;
pub use chain::{Break, Chain, check};
pub use trail::{TrailError, beginning, verify};
pub use windows::{Coverage, WindowKey, Windows};
