//! The hub: the newest revisions in memory, and who is told that there are more.

use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    listener::{Listener, Listeners, Owner},
    pages::{Page, Pages},
    ring::{LoggedRevision, Ring},
    turns::Turns,
    written::Wire,
};
use crate::{
    domain::{Clock, CredentialEvent, Revision, SubjectId, TenantId},
    store::{Head, StoreError},
    vault::{Vault, VaultError},
};

/// Events that the feeder reads at once, give or take a revision.
const PAGE: usize = 512;
/// As many for one subscriber.
const READ: usize = 128;
/// Who read the log at the same time. However many lag or come back at once, that is one core's work and no more, and
/// whoever comes the same way finds the page read.
const READING: usize = 1;
/// After an error, which may be over without another change that would wake the feeder.
const AGAIN: Duration = Duration::from_secs(1);
/// Revisions that are read at the start for the first time; as often as they are too few, four times as many.
const NEWEST: u64 = 1024;

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
    clock: Arc<dyn Clock>,
    ring: Mutex<Ring>,
    pages: Mutex<Pages>,
    /// Every event up to here is in the log, and in the ring if it is above the ring's floor.
    announced: watch::Sender<Revision>,
    listeners: Listeners,
    reading: Turns,
}

impl Hub {
    /// Starts at the store's present head: what is older is read from the log, but for what is recalled.
    pub fn new(vault: Vault, wire: Wire, clock: Arc<dyn Clock>) -> Self {
        let head = vault.store().head().revision;
        let ring = Mutex::new(Ring::above(head));
        Self(Arc::new(Inner {
            vault,
            wire,
            clock,
            ring,
            pages: Mutex::default(),
            announced: watch::Sender::new(head),
            listeners: Listeners::default(),
            reading: Turns::new(READING),
        }))
    }

    /// Follows the store until `stopping`. An unreadable event stops nobody else: it is logged and passed over.
    pub async fn run(self, stopping: CancellationToken) {
        let mut head = self.0.vault.store().watch_head();
        loop {
            let target = *head.borrow_and_update();
            let fed = self.feed(target).await;
            if let Err(error) = &fed {
                tracing::error!(%error, "the event log could not be read");
            }
            let again_at = self.0.clock.now().plus(AGAIN);
            tokio::select! {
                biased;
                changed = head.changed() => if changed.is_err() { return },
                () = stopping.cancelled() => return,
                // A store that is not available says so by its head, and also when it is again.
                () = self.0.clock.sleep_until(again_at), if fed.is_err() && target.available => {}
            }
        }
    }

    /// Reads the newest events, as many as are kept, before the hub runs: after a restart everybody comes back at once,
    /// and most of them were away for a moment. What cannot be read now is read for whoever asks for it.
    pub async fn recall(&self) {
        match self.newest().await {
            Ok(ring) => *self.ring() = ring,
            Err(error) => tracing::warn!(%error, "the newest events could not be read at the start"),
        }
    }

    async fn newest(&self) -> Result<Ring, VaultError> {
        let (announced, compacted) = (self.announced(), self.head().compacted);
        let mut span = NEWEST;
        loop {
            let floor = Revision(announced.0.saturating_sub(span)).max(compacted);
            let (mut ring, mut cursor) = (Ring::above(floor), floor);
            while cursor < announced {
                let page = self.page(cursor, PAGE, announced).await?;
                cursor = page.complete;
                ring.push(&page.revisions);
            }
            if floor == compacted || !ring.reaches_back_to(floor) {
                return Ok(ring);
            }
            span = span.saturating_mul(4);
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

    /// What the log has after `cursor`, everybody's. `reader`: who asks.
    ///
    /// # Errors
    /// The log could not be read.
    pub async fn after(&self, reader: &Owner, cursor: Revision) -> Result<Read, VaultError> {
        if let Some(read) = self.kept(cursor) {
            return Ok(read);
        }
        let (hub, reader) = (self.clone(), reader.clone());
        // In a task of its own: whoever waits may not be polled again, and the turn must go on to the next.
        let reading = tokio::spawn(async move { hub.read_log(reader, cursor).await });
        AbortOnDropHandle::new(reading).await.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(StoreError::Unavailable.into()),
        })
    }

    async fn read_log(&self, reader: Owner, cursor: Revision) -> Result<Read, VaultError> {
        let _turn = self.0.reading.take(reader).await;
        // Whoever had the turn before may have read it.
        if let Some(read) = self.kept(cursor) {
            return Ok(read);
        }
        let page = self.page(cursor, READ, self.announced()).await?;
        // Only now: what was compacted while it was read is missing from what was read.
        let compacted = self.head().compacted;
        if cursor < compacted {
            return Ok(Read::Compacted(compacted));
        }
        let (revisions, complete) = page.after(cursor);
        self.pages().push(page);
        Ok(Read::Revisions { revisions, complete })
    }

    /// What need not be read from the log.
    fn kept(&self, cursor: Revision) -> Option<Read> {
        let announced = self.announced();
        let newest = self.ring().after(cursor, announced);
        let compacted = self.head().compacted;
        if newest.is_none() && cursor < compacted {
            return Some(Read::Compacted(compacted));
        }
        let (revisions, complete) = newest.or_else(|| self.pages().after(cursor))?;
        Some(Read::Revisions { revisions, complete })
    }

    async fn page(&self, after: Revision, limit: usize, announced: Revision) -> Result<Page, VaultError> {
        let page = self.0.vault.events(after, limit).await?;
        let page = page.into_iter().filter(|(revision, _)| *revision <= announced);
        let revisions: Vec<_> = page.map(|logged| self.written(logged)).collect();
        let complete = revisions.last().map_or(announced, |last| last.revision);
        Ok(Page { after, complete, revisions })
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

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
