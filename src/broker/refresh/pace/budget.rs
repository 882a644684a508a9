//! How many refreshes a provider gets in a second.

use std::{num::NonZeroU32, time::Duration};

use crate::domain::Timestamp;

/// A token bucket. Its size and its refill together keep the promise for every second, not for the average one: a
/// tenth of the rate may go at once, and what refills within the same second is less by that much.
pub(super) struct Budget {
    /// Below zero: promised to callers who wait for it.
    left: f64,
    counted_at: Timestamp,
}

impl Budget {
    pub(super) fn full(rate: NonZeroU32, now: Timestamp) -> Self {
        Self { left: size(rate), counted_at: now }
    }

    /// Takes one that is there; otherwise says when there will be one.
    pub(super) fn take(&mut self, rate: NonZeroU32, now: Timestamp) -> Result<(), Timestamp> {
        self.promise(rate, now, Duration::ZERO).map(drop)
    }

    /// Takes one that will be there within `longest`, ahead of everybody who wants one that is there, and says when.
    pub(super) fn promise(
        &mut self,
        rate: NonZeroU32,
        now: Timestamp,
        longest: Duration,
    ) -> Result<Timestamp, Timestamp> {
        let refill = self.count(rate, now);
        let missing = (1.0 - self.left).max(0.0) / refill;
        // Up to the millisecond, which is as fine as time is here; what is missing of a thousandth of that is not.
        let wait = Duration::from_millis((missing * 1000.0 - 1e-3).ceil().max(0.0) as u64);
        if wait > longest {
            return Err(now.plus(wait));
        }
        self.left -= 1.0;
        Ok(now.plus(wait))
    }

    /// One that was taken and not used.
    pub(super) fn give_back(&mut self) {
        self.left += 1.0;
    }

    fn count(&mut self, rate: NonZeroU32, now: Timestamp) -> f64 {
        let refill = f64::from(rate.get()) - (size(rate) - 1.0);
        // A clock that was set back refills nothing, and stops nothing.
        self.left = (self.left + (now - self.counted_at).as_secs_f64() * refill).min(size(rate));
        self.counted_at = now;
        refill
    }
}

fn size(rate: NonZeroU32) -> f64 {
    f64::from((rate.get() / 10).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    #[test]
    fn no_second_sees_more_than_the_rate_and_the_long_run_sees_nine_tenths() {
        for per_second in [1, 2, 7, 10, 20, 50, 1000] {
            let (rate, mut now, mut went) = (rate(per_second), START, Vec::new());
            let mut budget = Budget::full(rate, now);
            while now < START.plus(Duration::from_secs(20)) {
                match budget.take(rate, now) {
                    Ok(()) => went.push(now),
                    Err(at) => now = at,
                }
            }
            for (nth, first) in went.iter().enumerate() {
                let end = first.plus(Duration::from_secs(1));
                let within = went[nth..].iter().take_while(|at| **at < end).count();
                assert!(within <= per_second as usize, "{within} in a second at a rate of {per_second}");
            }
            assert!(went.len() >= 18 * per_second as usize, "{} in 20 s at a rate of {per_second}", went.len());
        }
    }

    #[test]
    fn what_is_promised_to_callers_goes_before_what_is_there() {
        let (rate, mut budget) = (rate(10), Budget::full(rate(10), START));
        let longest = Duration::from_millis(250);
        let at = |millis| START.plus(Duration::from_millis(millis));
        assert_eq!(budget.promise(rate, START, longest), Ok(START));
        assert_eq!(budget.promise(rate, START, longest), Ok(at(100)));
        assert_eq!(budget.promise(rate, START, longest), Ok(at(200)));
        assert_eq!(budget.promise(rate, START, longest), Err(at(300)));
        assert_eq!(budget.take(rate, at(200)), Err(at(300)), "both of 100 and 200 ms are promised");
        budget.give_back();
        assert_eq!(budget.take(rate, at(200)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_neither_stops_nor_fills_it() {
        let (rate, mut budget) = (rate(10), Budget::full(rate(10), START));
        assert_eq!(budget.take(rate, START), Ok(()));
        let earlier = START.minus(Duration::from_secs(3600));
        let again = earlier.plus(Duration::from_millis(100));
        assert_eq!(budget.take(rate, earlier), Err(again));
        assert_eq!(budget.take(rate, again), Ok(()));
    }
}
