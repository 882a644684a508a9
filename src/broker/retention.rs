//! The old ends of the logs: events and audit records go when their retention is over, a few at a time.
//!
//! What is removed from the audit chain is checked once more before, so that retention does not carry away the traces
//! of a change behind the broker's back; and the change set that removes it leaves a checkpoint from which the chain is
//! checked from then on.

use std::time::Duration;

use super::{Broker, BrokerError};
use crate::{
    audit::{self, Position, TrailError},
    domain::{AuditAction, AuditRecord, CredentialEvent, Revision, Timestamp, installation_tenant},
    store::Purge,
    vault::TrailEntry,
};

/// Entries looked at, and at most removed, in one change set: it holds up the writer for some milliseconds.
const BATCH: usize = 512;
/// Between two looks at the logs.
const INTERVAL: Duration = Duration::from_secs(600);
/// The oldest audit records go once a day, so that a quiet installation's trail is not made of checkpoints.
const AUDIT_SLACK: Duration = Duration::from_secs(24 * 3600);

/// How long what is logged is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub events: Duration,
    /// Events of older revisions go before their time.
    pub most_revisions: u64,
    pub audit: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { events: day, most_revisions: 2_000_000, audit: 400 * day }
    }
}

impl Broker {
    /// Runs until shutdown.
    pub async fn run_retention(self) {
        loop {
            if let Err(error) = self.retain().await {
                tracing::warn!(%error, "old log entries could not be removed; they are looked at again later");
            }
            let next = self.now().plus(INTERVAL);
            tokio::select! {
                biased;
                () = self.clock().sleep_until(next) => {}
                () = self.stopping().cancelled() => return,
            }
        }
    }

    /// Removes what has reached the end of its retention by now.
    pub async fn retain(&self) -> Result<(), BrokerError> {
        while self.purge_events().await? && !self.stopping().is_cancelled() {}
        self.purge_trail().await
    }

    /// Removes one batch of events; true when there may be more to remove.
    async fn purge_events(&self) -> Result<bool, BrokerError> {
        let Retention { events: kept, most_revisions, .. } = self.settings().retention;
        let head = self.vault().store().head();
        let oldest = Revision(head.revision.0.saturating_sub(most_revisions));
        let since = self.now().minus(kept);
        let page = self.vault().events(head.compacted, BATCH).await?;
        let full = page.iter().map(|(_, events)| events.len()).sum::<usize>() >= BATCH;
        let youngest = |events: &[CredentialEvent]| events.iter().map(|event| event.occurred_at).max();
        let may_go = |(revision, events): &&(Revision, Vec<CredentialEvent>)| {
            *revision <= oldest || youngest(events).is_none_or(|at| at < since)
        };
        // What does not open has no time: it goes with what comes after it.
        let over =
            page.iter().take_while(may_go).filter(|(revision, events)| *revision <= oldest || !events.is_empty());
        let through = match over.last() {
            Some((revision, _)) => *revision,
            None if page.is_empty() && oldest > head.compacted => oldest,
            None => return Ok(false),
        };
        let mut change = self.vault().change(&installation_tenant(), None).await?;
        change.purge(Purge { events: through, audit: 0 });
        change.commit().await?;
        Ok(full)
    }

    /// Removes old audit records in batches, when the oldest is old enough for it to be worth a checkpoint.
    async fn purge_trail(&self) -> Result<(), BrokerError> {
        let since = self.now().minus(self.settings().retention.audit);
        let oldest = self.vault().trail(self.vault().store().head().audit_purged, 1).await?;
        let is_young =
            |entry: &TrailEntry| entry.record.as_ref().is_ok_and(|record| record.at >= since.minus(AUDIT_SLACK));
        if oldest.iter().all(is_young) {
            return Ok(());
        }
        let mut position = match audit::beginning(self.vault()).await {
            Ok(position) => position,
            Err(error) => return broken(error),
        };
        while !self.stopping().is_cancelled() {
            match self.purge_records(position, since).await {
                Ok(Some(purged)) => position = Some(purged),
                Ok(None) => return Ok(()),
                Err(error) => return broken(error),
            }
        }
        Ok(())
    }

    /// Removes one batch of the records after `position`, and says where the trail begins then; `None`: none is old.
    async fn purge_records(
        &self,
        position: Option<Position>,
        since: Timestamp,
    ) -> Result<Option<Position>, TrailError> {
        let page = self.vault().trail(position.map_or(0, |position| position.sequence), BATCH).await?;
        // What does not open has no time: it goes with what comes after it.
        let over = page.iter().take_while(|entry| entry.record.as_ref().map_or(true, |record| record.at < since));
        let count = over.map(|entry| entry.record.is_ok()).collect::<Vec<_>>().iter().rposition(|opens| *opens);
        let Some(old) = count.map(|last| &page[..=last]) else { return Ok(None) };
        let keys = self.vault().keys();
        let purged = audit::check(keys.audit(), position, old.iter().map(|entry| &entry.linked[..]))?;
        let mut change = self.vault().change(&installation_tenant(), None).await?;
        change.audit(&self.checkpoint(purged));
        change.purge(Purge { events: Revision(0), audit: purged.map_or(0, |purged| purged.sequence) });
        change.commit().await?;
        Ok(purged)
    }

    fn checkpoint(&self, purged: Option<Position>) -> AuditRecord {
        AuditRecord { purged, ..AuditRecord::by_broker(installation_tenant(), AuditAction::AuditPurged, self.now()) }
    }
}

/// A trail that does not hold stays as it is, all of it, until somebody has looked at it.
fn broken(error: TrailError) -> Result<(), BrokerError> {
    match error {
        TrailError::Vault(error) => Err(error.into()),
        TrailError::Broken(_) | TrailError::NoCheckpoint { .. } => {
            tracing::error!(%error, alarm = "audit_broken", "the audit trail does not hold; nothing of it is removed");
            Ok(())
        }
    }
}
