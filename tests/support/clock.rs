//! A clock that moves when a test says so.

use std::{sync::Arc, time::Duration};

use claviger::domain::{BoxFuture, Clock, Timestamp};
use tokio::sync::watch;

/// Starts at [`ManualClock::START`]; clones show the same time.
#[derive(Clone)]
pub(crate) struct ManualClock {
    time: Arc<watch::Sender<Timestamp>>,
    /// When the last one who went to sleep wants to be woken.
    sleeper: Arc<watch::Sender<Option<Timestamp>>>,
}

impl ManualClock {
    pub(crate) const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    pub(crate) fn new() -> Self {
        Self { time: Arc::new(watch::Sender::new(Self::START)), sleeper: Arc::default() }
    }

    /// Wakes whoever sleeps until then.
    pub(crate) fn advance(&self, by: Duration) {
        self.time.send_modify(|now| *now = now.plus(by));
    }

    /// Returns once somebody has gone to sleep until exactly `at`.
    pub(crate) async fn someone_sleeps_until(&self, at: Timestamp) {
        let mut sleeper = self.sleeper.subscribe();
        assert!(sleeper.wait_for(|until| *until == Some(at)).await.is_ok(), "the clock holds the sender");
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.time.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut time = self.time.subscribe();
        self.sleeper.send_replace(Some(at));
        Box::pin(async move {
            if time.wait_for(|now| *now >= at).await.is_err() {
                // The clock is gone: that time never comes.
                std::future::pending::<()>().await;
            }
        })
    }
}
