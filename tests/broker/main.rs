//! The broker's promises, through its gRPC interface, over real parts.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

#[path = "../support/clock.rs"]
mod clock_support;
#[path = "../support/records.rs"]
mod records_support;

#[path = "../support/emitted/mod.rs"]
mod emitted;
#[path = "../support/event_log.rs"]
mod event_log;
#[path = "../support/heard.rs"]
mod heard;
#[path = "../support/recorded.rs"]
mod recorded;
#[path = "../support/watch_validator.rs"]
mod watch_validator;

mod support {
    pub(crate) use super::{clock_support as clock, heard, records_support as records};
}

mod access;
mod backing_up;
mod connecting;
mod counting;
mod doctor;
mod draining;
mod erasing;
mod error_reasons;
mod histories;
mod installation;
mod keys;
mod observer;
mod providers;
mod refreshing;
mod reporting;
mod retaining;
mod revoking;
mod several;
mod starting;
mod tokens;
mod trail;
mod watching;
mod world;
