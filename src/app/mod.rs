//! Puts the concrete types together.
//!
//! - [`clock`]: real time

mod clock;

pub use clock::SystemClock;
