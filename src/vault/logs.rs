//! The event log and the audit trail, opened.

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{LinkedAudit, Vault, VaultError, place};
use crate::{
    domain::{AuditRecord, CredentialEvent, EntryId, Revision, Sealed, TenantId},
    sealing::{AssociatedData, sealed_key_id},
    store::AuditEntry,
};

/// Events that are opened before others have a turn: less than a millisecond's, but for the longest.
const AT_ONCE: usize = 16;

/// An audit record with its place in the chain.
pub struct TrailEntry {
    pub sequence: u64,
    /// In the linker's form.
    pub linked: Bytes,
    pub record: Result<AuditRecord, VaultError>,
}

impl Vault {
    /// Events of revisions greater than `after`, oldest first, whole revisions only, stopping after the revision that
    /// reaches `limit` events. An event that does not open is left out, and its revision stands there without it: one
    /// damaged entry must not end the log for everybody.
    pub async fn events(
        &self,
        after: Revision,
        limit: usize,
    ) -> Result<Vec<(Revision, Vec<CredentialEvent>)>, VaultError> {
        let mut revisions: Vec<(Revision, Vec<CredentialEvent>)> = Vec::new();
        let page = self.store().events(after, limit).await.map_err(VaultError::from);
        for (number, entry) in self.watched(page)?.into_iter().enumerate() {
            // Opening them takes a while, and others wait for the thread.
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let place = place::event(&entry.id);
            let event = match self.entry::<CredentialEvent>("event", &entry.id, place, &entry.body).await {
                Ok(event) => Some(event),
                Err(error @ (VaultError::Corrupt { .. } | VaultError::Unsealable { .. })) => {
                    tracing::warn!(event.revision = entry.revision.0, %error, "an event is left out of the log");
                    None
                }
                Err(error) => return Err(error),
            };
            match revisions.last_mut() {
                Some((revision, events)) if *revision == entry.revision => events.extend(event),
                _ => revisions.push((entry.revision, event.into_iter().collect())),
            }
        }
        Ok(revisions)
    }

    /// Audit records with a sequence number greater than `after`, oldest first, at most `limit`. That the chain holds
    /// is for `audit` to say.
    pub async fn audit(&self, after: u64, limit: usize) -> Result<Vec<(u64, AuditRecord)>, VaultError> {
        let mut records = Vec::new();
        let page = self.store().audit(after, limit).await.map_err(VaultError::from);
        for entry in self.watched(page)? {
            records.push((entry.sequence, self.audit_record(&entry).await?));
        }
        Ok(records)
    }

    /// As [`Vault::audit`], with the form that the chain is checked by, and beside it the record or why it does not open.
    pub async fn trail(&self, after: u64, limit: usize) -> Result<Vec<TrailEntry>, VaultError> {
        let mut entries = Vec::new();
        let page = self.store().audit(after, limit).await.map_err(VaultError::from);
        for entry in self.watched(page)? {
            let record = match self.audit_record(&entry).await {
                Err(error @ (VaultError::Corrupt { .. } | VaultError::Unsealable { .. })) => Err(error),
                other => Ok(other?),
            };
            entries.push(TrailEntry { sequence: entry.sequence, linked: entry.linked, record });
        }
        Ok(entries)
    }

    async fn audit_record(&self, entry: &AuditEntry) -> Result<AuditRecord, VaultError> {
        let linked = LinkedAudit::decode(&entry.linked)
            .filter(|linked| linked.sequence == entry.sequence)
            .ok_or_else(|| VaultError::Corrupt { record: format!("audit record {}", entry.sequence) });
        let linked = self.watched(linked)?;
        self.entry::<AuditRecord>("audit record", &entry.id, place::audit(&entry.id), &linked.body).await
    }

    async fn entry<T: Logged>(
        &self,
        what: &str,
        id: &EntryId,
        place: AssociatedData<'_>,
        body: &Sealed,
    ) -> Result<T, VaultError> {
        self.watched(self.open_entry(what, id, place, body).await)
    }

    async fn open_entry<T: Logged>(
        &self,
        what: &str,
        id: &EntryId,
        place: AssociatedData<'_>,
        body: &Sealed,
    ) -> Result<T, VaultError> {
        let corrupt = || VaultError::Corrupt { record: format!("{what} {id}") };
        let unsealable = || VaultError::Unsealable { record: format!("{what} {id}") };
        let named = sealed_key_id(body).map_err(|_| corrupt())?;
        let held = self.keyring().key(named).await?.ok_or_else(unsealable)?;
        let bytes = held.key.open(&place, body).map_err(|_| unsealable())?;
        let value: T = serde_json::from_slice(&bytes).map_err(|_| corrupt())?;
        if held.owner.logs(value.tenant()) { Ok(value) } else { Err(corrupt()) }
    }
}

/// What stands in a log under its tenant's log key.
trait Logged: DeserializeOwned {
    fn tenant(&self) -> &TenantId;
}

impl Logged for CredentialEvent {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}

impl Logged for AuditRecord {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}
