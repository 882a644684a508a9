//! Who holds which generation of a credential, as the holders themselves report it once they have put a token in place.
//! It is what a person wants to know before they revoke, and whom to visit after.

use serde::{Deserialize, Serialize};

use super::{Connection, ConnectionId, HolderId, SubjectId, TenantId, Timestamp};

/// How many holders of one credential are kept: anybody with the user's token can make up new ones.
pub const MOST_HOLDERS: usize = 100;

/// All that is known of one connection's holders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    pub tenant: TenantId,
    pub subject: SubjectId,
    pub connection: ConnectionId,
    list: Vec<Holder>,
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

impl Holders {
    /// Nobody yet.
    pub fn of(connection: &Connection) -> Self {
        let Connection { id, tenant, subject, .. } = connection;
        Self { tenant: tenant.clone(), subject: *subject, connection: *id, list: Vec::new() }
    }

    /// Newest report first.
    pub fn list(&self) -> &[Holder] {
        &self.list
    }

    pub fn into_list(self) -> Vec<Holder> {
        self.list
    }

    /// With what a holder says now. `None`: the report was overtaken on its way and says nothing any more. That something
    /// was applied or removed is overtaken by the same of a newer generation, and not by a failure, which has changed
    /// nothing; a failure by any report of a newer one. Of one generation the last report counts.
    #[must_use]
    pub fn with(&self, report: &AppliedReport, at: Timestamp) -> Option<Self> {
        let AppliedReport { holder, generation, outcome } = report;
        let mut next = self.clone();
        let known = next.list.iter().position(|known| known.id == *holder).map(|index| next.list.remove(index));
        let before = known.map_or((None, None, None), |known| {
            (known.held_generation, known.settled_generation, Some(known.reported_generation))
        });
        let (held, settled, reported) = before;
        let newest = if *outcome == ApplyOutcome::Failed { reported } else { settled };
        if newest > Some(*generation) {
            return None;
        }
        let (held_generation, settled_generation) = match outcome {
            ApplyOutcome::Applied => (Some(*generation), Some(*generation)),
            ApplyOutcome::Failed => (held, settled),
            ApplyOutcome::Removed => (None, Some(*generation)),
        };
        if next.list.len() >= MOST_HOLDERS {
            next.forget_one();
        }
        let (id, outcome, reported_generation) = (holder.clone(), *outcome, *generation);
        next.list.insert(0, Holder { id, held_generation, settled_generation, outcome, reported_generation, at });
        Some(next)
    }

    /// Whoever holds nothing is missed least; among equals, who was not heard of for longest.
    fn forget_one(&mut self) {
        let holding_nothing = self.list.iter().rposition(|known| known.held_generation.is_none());
        self.list.remove(holding_nothing.unwrap_or(self.list.len() - 1));
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
        }
    }

    fn report(holder: &impl ToString, generation: u64, outcome: ApplyOutcome) -> AppliedReport {
        AppliedReport { holder: holder.to_string().parse().expect("a legal holder"), generation, outcome }
    }

    fn after(reports: &[(&str, u64, ApplyOutcome)]) -> Vec<(String, Option<u64>)> {
        let mut holders = nobody();
        for (second, (holder, generation, outcome)) in (0..).zip(reports) {
            let report = report(holder, *generation, *outcome);
            holders = holders.with(&report, Timestamp::from_secs(second)).unwrap_or(holders);
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
            let holders = nobody().with(&report(&"pod", 7, first), Timestamp::EPOCH).expect("newer");
            for outcome in overtaken {
                assert_eq!(holders.with(&report(&"pod", 6, *outcome), Timestamp::EPOCH), None, "{outcome:?}");
            }
        }
    }

    #[test]
    fn who_holds_nothing_makes_room_before_who_was_silent_for_longest() {
        let mut holders = nobody();
        for number in 0..MOST_HOLDERS {
            let outcome = if number == 3 { ApplyOutcome::Removed } else { ApplyOutcome::Applied };
            holders = holders.with(&report(&number, 1, outcome), Timestamp::EPOCH).expect("a new holder");
        }
        for (newcomer, gone) in [("first", "3"), ("second", "0"), ("third", "1")] {
            assert!(holders.list.iter().any(|holder| holder.id.as_str() == gone));
            holders =
                holders.with(&report(&newcomer, 1, ApplyOutcome::Failed), Timestamp::EPOCH).expect("a new holder");
            assert_eq!(holders.list[0].id.as_str(), newcomer);
            holders = holders.with(&report(&newcomer, 1, ApplyOutcome::Applied), Timestamp::EPOCH).expect("the same");
            assert_eq!((holders.list.len(), holders.list[0].held_generation), (MOST_HOLDERS, Some(1)));
            assert!(holders.list.iter().all(|holder| holder.id.as_str() != gone));
        }
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
                let next = holders.with(&report(holder, *generation, *outcome), Timestamp::from_secs(second));
                holders = next.unwrap_or(holders);
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
                let next = holders.with(&report(&holder, generation, outcome), Timestamp::from_secs(second));
                holders = next.unwrap_or(holders);
                prop_assert!(holders.list.len() <= MOST_HOLDERS);
                prop_assert!(holders.list.is_sorted_by_key(|holder| std::cmp::Reverse(holder.at)));
                let names: std::collections::BTreeSet<_> = holders.list.iter().map(|holder| &holder.id).collect();
                prop_assert_eq!(names.len(), holders.list.len());
            }
        }
    }
}
