//! The gRPC edge over real sockets: who gets in, how much they may send, how they are refused, how it ends.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/emitted/mod.rs"]
mod emitted;
#[path = "../support/event_log.rs"]
mod event_log;
#[path = "../support/gated_store.rs"]
mod gated_store;
#[path = "../support/recorded.rs"]
mod recorded;
#[path = "../support/watch_validator.rs"]
mod watch_validator;

mod access;
mod clock_jumps;
mod counting;
mod endings;
mod health;
mod input;
mod interleavings;
mod latest;
mod limits;
mod operations;
mod reflection;
mod rig;
mod watching;
