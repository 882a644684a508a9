//! Who holds which generation of a credential, as the holders themselves report it once they have put a token in place.
//! It is what a person wants to know before they revoke, and whom to visit after.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionId, HolderId, SubjectId, TenantId, Timestamp};

/// How many holders of one credential are kept: anybody with the user's token can make up new ones.
pub const MOST_HOLDERS: usize = 100;
/// A report that says what its holder has said this short a time ago is not written again.
pub const REPEATED_WITHIN: Duration = Duration::from_secs(3600);
/// Changes to one connection's holders that may come at once: every holder puts a generation in place and removes another.
pub const CHANGES_AT_ONCE: u32 = 256;
/// How often one more may come after that: each is a durable write and a record in the audit trail.
pub const CHANGE_EVERY: Duration = Duration::from_secs(1);

/// All that is known of one connection's holders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    pub tenant: TenantId,
    pub subject: SubjectId,
    pub connection: ConnectionId,
    list: Vec<Holder>,
    forgotten: u64,
    /// When there is room again for [`CHANGES_AT_ONCE`].
    room_at: Timestamp,
}

/// One holder, by its newest report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub id: HolderId,
    /// The generation that it holds, as far as it said. `None`: none.
    pub held_generation: Option<u64>,
    /// Of the newest report that changed what it holds; `None`: nothing ever did.
    settled_generation: Option<u64>,
    /// What it reported last, of `reported_generation`.
    pub outcome: ApplyOutcome,
    pub reported_generation: u64,
    pub at: Timestamp,
}

/// What became of a generation at a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyOutcome {
    /// It is in place, and every older one is not.
    Applied,
    /// It could not be put in place: what was there before is there still.
    Failed,
    /// It was taken away, and with it every older one. Any generation since the one that was held says so.
    Removed,
}

/// What a holder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedReport {
    pub holder: HolderId,
    pub generation: u64,
    pub outcome: ApplyOutcome,
}

/// What a report is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All that is known with it.
    News(Holders),
    /// It says what its holder has said a short time ago.
    Repeated,
    /// It says nothing any more: its holder has reported a newer generation meanwhile.
    Overtaken,
    /// More changes came than are written.
    TooMany { retry_after: Duration },
}

impl Holders {
    /// Nobody yet.
    pub fn of(connection: &Connection) -> Self {
        let Connection { id, tenant, subject, .. } = connection;
        Self {
            tenant: tenant.clone(),
            subject: *subject,
            connection: *id,
            list: Vec::new(),
            forgotten: 0,
            room_at: Timestamp::EPOCH,
        }
    }

    /// Newest report first.
    pub fn list(&self) -> &[Holder] {
        &self.list
    }

    /// How often somebody who holds a generation made room for another: more than zero says that the list is not all.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Hears what a holder says now. That something was applied or removed is overtaken by the same of a newer
    /// generation, and not by a failure, which has changed nothing; a failure by any report of a newer one. Of one
    /// generation the last report counts.
    #[must_use]
    pub fn hear(&self, report: &AppliedReport, at: Timestamp) -> Heard {
        let AppliedReport { holder, generation, outcome } = report;
        let known = self.list.iter().find(|known| known.id == *holder);
        let settled = known.and_then(|known| known.settled_generation);
        let newest = match outcome {
            ApplyOutcome::Failed => known.map(|known| known.reported_generation),
            ApplyOutcome::Applied | ApplyOutcome::Removed => settled,
        };
        if newest > Some(*generation) {
            return Heard::Overtaken;
        }
        let (held_generation, settled_generation) = match outcome {
            ApplyOutcome::Applied => (Some(*generation), Some(*generation)),
            ApplyOutcome::Failed => (known.and_then(|known| known.held_generation), settled),
            ApplyOutcome::Removed => (None, Some(*generation)),
        };
        let (id, outcome, reported_generation) = (holder.clone(), *outcome, *generation);
        let said = Holder { id, held_generation, settled_generation, outcome, reported_generation, at };
        if known.is_some_and(|known| said.repeats(known)) {
            return Heard::Repeated;
        }
        match self.room_after_one_more(at) {
            Ok(room_at) => Heard::News(self.with(said, room_at)),
            Err(retry_after) => Heard::TooMany { retry_after },
        }
    }

    fn with(&self, said: Holder, room_at: Timestamp) -> Self {
        let mut next = Self { room_at, ..self.clone() };
        next.list.retain(|known| known.id != said.id);
        if next.list.len() >= MOST_HOLDERS {
            next.forget_one();
        }
        next.list.insert(0, said);
        next
    }

    /// A token bucket by the generic cell rate algorithm.
    fn room_after_one_more(&self, at: Timestamp) -> Result<Timestamp, Duration> {
        let latest = at.plus(CHANGE_EVERY * CHANGES_AT_ONCE);
        // No further ahead than it can be: a clock that was set back must not silence anybody.
        let room_at = self.room_at.clamp(at, latest).plus(CHANGE_EVERY);
        if room_at > latest { Err(room_at - latest) } else { Ok(room_at) }
    }

    /// Whoever holds nothing is missed least; among equals, who was not heard of for longest.
    fn forget_one(&mut self) {
        let holding_nothing = self.list.iter().rposition(|known| known.held_generation.is_none());
        let gone = self.list.remove(holding_nothing.unwrap_or(self.list.len() - 1));
        self.forgotten += u64::from(gone.held_generation.is_some());
    }
}

impl Holder {
    /// A clock that was set back makes no report a repetition of a later one.
    fn repeats(&self, known: &Self) -> bool {
        let lately = self.at >= known.at && self.at - known.at < REPEATED_WITHIN;
        lately && Self { at: known.at, ..self.clone() } == *known
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nobody() -> Holders {
        Holders {
            tenant: "acme".parse().expect("a legal name"),
            subject: SubjectId::from_bytes([1; 32]),
            connection: ConnectionId::from_bytes([2; 16]),
            list: Vec::new(),
            forgotten: 0,
            room_at: Timestamp::EPOCH,
        }
    }

    fn report(holder: &impl ToString, generation: u64, outcome: ApplyOutcome) -> AppliedReport {
        AppliedReport { holder: holder.to_string().parse().expect("a legal holder"), generation, outcome }
    }

    /// As it is known after the report.
    fn heard(holders: Holders, report: &AppliedReport, at: Timestamp) -> Holders {
        if let Heard::News(next) = holders.hear(report, at) { next } else { holders }
    }

    fn after(reports: &[(&str, u64, ApplyOutcome)]) -> Vec<(String, Option<u64>)> {
        let mut holders = nobody();
        for (second, (holder, generation, outcome)) in (0..).zip(reports) {
            let report = report(holder, *generation, *outcome);
            holders = heard(holders, &report, Timestamp::from_secs(second));
        }
        holders.list.into_iter().map(|holder| (holder.id.to_string(), holder.held_generation)).collect()
    }

    #[test]
    fn what_failed_leaves_what_was_there_and_what_was_removed_leaves_nothing() {
        use ApplyOutcome::{Applied, Failed, Removed};
        for (reports, holds) in [
            (&[("pod", 6, Applied), ("pod", 7, Failed)][..], Some(6)),
            (&[("pod", 7, Failed)], None),
            (&[("pod", 7, Failed), ("pod", 7, Applied)], Some(7)),
            (&[("pod", 6, Applied), ("pod", 7, Removed)], None),
            (&[("pod", 6, Applied), ("pod", 7, Failed), ("pod", 6, Removed)], None),
            (&[("pod", 7, Failed), ("pod", 6, Applied)], Some(6)),
            (&[("pod", 6, Applied), ("pod", 7, Failed), ("pod", 5, Removed)], Some(6)),
            (&[("pod", 7, Failed), ("pod", 6, Removed), ("pod", 5, Applied)], None),
            (&[("pod", 7, Removed), ("pod", 7, Applied)], Some(7)),
        ] {
            assert_eq!(after(reports), [("pod".to_owned(), holds)], "{reports:?}");
        }
    }

    #[test]
    fn a_report_that_was_overtaken_changes_nothing() {
        use ApplyOutcome::{Applied, Failed, Removed};
        for (first, overtaken) in [
            (Applied, [Applied, Failed, Removed].as_slice()),
            (Removed, &[Applied, Failed, Removed]),
            (Failed, &[Failed]),
        ] {
            let holders = heard(nobody(), &report(&"pod", 7, first), Timestamp::EPOCH);
            for outcome in overtaken {
                assert_eq!(
                    holders.hear(&report(&"pod", 6, *outcome), Timestamp::EPOCH),
                    Heard::Overtaken,
                    "{outcome:?}"
                );
            }
        }
    }

    #[test]
    fn who_holds_nothing_makes_room_before_who_was_silent_for_longest() {
        let mut holders = nobody();
        for number in 0..MOST_HOLDERS {
            let outcome = if number == 3 { ApplyOutcome::Removed } else { ApplyOutcome::Applied };
            holders = heard(holders, &report(&number, 1, outcome), Timestamp::EPOCH);
        }
        for (newcomer, gone, forgotten) in [("first", "3", 0), ("second", "0", 1), ("third", "1", 2)] {
            assert!(holders.list.iter().any(|holder| holder.id.as_str() == gone));
            holders = heard(holders, &report(&newcomer, 1, ApplyOutcome::Failed), Timestamp::EPOCH);
            assert_eq!(holders.list[0].id.as_str(), newcomer);
            holders = heard(holders, &report(&newcomer, 1, ApplyOutcome::Applied), Timestamp::EPOCH);
            assert_eq!((holders.list.len(), holders.list[0].held_generation), (MOST_HOLDERS, Some(1)));
            assert!(holders.list.iter().all(|holder| holder.id.as_str() != gone));
            assert_eq!(holders.forgotten(), forgotten, "only who holds something is missed");
        }
    }

    #[test]
    fn what_was_said_a_short_time_ago_is_no_news_and_what_changes_is() {
        use ApplyOutcome::{Applied, Failed, Removed};
        let began = Timestamp::from_secs(1_800_000_000);
        let long_after = began.plus(REPEATED_WITHIN);
        let just_before = Timestamp::from_millis(long_after.as_millis() - 1);
        for outcome in [Applied, Failed, Removed] {
            let said = report(&"pod", 7, outcome);
            let holders = heard(nobody(), &said, began);
            assert_eq!(holders.hear(&said, just_before), Heard::Repeated);
            assert_eq!(heard(holders.clone(), &said, long_after).list[0].at, long_after);
            let set_back = Timestamp::from_millis(began.as_millis() - 1);
            assert_eq!(heard(holders.clone(), &said, set_back).list[0].at, set_back);
            for other in [Applied, Failed, Removed].into_iter().filter(|other| *other != outcome) {
                assert!(matches!(holders.hear(&report(&"pod", 7, other), began), Heard::News(_)));
            }
            assert!(matches!(holders.hear(&report(&"pod", 8, outcome), began), Heard::News(_)));
            assert!(matches!(holders.hear(&report(&"other", 7, outcome), began), Heard::News(_)));
        }
    }

    #[test]
    fn changes_come_at_once_and_then_one_by_one() {
        use ApplyOutcome::{Applied, Removed};
        let (began, mut holders) = (Timestamp::from_secs(1_800_000_000), nobody());
        let change = |number: u32| report(&"pod", 1, if number.is_multiple_of(2) { Applied } else { Removed });
        for number in 0..CHANGES_AT_ONCE {
            let Heard::News(next) = holders.hear(&change(number), began) else { panic!("{number}") };
            holders = next;
        }
        let next = change(CHANGES_AT_ONCE);
        assert_eq!(holders.hear(&next, began), Heard::TooMany { retry_after: CHANGE_EVERY });
        assert_eq!(holders.hear(&change(CHANGES_AT_ONCE - 1), began), Heard::Repeated, "which costs nothing");
        let holders = heard(holders, &next, began.plus(CHANGE_EVERY));
        let after = change(CHANGES_AT_ONCE + 1);
        assert_eq!(holders.hear(&after, began.plus(CHANGE_EVERY)), Heard::TooMany { retry_after: CHANGE_EVERY });
        let set_back = holders.hear(&after, Timestamp::EPOCH.plus(CHANGE_EVERY));
        assert_eq!(set_back, Heard::TooMany { retry_after: CHANGE_EVERY }, "no longer than with a clock that goes on");
    }

    /// What a holder holds after these reports of its own: the newest generation that it ever applied or removed decides,
    /// and of several reports of that one the last.
    fn held_after(reports: &[(u64, ApplyOutcome)]) -> Option<u64> {
        let changes = || reports.iter().filter(|(_, outcome)| *outcome != ApplyOutcome::Failed);
        let newest = changes().map(|(generation, _)| *generation).max()?;
        let last = changes().rfind(|(generation, _)| *generation == newest)?;
        (last.1 == ApplyOutcome::Applied).then_some(newest)
    }

    const OUTCOMES: [ApplyOutcome; 3] = [ApplyOutcome::Applied, ApplyOutcome::Failed, ApplyOutcome::Removed];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn everybody_holds_the_newest_that_they_applied_and_did_not_remove(
            reports in prop::collection::vec((0_u8..4, 1_u64..9, prop::sample::select(&OUTCOMES)), 0..60),
        ) {
            let mut holders = nobody();
            for (second, (holder, generation, outcome)) in (0..).zip(&reports) {
                holders = heard(holders, &report(holder, *generation, *outcome), Timestamp::from_secs(second));
            }
            for of in holders.list() {
                let theirs = reports.iter().filter(|(holder, ..)| holder.to_string() == of.id.as_str());
                let theirs: Vec<_> = theirs.map(|(_, generation, outcome)| (*generation, *outcome)).collect();
                prop_assert_eq!(of.held_generation, held_after(&theirs), "{:?}", theirs);
            }
        }

        #[test]
        fn a_holder_stands_once_and_the_list_stays_short_with_the_newest_report_first(
            reports in prop::collection::vec((0_u16..150, 1_u64..9, prop::sample::select(&OUTCOMES)), 0..600),
        ) {
            let mut holders = nobody();
            for (second, (holder, generation, outcome)) in (0..).zip(reports) {
                holders = heard(holders, &report(&holder, generation, outcome), Timestamp::from_secs(second));
                prop_assert!(holders.list.len() <= MOST_HOLDERS);
                prop_assert!(holders.list.is_sorted_by_key(|holder| std::cmp::Reverse(holder.at)));
                let names: std::collections::BTreeSet<_> = holders.list.iter().map(|holder| &holder.id).collect();
                prop_assert_eq!(names.len(), holders.list.len());
            }
        }
    }
}
