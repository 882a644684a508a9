//! Binding `BROWSER`, driven as browsers drive it: over HTTP, with cookies, from page to page, between sites.

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
#[path = "../support/watch_validator.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod watch_validator;
#[path = "../broker/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the gRPC interface")]
mod world;

mod support {
    pub(crate) use super::{clock, heard, records};
}

#[path = "../serving/pki.rs"]
#[expect(dead_code, reason = "shared with the tests of the listeners")]
mod pki;

mod browser;
mod forms;
mod journey;
mod pages;
mod person;
mod phishing;
mod sign_in;
mod tls;
