//! Every way in which a provider is known to fail, crossed with a broker that is killed at every step of a refresh and
//! with a caller that gives up: `claviger serve` as a process, over real sockets.
//!
//! - `modes`: how the provider fails · `outcome`: what must come of it · `world`: the broker and its provider
//! - `cell`: one mode, one step, one caller · `strace`: a kill between the answer and its commit, a full disk
//! - `held`: tokens that the store cannot take · `crowd`: many callers at once

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails fails the test")]

#[path = "../support/emitted/mod.rs"]
mod emitted;

mod cell;
mod crowd;
mod held;
mod modes;
mod outcome;
#[path = "../process/process.rs"]
#[expect(dead_code, reason = "shared with the tests of the command line")]
mod process;
#[path = "../support/strace.rs"]
#[expect(dead_code, reason = "shared with the tests of watchers")]
mod strace;
mod world;

#[path = "../support/tools.rs"]
mod tools;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
};

use cell::{Caller, Cell, Point};
use claviger::dev::NAMED_FAULTS;
use modes::{LEFT_OUT, MODES};

/// Cells that run at the same time; most of them wait for a provider time-out.
const AT_ONCE: usize = 6;
/// Cells of one run that is not a soak.
const SAMPLE: usize = 24;
/// Which ones.
const SEED: u64 = 1;

#[test]
fn a_refresh_ends_as_it_must_whatever_fails_and_whenever_the_broker_is_killed() {
    let seed = seed();
    let mut cells = chosen(seed);
    if cells.iter().any(|cell| cell.point == Point::Answered) && !strace::can_attach() {
        cells.retain(|cell| cell.point != Point::Answered);
    }
    println!("{} cells, CLAVIGER_SEED={seed}", cells.len());
    let (waiting, failed) = (Mutex::new(VecDeque::from(cells)), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(cell) = next() {
                    if catch_unwind(AssertUnwindSafe(|| cell.run())).is_err() {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(cell.to_string());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "CLAVIGER_SEED={seed}: {failed:#?}");
}

#[test]
fn every_fault_that_has_a_name_is_in_the_matrix_or_in_the_list_of_those_left_out() {
    let crossed: Vec<_> = MODES.iter().filter_map(|mode| mode.fault).collect();
    for fault in NAMED_FAULTS {
        let places = usize::from(crossed.contains(&fault.name)) + usize::from(LEFT_OUT.contains(&fault.name));
        assert_eq!(places, 1, "{}", fault.name);
    }
    assert!(crossed.iter().chain(LEFT_OUT).all(|name| NAMED_FAULTS.iter().any(|fault| fault.name == *name)));
}

/// All of them in a soak, or those that `CLAVIGER_CELL` names; otherwise as many as a minute holds.
#[expect(clippy::disallowed_methods, reason = "what to test is not the product's configuration")]
fn chosen(seed: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    for mode in MODES {
        for point in Point::ALL {
            cells.extend([Caller::Waits, Caller::Cancels].map(|caller| Cell { mode, point, caller }));
        }
    }
    if let Ok(wanted) = std::env::var("CLAVIGER_CELL") {
        cells.retain(|cell| cell.to_string().contains(&wanted));
    } else if std::env::var_os("CLAVIGER_SOAK").is_none() {
        cells.sort_by_cached_key(|cell| mixed(seed, &cell.to_string()));
        cells.truncate(SAMPLE);
    }
    cells
}

/// The same sample in every run, or that of the seed that is told.
#[expect(clippy::disallowed_methods, reason = "what to test is not the product's configuration")]
fn seed() -> u64 {
    let given = std::env::var("CLAVIGER_SEED").ok();
    given.map_or(SEED, |seed| seed.parse().expect("CLAVIGER_SEED is a number"))
}

/// FNV-1a.
fn mixed(seed: u64, text: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
