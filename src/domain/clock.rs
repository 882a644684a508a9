//! Time comes in from outside: everything that judges expiry takes a [`Timestamp`] or a [`Clock`].

use std::{fmt, future::Future, ops::Sub, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};

/// A future that owns or borrows for `'a` and can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Says what time it is and wakes at a given time; the only source of time below the edges.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Completes once `now() >= at`; at once when that already holds.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

/// Milliseconds since the Unix epoch, UTC. Arithmetic saturates, so no provider's `expires_in` can overflow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const EPOCH: Self = Self(0);
    /// Later than every real moment; sorts last in the scheduler's index.
    pub const NEVER: Self = Self(i64::MAX);

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down: what JWT's NumericDate and `expires_in` count in.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.as_secs(), self.0.rem_euclid(1000))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_arithmetic_overflows(at: i64, millis: u64) {
            let (at, duration) = (Timestamp::from_millis(at), Duration::from_millis(millis));
            let wide = |exact: i128| Timestamp::from_millis(exact.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
            // A duration beyond i64::MAX ms counts as i64::MAX ms.
            let step = i128::from(millis.min(i64::MAX as u64));
            prop_assert_eq!(at.plus(duration), wide(i128::from(at.as_millis()) + step));
            prop_assert_eq!(at.minus(duration), wide(i128::from(at.as_millis()) - step));
        }

        #[test]
        fn time_between_two_moments_is_never_negative(a: i64, b: i64) {
            let (a, b) = (Timestamp::from_millis(a), Timestamp::from_millis(b));
            let (early, late) = (a.min(b), a.max(b));
            prop_assert_eq!(early - late, Duration::ZERO);
            prop_assert!(early.plus(late - early) == late || late - early == Duration::from_millis(i64::MAX as u64));
        }

        #[test]
        fn seconds_round_down(millis in -10_000_000i64..10_000_000) {
            let at = Timestamp::from_millis(millis);
            prop_assert!(Timestamp::from_secs(at.as_secs()) <= at);
            prop_assert!(at < Timestamp::from_secs(at.as_secs() + 1));
        }
    }

    #[test]
    fn the_ends_of_time_hold() {
        assert_eq!(Timestamp::NEVER.plus(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp::EPOCH.plus(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp::from_secs(i64::MAX), Timestamp::NEVER);
        assert!(Timestamp::EPOCH.minus(Duration::MAX) < Timestamp::EPOCH);
        assert_eq!(Timestamp::from_millis(1_800_000_000_042).to_string(), "1800000000.042");
    }
}
