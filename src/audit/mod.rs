//! The audit trail: windows over repeated reads.

mod windows;

pub use windows::{Coverage, WindowKey, Windows};
