//! Crashes in the middle of many writers' work. What was acknowledged is there afterwards; of everything else all of a
//! change set is there or nothing; every record opens.
//!
//! - `killed`: kill -9 at random moments · `power`: only what was synced is left
//! - `writer`: the child, which tells what it begins and what was acknowledged · `checker`: what must hold afterwards
//! - `words`: what the child is told and tells

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod checker;
#[path = "../support/child.rs"]
mod child;
#[path = "../support/disk.rs"]
mod disk;
mod killed;
mod power;
#[path = "../support/tools.rs"]
mod tools;
mod words;
mod writer;
