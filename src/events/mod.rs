//! The event log's reader: one feeder opens each revision once; subscribers keep a position and take from the ring, or
//! from the log when they have fallen behind. A subscriber that stalls costs its position and delays nobody.

mod hub;
mod resume;

pub use hub::{Hub, RevisionEvents};
pub use resume::{Position, Resume, ResumeTokenError};
