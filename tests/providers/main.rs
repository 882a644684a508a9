//! The shipped provider definitions, each against the development server that plays its provider.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

mod answers;
#[expect(dead_code, reason = "nothing here sleeps")]
#[path = "../support/clock.rs"]
mod clock;
mod contract;
mod docs;
mod odd;
mod synthetic;
mod world;
