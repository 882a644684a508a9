//! What was read of the log lately: those who catch up come the same way.

use std::{collections::VecDeque, sync::Arc};

use super::{
    LoggedRevision,
    ring::{LEAST, portion},
};
use crate::domain::Revision;

/// Weight that is kept.
const MOST: usize = 16 << 20;

/// Every event above `after` and up to `complete`.
pub(super) struct Page {
    pub(super) after: Revision,
    pub(super) complete: Revision,
    pub(super) revisions: Vec<Arc<LoggedRevision>>,
}

#[derive(Default)]
pub(super) struct Pages {
    pages: VecDeque<Page>,
    weight: usize,
}

impl Page {
    /// As [`portion`].
    pub(super) fn after(&self, cursor: Revision) -> (Vec<Arc<LoggedRevision>>, Revision) {
        portion(self.revisions.iter().filter(|logged| logged.revision > cursor), self.complete)
    }

    /// Also one without events takes room.
    fn weight(&self) -> usize {
        LEAST + self.revisions.iter().map(|logged| logged.weight()).sum::<usize>()
    }
}

impl Pages {
    pub(super) fn push(&mut self, page: Page) {
        self.weight += page.weight();
        self.pages.push_back(page);
        while self.weight > MOST && self.pages.len() > 1 {
            if let Some(oldest) = self.pages.pop_front() {
                self.weight -= oldest.weight();
            }
        }
    }

    /// What follows `cursor`, and up to where it is all that there is. `None`: that was not read lately.
    pub(super) fn after(&self, cursor: Revision) -> Option<(Vec<Arc<LoggedRevision>>, Revision)> {
        let page = self.pages.iter().rev().find(|page| page.after <= cursor && cursor < page.complete)?;
        Some(page.after(cursor))
    }
}
