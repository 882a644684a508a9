//! Sending the watchers away when the process ends: one after the other, and back one after the other.
//!
//! Who is told together comes back together, and then every stream is opened anew in the same second, with its token
//! verified and its audit record written. So each stream has a number, which says when it is told and when it is to come
//! back. The two orders have nothing in common: a client or a network that stands still for a moment hears many at once,
//! and those still come back one after the other.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{broker::Broker, domain::Timestamp};

/// So few are told at once: a small installation restarts without waiting.
const AT_ONCE: u32 = 100;
/// How many are told, and how many are to come back, in a second.
const PER_SECOND: f64 = 500.0;
/// The returns take no less, because many clients are several processes that reckon by their own clocks, and no more,
/// because nobody who waits hears anything.
const RETURNS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));
/// From the last one's turn until another process can be expected to listen.
const RESTART: Duration = Duration::from_secs(4);
/// The multiples of the golden section, without their whole parts, lie evenly in every stretch of numbers.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
/// A stream that lags, or that is only beginning, may go on for so long after its turn.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// Who is told when. Nobody before it begins.
#[derive(Default)]
pub(in crate::broker) struct Drains {
    begun: CancellationToken,
    plan: OnceLock<Plan>,
    next: AtomicU32,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    begun_at: Timestamp,
    streams: u32,
    window: Duration,
}

/// One stream's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    at: Timestamp,
    return_at: Timestamp,
}

impl Drains {
    /// Begins, unless it has begun; returns when the last turn comes.
    fn begin(&self, now: Timestamp, streams: u32, longest: Duration) -> Timestamp {
        let plan = self.plan.get_or_init(|| Plan::new(now, streams, longest));
        self.begun.cancel();
        plan.begun_at.plus(plan.window)
    }

    fn turn(&self) -> Option<Turn> {
        self.plan.get().map(|plan| plan.turn(self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Plan {
    fn new(begun_at: Timestamp, streams: u32, longest: Duration) -> Self {
        let window = if streams <= AT_ONCE { Duration::ZERO } else { at_the_usual_pace(streams).min(longest) };
        Self { begun_at, streams: streams.max(1), window }
    }

    fn turn(&self, number: u32) -> Turn {
        // A stream that was being opened while they were counted takes the turn of another.
        let number = number % self.streams;
        let (part, part_of_returns) =
            (f64::from(number) / f64::from(self.streams), (f64::from(number) * GOLDEN).fract());
        let (shortest, longest) = RETURNS;
        let returns = at_the_usual_pace(self.streams).clamp(shortest, longest);
        Turn {
            at: self.begun_at.plus(self.window.mul_f64(part)),
            return_at: self.begun_at.plus(self.window + RESTART + returns.mul_f64(part_of_returns)),
        }
    }
}

impl Turn {
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) fn return_at(&self) -> Timestamp {
        self.return_at
    }

    pub(super) fn overdue_at(&self) -> Timestamp {
        self.at.plus(LAST_EVENTS)
    }

    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        now >= self.overdue_at()
    }
}

impl Broker {
    /// Ends the watch streams one after the other, each with a drain that says when to come again, and takes no new
    /// ones; everything else is still served. Takes no time when they are few, and at most `longest`. A stream that its
    /// client does not read cannot be told.
    pub async fn drain_watchers(&self, longest: Duration) {
        self.clock().sleep_until(self.begin_draining(longest)).await;
    }

    /// Returns when the last stream is to be told.
    pub(in crate::broker) fn begin_draining(&self, longest: Duration) -> Timestamp {
        self.drains().begin(self.now(), self.quota().open(), longest)
    }

    /// Cancelled when the watchers begin to be sent away: the broker is about to end.
    pub fn leaving(&self) -> &CancellationToken {
        &self.drains().begun
    }

    /// Whether a stream is to be told now; it gets its turn when it asks for the first time after that has begun.
    pub(super) fn is_turn(&self, turn: &mut Option<Turn>) -> bool {
        *turn = turn.or_else(|| self.drains().turn());
        turn.is_some_and(|turn| self.now() >= turn.at) || self.stopping().is_cancelled()
    }

    /// Returns when a stream that has no turn yet should ask for one, or nobody's turn is waited for any more.
    pub(super) async fn called(&self, turn: Option<Turn>) {
        let call = if turn.is_none() { self.leaving() } else { self.stopping() };
        call.cancelled().await;
    }
}

fn at_the_usual_pace(streams: u32) -> Duration {
    Duration::from_secs_f64(f64::from(streams) / PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(7);
    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn turns(streams: u32) -> (Timestamp, Vec<Turn>) {
        let drains = Drains::default();
        assert_eq!(drains.turn(), None, "nobody is told before it begins");
        let end = drains.begin(START, streams, LONGEST);
        (end, (0..streams).map(|_| drains.turn().unwrap()).collect())
    }

    /// The most in one second, wherever it begins, over the mean.
    fn crowding(times: &[Timestamp]) -> f64 {
        assert!(times.is_sorted());
        let until = |from: Timestamp| times.partition_point(|time| *time < from.plus(Duration::from_secs(1)));
        let most = times.iter().enumerate().map(|(index, from)| until(*from) - index).max().unwrap();
        let lasted = *times.last().unwrap() - times[0];
        most as f64 / (times.len() as f64 / lasted.as_secs_f64().max(1.0))
    }

    #[test]
    fn few_are_told_at_once_and_many_one_after_the_other() {
        let (end, few) = turns(AT_ONCE);
        assert!(end == START && few.iter().all(|turn| turn.at == START));
        for (streams, seconds) in [(1000, 2.0), (3000, 6.0), (3500, 7.0), (50_000, 7.0)] {
            let (end, turns) = turns(streams);
            assert_eq!((end - START).as_secs_f64(), seconds, "{streams}");
            let told: Vec<_> = turns.iter().map(|turn| turn.at).collect();
            assert!(told.iter().all(|at| (START..=end).contains(at)));
            assert!(crowding(&told) < 1.1, "{streams}: {}", crowding(&told));
        }
    }

    #[test]
    fn they_come_back_when_the_process_is_gone_and_no_second_sees_more_of_them_than_another() {
        for streams in [1, 10, AT_ONCE, 1000, 3000, 20_000, 50_000] {
            let (end, turns) = turns(streams);
            let mut returns: Vec<_> = turns.iter().map(Turn::return_at).collect();
            returns.sort_unstable();
            assert!(returns.iter().all(|at| *at >= end.plus(RESTART)), "{streams}");
            let last = returns.iter().max().unwrap();
            assert!(*last - end <= RESTART + RETURNS.1, "{streams}");
            if streams >= 1000 {
                assert!(crowding(&returns) < 1.1, "{streams}: {}", crowding(&returns));
                // Those whom a client heard together after it had stood still for a second.
                let mut together: Vec<_> = turns[400..900].iter().map(Turn::return_at).collect();
                together.sort_unstable();
                assert!(crowding(&together) < 1.2, "{streams}: {}", crowding(&together));
            }
        }
    }

    #[test]
    fn who_was_not_counted_has_a_turn_too() {
        let drains = Drains::default();
        let end = drains.begin(START, 1000, LONGEST);
        assert!((0..1500).all(|_| drains.turn().unwrap().at <= end));
        let none_counted = Drains::default();
        none_counted.begin(START, 0, LONGEST);
        assert_eq!(none_counted.turn().unwrap().at, START);
    }

    #[test]
    fn it_begins_once() {
        let drains = Drains::default();
        let end = drains.begin(START, 1000, LONGEST);
        assert_eq!(drains.begin(START.plus(LONGEST), 1, Duration::ZERO), end);
    }
}
