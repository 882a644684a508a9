//! One subscriber's place at the hub.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{Hub, LoggedEvent, LoggedRevision, Read};
use crate::{
    domain::{Revision, SubjectId, TenantId},
    vault::VaultError,
};

/// Weight of what waits for one subscriber, 32 revisions at most; one that leaves more unread reads the log instead.
const MOST_WAITING: usize = 128 << 10;

/// Whose events: nobody is woken by another's.
pub type Owner = (TenantId, SubjectId);

/// Everybody who listens, by whose events they want.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Places>);

#[derive(Default)]
struct Places {
    next: u64,
    of_owner: HashMap<Owner, HashMap<u64, Arc<Place>>>,
}

/// A subscriber's ear, until it is dropped. Costs the same however much happens while nobody reads.
pub struct Listener {
    hub: Hub,
    owner: Owner,
    number: u64,
    place: Arc<Place>,
}

struct Place {
    waiting: Mutex<Waiting>,
    rung: Notify,
}

struct Waiting {
    revisions: VecDeque<Arc<LoggedRevision>>,
    /// Of all of them.
    weight: usize,
    /// The newest revision that was not put into `revisions`: until the subscriber has read the log up to it, nothing is.
    behind: Option<Revision>,
}

impl Listener {
    pub(super) fn new(hub: Hub, tenant: TenantId, subject: SubjectId) -> Self {
        let owner = (tenant, subject);
        let (number, place) = {
            let mut places = hub.listeners().lock();
            // Under the lock: what is announced from here on is put here too.
            let waiting = Waiting { revisions: VecDeque::new(), weight: 0, behind: Some(hub.announced()) };
            let place = Arc::new(Place { waiting: Mutex::new(waiting), rung: Notify::new() });
            places.next += 1;
            let number = places.next;
            places.of_owner.entry(owner.clone()).or_default().insert(number, Arc::clone(&place));
            (number, place)
        };
        Self { hub, owner, number, place }
    }

    /// What the log has after `cursor`: at least the owner's events, whole revisions, oldest first.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn after(&self, cursor: Revision) -> Result<Read, VaultError> {
        // Before the place is looked at: what is announced has been put there.
        let announced = self.hub.announced();
        let Some(revisions) = self.place.take(cursor) else { return self.hub.after(&self.owner, cursor).await };
        let newest = revisions.last().map_or(cursor, |last| last.revision);
        Ok(Read::Revisions { revisions, complete: newest.max(announced) })
    }

    /// Returns when there may be something new of the owner's, or to be asked about them.
    pub async fn rung(&self) {
        self.place.rung.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut places = self.hub.listeners().lock();
        if let Some(of_owner) = places.of_owner.get_mut(&self.owner) {
            of_owner.remove(&self.number);
            if of_owner.is_empty() {
                places.of_owner.remove(&self.owner);
            }
        }
    }
}

impl Listeners {
    /// Puts revisions before those whom they concern, announces them, and rings.
    pub(super) fn tell(&self, revisions: &[Arc<LoggedRevision>], announce: impl FnOnce()) {
        let mut concerned = Vec::new();
        {
            let places = self.lock();
            for logged in revisions {
                for owner in &owners(&logged.events) {
                    for place in places.of_owner.get(owner).into_iter().flat_map(HashMap::values) {
                        place.put(logged);
                        concerned.push(Arc::clone(place));
                    }
                }
            }
            announce();
        }
        // Last: whoever wakes finds it announced.
        concerned.iter().for_each(|place| place.rung.notify_one());
    }

    /// Wakes the owner's listeners, or everybody's, for something that is not in the log.
    pub(super) fn wake(&self, owner: Option<&Owner>) {
        let places = self.lock();
        let concerned = |of: &&Owner| owner.is_none_or(|owner| owner == *of);
        let concerned = places.of_owner.iter().filter(|(of, _)| concerned(of)).flat_map(|(_, places)| places.values());
        concerned.for_each(|place| place.rung.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn put(&self, revision: &Arc<LoggedRevision>) {
        let mut waiting = self.waiting();
        waiting.weight += revision.weight();
        if waiting.behind.is_some() || waiting.weight > MOST_WAITING {
            (waiting.revisions, waiting.weight) = (VecDeque::new(), 0);
            waiting.behind = Some(revision.revision);
        } else {
            waiting.revisions.push_back(Arc::clone(revision));
        }
    }

    /// `None`: the log must be read.
    fn take(&self, cursor: Revision) -> Option<Vec<Arc<LoggedRevision>>> {
        let mut waiting = self.waiting();
        if waiting.behind.is_some_and(|behind| cursor < behind) {
            return None;
        }
        (waiting.behind, waiting.weight) = (None, 0);
        Some(waiting.revisions.drain(..).filter(|waits| waits.revision > cursor).collect())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each owner once.
fn owners(events: &[LoggedEvent]) -> HashSet<Owner> {
    events.iter().map(|event| (event.tenant.clone(), event.status.subject)).collect()
}
