//! Keeps sled's flush from waiting for ever.
//!
//! When a write fails in one of its threads, sled 0.34 may store the error without waking the flush that waits for that
//! write. Another flush finds the error at its beginning and wakes all that wait. So a flush that takes long gets
//! company: on a disk that is only slow the company waits too, and ends with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ::sled::Db;

pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Flushes that were begun or ended: odd during one.
    flushes: AtomicU64,
    ended: AtomicBool,
}

impl Watchdog {
    pub(super) fn over(db: Db) -> Self {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        let thread = thread::Builder::new().name("claviger-watch".to_owned()).spawn(move || watch(&db, &watched));
        if let Err(error) = &thread {
            tracing::warn!(%error, "nobody watches over the store's flushes");
        }
        Self { shared, thread: thread.ok() }
    }

    pub(super) fn during<T>(&self, flush: impl FnOnce() -> T) -> T {
        self.shared.flushes.fetch_add(1, Ordering::AcqRel);
        let flushed = flush();
        self.shared.flushes.fetch_add(1, Ordering::AcqRel);
        flushed
    }
}

/// Lets go of the database.
impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::warn!("the thread that watches over the store's flushes panicked");
            }
        }
    }
}

fn watch(db: &Db, shared: &Shared) {
    let (mut last, mut looks) = (0, 0_u32);
    while !shared.ended.load(Ordering::Acquire) {
        thread::park_timeout(LOOK);
        let now = shared.flushes.load(Ordering::Acquire);
        looks = if now == last && now % 2 == 1 { looks + 1 } else { 0 };
        last = now;
        // ever more rarely, so that a disk which stands still does not gather threads
        if looks.is_power_of_two() {
            let db = db.clone();
            // sled tells its error to the flush that waits for it, too
            let company = thread::Builder::new().name("claviger-flush".to_owned()).spawn(move || drop(db.flush()));
            if let Err(error) = company {
                tracing::warn!(%error, "a slow flush of the store could not be looked after");
            }
        }
    }
}

/// Between two looks at a flush.
const LOOK: Duration = Duration::from_millis(500);
