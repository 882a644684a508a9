//! The life of the sealing keys: superseded while the store is in use, retired, destroyed; and what then still opens.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/memory_store.rs"]
mod memory_store;
#[path = "../support/specimens.rs"]
mod specimens;
#[path = "../support/stopping_store.rs"]
mod stopping_store;
#[expect(dead_code, reason = "the rest of it is for tests/vault.rs")]
#[path = "../support/tampering_store.rs"]
mod tampering_store;

mod erasing;
mod populated;
mod retiring;
mod rotating;
mod swapping;
