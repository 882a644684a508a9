//! Against an authorization server that nobody here wrote: npm `oidc-provider`, which is the provider of the plugin and
//! the platform's issuer as well. The broker is called over gRPC alone; what became of its tokens is asked at the server.
//!
//! - `provider`: the server as a process · `visitor`: a user with a browser · `world`: the broker beside it
//! - `caller`, `browser`: the two bindings · `storm`: many connections, faults and kills

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

#[path = "../support/emitted/mod.rs"]
#[expect(dead_code, reason = "shared with tests that know secrets of their own")]
mod emitted;

mod browser;
mod caller;
#[path = "../process/process.rs"]
#[expect(dead_code, reason = "shared with the tests of the command line")]
mod process;
mod provider;
mod storm;
mod visitor;
mod world;

#[path = "../support/tools.rs"]
mod tools;
