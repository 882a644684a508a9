//! The embedded store on sled 0.34: one tree, one writer thread, one batch and one fsync for all waiting change sets.
//!
//! - [`SledStore`]: the store · [`SledOptions`], [`OpenError`]: opening it
//! - `watchdog`: wakes a flush that sled forgot · `directory`: who may use the files · `recovery`: whether they can be read · `engine`: sled itself, and what makes a batch durable
//! - `writer`: the thread · `group`: judging change sets · `tail`: what is checked at open
//! - [`Import`], [`compact`]: filling a directory from a copy, or from what its files hold
//! - `shared`, `cache`, `scan`: reading · `copy`: reading all of it as of one revision
//!
//! What sled 0.34 does that shapes this: `flush_async` deadlocks with seven calls in flight; `flush` is not an fsync on
//! Linux; a handle stays poisoned after an I/O error; iteration is not a snapshot; a page larger than a quarter of a
//! segment goes to a file of its own that is never fsynced.

mod cache;
mod copy;
mod directory;
mod engine;
mod group;
mod import;
mod options;
mod recovery;
mod scan;
mod shared;
mod store;
mod tail;
mod watchdog;
mod writer;

pub use engine::files;
pub use import::{Compacted, Import, compact};
pub use options::{OpenError, SledOptions};
pub use store::SledStore;
