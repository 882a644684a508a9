//! Tokens of a real issuer over real sockets: every refusal, and what its key set, its outages and its caches may do.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/issuer.rs"]
mod issuer;
#[path = "../support/vectors.rs"]
mod vectors_support;

mod algorithms;
mod documented;
mod entra;
mod keys;
mod mutations;
mod platform;
mod sign_in;
mod tokens;
mod vectors;
