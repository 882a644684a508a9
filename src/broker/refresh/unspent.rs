//! Intents that stand on record although nothing was sent, or nothing was spent: the store failed when it was to say so.
//! The next flight closes them; after a crash they count as lost answers, for nobody knows better then.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::EntryId;

/// More than this many are not remembered: a store that fails so often has other troubles.
const MOST: usize = 65_536;

#[derive(Default)]
pub(in crate::broker) struct Unspent(Mutex<HashSet<EntryId>>);

impl Unspent {
    pub(super) fn note(&self, owner: EntryId) {
        let mut owners = self.owners();
        if owners.len() < MOST {
            owners.insert(owner);
        }
    }

    pub(super) fn forget(&self, owner: EntryId) {
        self.owners().remove(&owner);
    }

    pub(super) fn has(&self, owner: EntryId) -> bool {
        self.owners().contains(&owner)
    }

    fn owners(&self) -> MutexGuard<'_, HashSet<EntryId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
