//! The newest end of the log.

use std::{collections::VecDeque, sync::Arc};

use super::LoggedEvent;
use crate::domain::Revision;

/// What a revision weighs for each event, however short: it takes room beside its bytes.
pub(super) const LEAST: usize = 4 << 10;
/// Weight that is kept, 4,096 events at most; the newest revision always is, however much it weighs.
const RING: usize = 16 << 20;
/// Weight of what one subscriber is given at once, give or take a revision: it holds that until it is sent.
const PORTION: usize = 512 << 10;

/// All events of one revision.
pub struct LoggedRevision {
    pub revision: Revision,
    pub events: Vec<LoggedEvent>,
}

impl LoggedRevision {
    /// Also one that has lost all its events takes room.
    pub(super) fn weight(&self) -> usize {
        self.events.iter().map(|event| event.wire.len().max(LEAST)).sum::<usize>().max(LEAST)
    }
}

/// Every event above `floor` and up to the announced revision.
pub(super) struct Ring {
    floor: Revision,
    revisions: VecDeque<Arc<LoggedRevision>>,
    /// Of all its revisions.
    weight: usize,
}

impl Ring {
    /// Empty: what is not newer is not in it.
    pub(super) fn above(floor: Revision) -> Self {
        Self { floor, revisions: VecDeque::new(), weight: 0 }
    }

    pub(super) fn push(&mut self, page: &[Arc<LoggedRevision>]) {
        self.weight += page.iter().map(|logged| logged.weight()).sum::<usize>();
        self.revisions.extend(page.iter().cloned());
        while self.weight > RING && self.revisions.len() > 1 {
            if let Some(oldest) = self.revisions.pop_front() {
                self.floor = oldest.revision;
                self.weight -= oldest.weight();
            }
        }
    }

    /// Whether the oldest had to go.
    pub(super) fn reaches_back_to(&self, floor: Revision) -> bool {
        self.floor <= floor
    }

    /// What follows `cursor`, and up to where it is all that there is. `None`: the ring does not reach back to it.
    pub(super) fn after(&self, cursor: Revision, announced: Revision) -> Option<(Vec<Arc<LoggedRevision>>, Revision)> {
        if cursor < self.floor {
            return None;
        }
        let from = self.revisions.partition_point(|logged| logged.revision <= cursor);
        let newer = self.revisions.range(from..).take_while(|logged| logged.revision <= announced);
        Some(portion(newer, announced.max(cursor)))
    }
}

/// As much as one subscriber is given at once, and up to where it is all that there is: `complete`, if it is all of them.
pub(super) fn portion<'a>(
    revisions: impl Iterator<Item = &'a Arc<LoggedRevision>>,
    complete: Revision,
) -> (Vec<Arc<LoggedRevision>>, Revision) {
    let (mut portion, mut weight) = (Vec::new(), 0);
    for logged in revisions {
        portion.push(Arc::clone(logged));
        weight += logged.weight();
        if weight >= PORTION {
            return (portion, logged.revision);
        }
    }
    (portion, complete)
}
