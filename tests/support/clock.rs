//! A clock that moves when a test says so.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use claviger::domain::{BoxFuture, Clock, Timestamp};
use tokio::sync::watch;

/// Starts at [`ManualClock::START`]; clones show the same time.
#[derive(Clone)]
pub(crate) struct ManualClock {
    time: Arc<watch::Sender<Timestamp>>,
    /// When those who went to sleep want to be woken.
    sleepers: Arc<watch::Sender<BTreeSet<Timestamp>>>,
}

impl ManualClock {
    pub(crate) const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    pub(crate) fn new() -> Self {
        Self { time: Arc::new(watch::Sender::new(Self::START)), sleepers: Arc::default() }
    }

    /// Wakes whoever sleeps until then.
    pub(crate) fn advance(&self, by: Duration) {
        self.set(|now| now.plus(by));
    }

    /// Also back, as an operator or a time server may.
    pub(crate) fn set(&self, to: impl FnOnce(Timestamp) -> Timestamp) {
        self.time.send_modify(|now| *now = to(*now));
    }

    /// Returns once somebody has gone to sleep until exactly `at`.
    pub(crate) async fn someone_sleeps_until(&self, at: Timestamp) {
        let mut sleepers = self.sleepers.subscribe();
        assert!(sleepers.wait_for(|until| until.contains(&at)).await.is_ok(), "the clock holds the sender");
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.time.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut time = self.time.subscribe();
        let now = self.now();
        self.sleepers.send_modify(|sleepers| {
            // All that are to come, not the last alone: it would hide another that came a moment before.
            sleepers.retain(|until| *until > now);
            sleepers.insert(at);
        });
        Box::pin(async move {
            if time.wait_for(|now| *now >= at).await.is_err() {
                // The clock is gone: that time never comes.
                std::future::pending::<()>().await;
            }
        })
    }
}
