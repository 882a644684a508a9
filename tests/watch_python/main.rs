//! `examples/watch.py`, which users copy, against a whole broker over real sockets that break: what it received is held
//! against the log, and what it knows in the end against what the broker lists.
//!
//! - `cuts`: the connection breaks · `stops`: the broker stops, is another one, has forgotten
//! - `tokens`: platform tokens that lapse or are refused · `choices`: delivery and scopes
//! - `program`: the client as a process · `relay`: the network between them · `place`: all of it together

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

#[path = "../support/clock.rs"]
#[expect(dead_code, reason = "shared with tests that wait for sleepers")]
mod clock;
#[path = "../support/emitted/mod.rs"]
mod emitted;
#[path = "../support/event_log.rs"]
mod event_log;
#[path = "../support/heard.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod heard;
#[path = "../support/recorded.rs"]
mod recorded;
#[path = "../support/records.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod records;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/watch_validator.rs"]
mod watch_validator;
#[path = "../broker/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod world;

mod support {
    pub(crate) use super::{clock, heard, records};
}

mod choices;
mod cuts;
mod place;
mod program;
mod relay;
mod stops;
mod tokens;
