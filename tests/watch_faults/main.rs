//! Watchers of a `claviger serve` that is stopped, killed and cut off: real processes and sockets, with what every stream
//! heard held against the log in the end, by the guarantees W1 to W9.
//!
//! - `goodbye`: SIGTERM with thousands of streams · `ending`: what must not hold it up
//! - `stalled`: readers that do not read · `half_open`: peers that are gone without a word
//! - `killed`, `compacted`: kill -9 wherever it hurts · `power`: only what was synced is left · `soak`: all of it at random
//! - `place`: the broker and its provider · `clients`: watchers that are recorded · `relay`: the network between them

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

#[path = "../support/disk.rs"]
#[expect(dead_code, reason = "shared with the tests of the store")]
mod disk;
#[path = "../support/emitted/mod.rs"]
#[expect(dead_code, reason = "what a store's files hold is searched elsewhere")]
mod emitted;
#[path = "../support/event_log.rs"]
mod event_log;
#[path = "../process/process.rs"]
#[expect(dead_code, reason = "shared with the tests of the command line")]
mod process;
#[path = "../support/watch_validator.rs"]
mod watch_validator;

#[path = "../serving/pki.rs"]
#[expect(dead_code, reason = "shared with the tests of the listeners")]
mod pki;
#[path = "../support/strace.rs"]
#[expect(dead_code, reason = "shared with the tests of refreshes")]
mod strace;
#[path = "../support/tools.rs"]
mod tools;

mod clients;
mod compacted;
mod ending;
mod goodbye;
mod half_open;
mod killed;
mod place;
mod power;
mod relay;
mod soak;
mod stalled;
