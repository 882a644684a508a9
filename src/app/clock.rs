//! The system's clock: the one place where real time comes in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::domain::{BoxFuture, Clock, Timestamp};

/// Wall time. Sleeps are cut into pieces, so that a clock that was set forward is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// How long a changed wall clock may go unnoticed by a sleeper.
const LONGEST_NAP: Duration = Duration::from_secs(10);

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where wall time comes in")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp::EPOCH.plus(since)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where real sleep comes in")]
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            loop {
                let left = at - clock.now();
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_NAP)).await;
            }
        })
    }
}
