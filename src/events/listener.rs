//! One subscriber's place at the hub.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{Hub, LoggedRevision, Read};
use crate::{
    domain::{CredentialEvent, Revision, SubjectId, TenantId},
    vault::VaultError,
};

/// Revisions that wait for one subscriber; one that leaves more unread reads the log instead.
const MOST_WAITING: usize = 32;

/// Whose events: nobody is woken by another's.
type Owner = (TenantId, SubjectId);

/// Everybody who listens, by whose events they want.
pub(super) struct Listeners(Mutex<Places>);

struct Places {
    next: u64,
    /// The newest revision that listeners were told of.
    told: Revision,
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
    /// The newest revision that was not put into `revisions`: until the subscriber has read the log up to it, nothing is.
    behind: Option<Revision>,
}

impl Listener {
    pub(super) fn new(hub: Hub, tenant: TenantId, subject: SubjectId) -> Self {
        let owner = (tenant, subject);
        let (number, place) = {
            let mut places = hub.listeners().lock();
            // Under the lock: what is told from here on is told to this place too.
            let waiting = Waiting { revisions: VecDeque::new(), behind: Some(places.told) };
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
        let Some(revisions) = self.place.take(cursor) else { return self.hub.after(cursor).await };
        let newest = revisions.last().map_or(cursor, |last| last.revision);
        Ok(Read::Revisions { revisions, complete: newest.max(announced) })
    }

    /// Returns when there may be something new of the owner's.
    pub async fn rung(&self) {
        let behind = self.place.waiting().behind;
        let mut announced = self.hub.subscribe();
        let readable = async {
            match behind {
                // Its bell may have rung before the log could be read so far.
                Some(behind) => announced.wait_for(|announced| *announced >= behind).await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.place.rung.notified() => {}
            _ = readable => {}
        }
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
    /// Revisions up to `told` are not going to be told.
    pub(super) fn new(told: Revision) -> Self {
        Self(Mutex::new(Places { told, next: 0, of_owner: HashMap::new() }))
    }

    /// Tells those whose owner it concerns.
    pub(super) fn tell(&self, revision: &Arc<LoggedRevision>) {
        let mut places = self.lock();
        places.told = revision.revision;
        let mut told: Vec<Owner> = Vec::new();
        for CredentialEvent { tenant, status, .. } in &revision.events {
            let owner = (tenant.clone(), status.subject);
            if told.contains(&owner) {
                continue;
            }
            for place in places.of_owner.get(&owner).into_iter().flat_map(HashMap::values) {
                place.put(revision);
            }
            told.push(owner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn put(&self, revision: &Arc<LoggedRevision>) {
        let mut waiting = self.waiting();
        if waiting.revisions.len() == MOST_WAITING {
            waiting.revisions.clear();
            waiting.behind = Some(revision.revision);
        }
        match &mut waiting.behind {
            Some(behind) => *behind = revision.revision,
            None => waiting.revisions.push_back(Arc::clone(revision)),
        }
        drop(waiting);
        self.rung.notify_one();
    }

    /// `None`: the log must be read.
    fn take(&self, cursor: Revision) -> Option<Vec<Arc<LoggedRevision>>> {
        let mut waiting = self.waiting();
        if waiting.behind.is_some_and(|behind| cursor < behind) {
            return None;
        }
        waiting.behind = None;
        Some(waiting.revisions.drain(..).filter(|waits| waits.revision > cursor).collect())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
