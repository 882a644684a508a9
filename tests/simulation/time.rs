//! Virtual time: it stands still while anything can run, and then goes to the next moment that somebody waits for.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use claviger::domain::{BoxFuture, Clock, Timestamp};

const START: i64 = 1_800_000_000_000;

/// Clones share one time.
#[derive(Clone, Default)]
pub(crate) struct Time(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Milliseconds since the world began; never goes back.
    elapsed: u64,
    /// How far the wall clock was set off.
    offset: i64,
    ids: u64,
    /// Who waits for time to pass, and who for a time of the wall clock.
    pausing: BTreeMap<(u64, u64), Waker>,
    sleeping: BTreeMap<(i64, u64), Waker>,
}

impl Inner {
    fn wall(&self) -> i64 {
        START + self.offset + self.elapsed as i64
    }
}

impl Time {
    pub(crate) fn elapsed(&self) -> u64 {
        self.inner().elapsed
    }

    /// What the wall clock shows.
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.inner().wall())
    }

    /// Sets the wall clock off by so many milliseconds.
    pub(crate) fn jump(&self, by: i64) {
        self.inner().offset += by;
    }

    /// Lets time pass while no process lives.
    pub(crate) fn pass(&self, millis: u64) {
        self.inner().elapsed += millis;
    }

    pub(crate) fn pause(&self, millis: u64) -> Waiting {
        self.pause_until(self.elapsed() + millis)
    }

    pub(crate) fn pause_until(&self, elapsed: u64) -> Waiting {
        Waiting { time: self.clone(), until: Until::Elapsed(elapsed), id: None }
    }

    /// Called when nothing can run: goes to the next moment and wakes one who waits for it. False: nobody waits.
    pub(crate) fn advance(&self) -> bool {
        let mut inner = self.inner();
        let pausing = inner.pausing.first_key_value().map(|(key, _)| *key);
        let sleeping = inner.sleeping.first_key_value().map(|(key, _)| *key);
        let wakes_at = |(at, _): (i64, u64)| inner.elapsed + u64::try_from(at - inner.wall()).unwrap_or(0);
        let waker = match (pausing, sleeping) {
            (Some(pausing), sleeping) if sleeping.is_none_or(|key| pausing.0 <= wakes_at(key)) => {
                inner.elapsed = inner.elapsed.max(pausing.0);
                inner.pausing.remove(&pausing)
            }
            (_, Some(sleeping)) => {
                inner.elapsed = wakes_at(sleeping);
                inner.sleeping.remove(&sleeping)
            }
            (_, None) => None,
        };
        drop(inner);
        waker.map(Waker::wake).is_some()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Clock for Time {
    fn now(&self) -> Timestamp {
        self.wall()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(Waiting { time: self.clone(), until: Until::Wall(at.as_millis()), id: None })
    }
}

enum Until {
    Elapsed(u64),
    Wall(i64),
}

pub(crate) struct Waiting {
    time: Time,
    until: Until,
    id: Option<u64>,
}

impl Waiting {
    fn forget(&mut self) {
        let Some(id) = self.id.take() else { return };
        let mut inner = self.time.inner();
        match self.until {
            Until::Elapsed(at) => inner.pausing.remove(&(at, id)),
            Until::Wall(at) => inner.sleeping.remove(&(at, id)),
        };
    }
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.forget();
        let time = self.time.clone();
        let mut inner = time.inner();
        let over = match self.until {
            Until::Elapsed(at) => inner.elapsed >= at,
            Until::Wall(at) => inner.wall() >= at,
        };
        if over {
            return Poll::Ready(());
        }
        inner.ids += 1;
        let id = inner.ids;
        match self.until {
            Until::Elapsed(at) => inner.pausing.insert((at, id), context.waker().clone()),
            Until::Wall(at) => inner.sleeping.insert((at, id), context.waker().clone()),
        };
        self.id = Some(id);
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.forget();
    }
}
