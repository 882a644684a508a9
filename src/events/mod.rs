//! The event log's reader: one feeder opens each revision once and puts it before those whom it concerns. A subscriber
//! that leaves too much unread keeps nothing but its position, and reads the log: it costs no more and delays nobody.
//!
//! - [`hub`]: the feeder and the newest revisions · [`listener`]: one subscriber's place · [`resume`]: positions that
//!   clients keep

mod hub;
mod listener;
mod resume;

pub use hub::{Hub, LoggedRevision, Read};
pub use listener::Listener;
pub use resume::{Position, Resume, ResumeTokenError};
