//! The life of the sealing keys: superseded while the store is in use, retired, destroyed; and what then still opens.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/memory_store.rs"]
mod memory_store;
#[path = "../support/specimens.rs"]
mod specimens;
#[path = "../support/stopping_store.rs"]
mod stopping_store;

mod erasing;
mod populated;
mod retiring;
mod rotating;
