//! Turns at work that everybody waits for in one queue.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::Owner;

/// Of one owner's, at work or in the queue; more of theirs wait outside. However many streams somebody opens, the next
/// one in the queue is soon another's.
const PER_OWNER: usize = 2;

/// So many at a time, and of one owner's [`PER_OWNER`].
///
/// Only for work in a task of its own. A turn, and a place in the queue too, is held until whoever has it is polled
/// again, and a stream is not polled while its peer takes nothing.
pub struct Turns {
    all: Semaphore,
    owners: Mutex<HashMap<Owner, Arc<Semaphore>>>,
}

/// Given back when dropped, in the order of the fields.
pub struct Turn<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_owner: OwnedSemaphorePermit,
    _share: Share<'a>,
}

/// One who uses an owner's semaphore, or waits for it.
struct Share<'a> {
    turns: &'a Turns,
    owner: Owner,
    semaphore: Arc<Semaphore>,
}

impl Turns {
    pub fn new(at_a_time: usize) -> Self {
        Self { all: Semaphore::new(at_a_time), owners: Mutex::default() }
    }

    pub async fn take(&self, owner: Owner) -> Turn<'_> {
        let semaphore = {
            let mut owners = self.owners();
            Arc::clone(owners.entry(owner.clone()).or_insert_with(|| Arc::new(Semaphore::new(PER_OWNER))))
        };
        let share = Share { turns: self, owner, semaphore };
        let of_owner = Arc::clone(&share.semaphore).acquire_owned().await.expect("it is never closed");
        let of_all = self.all.acquire().await.expect("it is never closed");
        Turn { _of_all: of_all, _of_owner: of_owner, _share: share }
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<Owner, Arc<Semaphore>>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut owners = self.turns.owners();
        // This one's and the map's: every other share has one of its own, and none begins while the map is locked.
        if Arc::strong_count(&self.semaphore) == 2 {
            owners.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::BoxFuture};

    use super::*;
    use crate::domain::SubjectId;

    fn owner(number: u8) -> Owner {
        ("acme".parse().unwrap(), SubjectId::from_bytes([number; 32]))
    }

    fn ask(turns: &Turns, number: u8) -> BoxFuture<'_, Turn<'_>> {
        let mut asked = turns.take(owner(number)).boxed();
        assert!((&mut asked).now_or_never().is_none(), "somebody has the turn");
        asked
    }

    #[test]
    fn whoever_asks_once_waits_for_two_of_those_who_ask_a_hundred_times() {
        let turns = Turns::new(1);
        let first = turns.take(owner(1)).now_or_never().unwrap();
        let mut many: Vec<_> = (0..100).map(|_| ask(&turns, 1)).collect();
        let mut one = ask(&turns, 2);
        drop(first);
        let second = many.iter_mut().find_map(|asked| asked.now_or_never()).unwrap();
        assert!((&mut one).now_or_never().is_none());
        drop(second);
        assert!((&mut one).now_or_never().is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_are_gone() {
        let turns = Turns::new(1);
        let first = turns.take(owner(1)).now_or_never().unwrap();
        let waiting: Vec<_> = (0..9).map(|number| ask(&turns, number % 3)).collect();
        drop(waiting);
        assert_eq!(turns.owners().len(), 1);
        drop(first);
        assert!(turns.owners().is_empty());
        assert_eq!(turns.all.available_permits(), 1);
    }
}
