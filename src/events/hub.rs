//! The hub: the newest revisions in memory, and who is told that there are more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    listener::{Listener, Listeners},
    ring::{LoggedRevision, Ring, portion},
    written::Wire,
};
use crate::{
    domain::{CredentialEvent, Revision, SubjectId, TenantId},
    store::{Head, StoreError},
    vault::{Vault, VaultError},
};

/// Events that the feeder reads at once, give or take a revision.
const PAGE: usize = 512;
/// As many for one subscriber.
const READ: usize = 128;
/// Subscribers that read the log at the same time: however many lag or come back at once, the store answers others too.
const READING: usize = 64;

/// What reading the log after a position gave.
pub enum Read {
    /// The next revisions with events, oldest first, and up to where they are all that there is.
    Revisions { revisions: Vec<Arc<LoggedRevision>>, complete: Revision },
    /// Revisions up to this one are gone from the log, and the position is before it.
    Compacted(Revision),
}

/// Shared by all subscribers; clones are the same hub.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    vault: Vault,
    wire: Wire,
    ring: Mutex<Ring>,
    /// Every event up to here is in the log, and in the ring if it is above the ring's floor.
    announced: watch::Sender<Revision>,
    listeners: Listeners,
    reading: Semaphore,
}

impl Hub {
    /// Starts at the store's present head: what is older is read from the log.
    pub fn new(vault: Vault, wire: Wire) -> Self {
        let head = vault.store().head().revision;
        let ring = Mutex::new(Ring::above(head));
        Self(Arc::new(Inner {
            vault,
            wire,
            ring,
            announced: watch::Sender::new(head),
            listeners: Listeners::default(),
            reading: Semaphore::new(READING),
        }))
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

    pub fn wire(&self) -> Wire {
        self.0.wire
    }

    pub fn head(&self) -> Head {
        self.0.vault.store().head()
    }

    /// A place for one subscriber to the subject's events.
    pub fn listen(&self, tenant: TenantId, subject: SubjectId) -> Listener {
        Listener::new(self.clone(), tenant, subject)
    }

    /// Wakes everybody: what they may see may have changed.
    pub fn wake_all(&self) {
        self.listeners().wake(None);
    }

    /// Wakes the subject's listeners: what they may see may have changed.
    pub fn wake(&self, tenant: TenantId, subject: SubjectId) {
        self.listeners().wake(Some(&(tenant, subject)));
    }

    /// What the log has after `cursor`, everybody's.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn after(&self, cursor: Revision) -> Result<Read, VaultError> {
        let announced = self.announced();
        if let Some((revisions, complete)) = self.ring().after(cursor, announced) {
            return Ok(Read::Revisions { revisions, complete });
        }
        // Boxed: every subscriber would keep the room for it.
        Box::pin(self.read_log(cursor, announced)).await
    }

    async fn read_log(&self, cursor: Revision, announced: Revision) -> Result<Read, VaultError> {
        let _turn = self.0.reading.acquire().await.expect("it is never closed");
        let page = self.0.vault.events(cursor, READ).await?;
        // Only now: what was compacted while it was read is missing from what was read.
        let compacted = self.head().compacted;
        if cursor < compacted {
            return Ok(Read::Compacted(compacted));
        }
        let page = page.into_iter().filter(|(revision, _)| *revision <= announced);
        let revisions: Vec<_> = page.map(|logged| self.written(logged)).collect();
        let complete = revisions.last().map_or(announced, |last| last.revision);
        let (revisions, complete) = portion(revisions.iter(), complete);
        Ok(Read::Revisions { revisions, complete })
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
            let page: Vec<_> = page.into_iter().map(|logged| self.written(logged)).collect();
            self.ring().push(&page);
            self.listeners().tell(&page, || {
                self.0.announced.send_replace(cursor);
            });
        }
        Ok(())
    }

    fn written(&self, (revision, events): (Revision, Vec<CredentialEvent>)) -> Arc<LoggedRevision> {
        let events = events.into_iter().map(|event| self.0.wire.event(event)).collect();
        Arc::new(LoggedRevision { revision, events })
    }

    pub(super) fn listeners(&self) -> &Listeners {
        &self.0.listeners
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
