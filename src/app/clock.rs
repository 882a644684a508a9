//! Real time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::{BoxFuture, Clock, Timestamp};

/// The longest uninterrupted sleep: a clock that is set, or a machine that slept, is noticed after this.
const NAP: Duration = Duration::from_secs(60);

/// The system's clock. It may jump; sleepers follow it within a minute.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "time enters the process here")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.plus(since_epoch)
    }

    #[expect(clippy::disallowed_methods, reason = "time passes here")]
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            if at == Timestamp::NEVER {
                return std::future::pending().await;
            }
            while clock.now() < at {
                tokio::time::sleep(at.since(clock.now()).min(NAP)).await;
            }
        })
    }
}
