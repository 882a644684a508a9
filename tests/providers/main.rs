//! The shipped provider definitions, each against the development server that plays its provider.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

mod answers;
#[path = "../support/clock.rs"]
mod clock;
mod contract;

mod odd;
mod world;
