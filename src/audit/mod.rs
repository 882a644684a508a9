//! The audit trail: how its records are chained, and how the chain is checked.
//!
//! - [`chain`]: `Chain`, the linker that a store calls at commit

mod chain;

pub use chain::{Break, Chain, Position, check};
