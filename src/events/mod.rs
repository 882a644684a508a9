//! The event log's reader: one feeder opens and writes each revision once and puts it before those whom it concerns. A
//! subscriber that leaves too much unread keeps nothing but its position, and reads the log: it costs no more and delays nobody.
//!
//! - [`hub`]: the feeder · [`ring`]: the newest revisions · [`pages`]: older ones that were read lately · [`turns`]: who reads
//!   them next · [`listener`]: one subscriber's place · [`resume`]: positions that clients keep · [`written`]: events
//!   beside their bytes on the wire

mod hub;
mod listener;
mod pages;
mod resume;
mod ring;
mod turns;
mod written;

pub use hub::{Hub, Read};
pub use listener::{Listener, Owner};
pub use resume::{Position, Resume, ResumeTokenError};
pub use ring::LoggedRevision;
pub use turns::{Turn, Turns};
pub use written::{LoggedEvent, Wire, Written, WrittenStatus};
