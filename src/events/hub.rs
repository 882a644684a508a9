//! The hub: the newest revisions in memory, and who is told that there are more.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{CredentialEvent, Revision},
    store::{Head, StoreError},
    vault::{Vault, VaultError},
};

/// Revisions with events that are kept in memory.
const RING: usize = 4096;
/// Event entries read from the log at once.
const PAGE: usize = 512;

/// All events of one revision.
pub type RevisionEvents = (Revision, Arc<[CredentialEvent]>);

/// Shared by all subscribers; clones are the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    vault: Vault,
    ring: Mutex<Ring>,
    /// Every event up to here is in the log, and in the ring if it is above the ring's floor.
    announced: watch::Sender<Revision>,
}

/// Every event above `floor` and up to the announced revision.
struct Ring {
    floor: Revision,
    revisions: VecDeque<RevisionEvents>,
}

impl Hub {
    /// Starts at the store's present head: what is older is read from the log.
    pub fn new(vault: Vault) -> Self {
        let head = vault.store().head().revision;
        let ring = Mutex::new(Ring { floor: head, revisions: VecDeque::new() });
        Self(Arc::new(Inner { vault, ring, announced: watch::Sender::new(head) }))
    }

    /// Follows the store until `stopping`. An unreadable event stops nobody else: it is logged and passed over.
    pub async fn run(self, stopping: CancellationToken) {
        let mut head = self.0.vault.store().watch_head();
        loop {
            let target = *head.borrow_and_update();
            if let Err(error) = self.feed(target).await {
                tracing::error!(%error, "the event log could not be read");
            }
            tokio::select! {
                biased;
                changed = head.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => return,
            }
        }
    }

    /// Follows [`Hub::announced`].
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.0.announced.subscribe()
    }

    /// Every event up to this revision can be read with [`Hub::after`].
    pub fn announced(&self) -> Revision {
        *self.0.announced.borrow()
    }

    pub fn head(&self) -> Head {
        self.0.vault.store().head()
    }

    /// The next events after `cursor`, whole revisions, oldest first, and the revision up to which they are complete.
    /// What is compacted meanwhile is missing: the caller looks at [`Hub::head`] afterwards.
    pub async fn after(&self, cursor: Revision) -> Result<(Vec<RevisionEvents>, Revision), VaultError> {
        let announced = self.announced();
        if let Some(events) = self.ring().after(cursor, announced) {
            return Ok((events, announced));
        }
        let page = self.0.vault.events(cursor, PAGE).await?;
        let events: Vec<_> = page
            .into_iter()
            .filter(|(revision, _)| *revision <= announced)
            .map(|(revision, events)| (revision, events.into()))
            .collect();
        let complete = if events.is_empty() { announced } else { events[events.len() - 1].0 };
        Ok((events, complete))
    }

    async fn feed(&self, head: Head) -> Result<(), VaultError> {
        if !head.available {
            return Err(StoreError::Unavailable.into());
        }
        let mut cursor = self.announced();
        while cursor < head.revision {
            let page = self.0.vault.events(cursor, PAGE).await?;
            // What was committed after `head` was read comes with the next turn, or is here already; either way the
            // announced revision covers only what has been loaded.
            cursor = page.last().map_or(head.revision, |(revision, _)| *revision);
            self.ring().push(page);
            self.0.announced.send_replace(cursor);
        }
        Ok(())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, page: Vec<(Revision, Vec<CredentialEvent>)>) {
        self.revisions.extend(page.into_iter().map(|(revision, events)| (revision, events.into())));
        while self.revisions.len() > RING {
            if let Some((revision, _)) = self.revisions.pop_front() {
                self.floor = revision;
            }
        }
    }

    /// `None`: the ring does not reach back to `cursor`.
    fn after(&self, cursor: Revision, upto: Revision) -> Option<Vec<RevisionEvents>> {
        if cursor < self.floor {
            return None;
        }
        let from = self.revisions.partition_point(|(revision, _)| *revision <= cursor);
        Some(self.revisions.range(from..).take_while(|(revision, _)| *revision <= upto).cloned().collect())
    }
}
