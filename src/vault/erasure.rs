//! Erases a subject: destroys the key that everything of theirs is sealed under, and what is left of it.
//!
//! First the subject is closed: whoever is about to seal something under the key finds that it has moved, and that it may
//! not be sealed with any more. Then nothing can come to what is found under the key, and one change set takes all of
//! it: the key, the records with their index entries, the tombstone, the events, the audit record, the mark that the
//! tenant's key is to be rotated, and, sealed under that key, the tokens that their providers are yet to take back.

use std::sync::PoisonError;

use super::{
    Change, ErasureList, Stored, TokenSet, Vault, VaultError, place, roots,
    stored::{Envelope, Erased, Subject},
};
use crate::{
    domain::{
        AuditAction, AuditRecord, AuditTarget, Connection, CredentialEvent, CredentialState, CredentialStatus,
        ErasureReceipt, EventKind, Flow, FlowId, Job, JobId, JobKind, KeyId, ProviderId, ScopeSet, SubjectId, TenantId,
        Timestamp,
    },
    store::{Expect, IndexEntry, RecordKey, RecordKind, Row, Write},
};

/// Rows of a subject read at a time.
const PAGE: usize = 256;

/// Whom to erase, and what to put on record about it.
struct Erasing<'a> {
    tenant: &'a TenantId,
    subject: SubjectId,
    row: RecordKey,
    audit: &'a AuditRecord,
}

impl Vault {
    /// Erases the subject, on record as `audit` says. When it returns, this and the line in the list are durable;
    /// erasing twice is erasing once.
    pub async fn erase_subject(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
        audit: &AuditRecord,
        list: &ErasureList,
    ) -> Result<ErasureReceipt, VaultError> {
        let row = place::subject_row(self.keys(), tenant, subject);
        if !self.is_erased(&row).await? {
            // Before anything else: an erasure that is not on the list would be undone by restoring a copy.
            list.add(self.keys(), &row, audit.at).await?;
            self.erase(&Erasing { tenant, subject, row, audit }).await?;
        }
        self.erasure_receipt(tenant, subject).await?.ok_or(VaultError::SubjectErased)
    }

    /// Erases again whoever is on the list, in a store that was put back or that an erasure was interrupted in. Says how
    /// many there were to erase.
    pub async fn replay_erasures(&self, list: &ErasureList, now: Timestamp) -> Result<usize, VaultError> {
        let mut erased = 0;
        for listed in self.listed(list).await? {
            let found = self.watched(self.keyring().read_owner::<Envelope<Subject>>(&listed.row).await)?;
            let Some((_, Envelope { value: Subject { tenant, subject, .. }, .. })) = found else {
                // Whose they were, the list does not say; who comes with this row's name is refused.
                self.keyring().barred.lock().unwrap_or_else(PoisonError::into_inner).insert(listed.row);
                continue;
            };
            if self.is_erased(&listed.row).await? {
                continue;
            }
            let audit = AuditRecord {
                target: Some(AuditTarget::Subject(subject)),
                ..AuditRecord::by_broker(tenant.clone(), AuditAction::SubjectErased, now.max(listed.at))
            };
            self.erase(&Erasing { tenant: &tenant, subject, row: listed.row, audit: &audit }).await?;
            erased += 1;
        }
        Ok(erased)
    }

    /// As things stand now; `None`: the subject was not erased.
    pub async fn erasure_receipt(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
    ) -> Result<Option<ErasureReceipt>, VaultError> {
        let erased = self.subject(tenant, subject).await?.and_then(|stored| stored.value.erased);
        let Some(Erased { at: erased_at, tenant_key }) = erased else { return Ok(None) };
        let copies_unreadable_from = self.out_of_reach_since(tenant, tenant_key).await?;
        let mut receipt =
            ErasureReceipt { tenant: tenant.clone(), subject, erased_at, copies_unreadable_from, mac: [0; 32] };
        receipt.mac = self.keys().erasures().hash(&stated(&receipt).each_ref().map(Vec::as_slice));
        Ok(Some(receipt))
    }

    /// Whether this installation made the receipt.
    pub fn verify_receipt(&self, unverified: &ErasureReceipt) -> bool {
        self.keys().erasures().verify(&stated(unverified).each_ref().map(Vec::as_slice), &unverified.mac)
    }

    /// Whether an erasure of the subject is at its end: their key is gone, and everything under it.
    pub async fn is_subject_gone(&self, tenant: &TenantId, subject: SubjectId) -> Result<bool, VaultError> {
        self.is_erased(&place::subject_row(self.keys(), tenant, subject)).await
    }

    async fn is_erased(&self, row: &RecordKey) -> Result<bool, VaultError> {
        let found = self.watched(self.keyring().read_owner::<Envelope<Subject>>(row).await)?;
        let Some((_, Envelope { value: subject, .. })) = found else { return Ok(false) };
        Ok(subject.erased.is_some() && self.store().row(place::key_row(subject.key)).await?.is_none())
    }

    async fn erase(&self, erasing: &Erasing<'_>) -> Result<(), VaultError> {
        let key = self.close(erasing).await?;
        loop {
            let (change, records) = self.erasure(erasing, key).await?;
            match change.commit().await {
                Ok(_) => {
                    self.keyring().forget_id(key);
                    self.opened().forget(&records, &erasing.row);
                    return Ok(());
                }
                // A rotation came first.
                Err(VaultError::Conflict { .. } | VaultError::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From here on nothing is sealed under the subject's key any more. Gives that key.
    async fn close(&self, erasing: &Erasing<'_>) -> Result<KeyId, VaultError> {
        let Erasing { tenant, subject, row, audit } = erasing;
        loop {
            let keys = self.keyring().tenant(tenant).await?;
            let found = self.keyring().read_owner::<Envelope<Subject>>(row).await?;
            let closed = Some(Erased { at: audit.at, tenant_key: keys.key.key.id() });
            let (expect, closing) = match found {
                Some((_, Envelope { value, .. })) if value.erased.is_some() => return Ok(value.key),
                Some((row, Envelope { value, .. })) => {
                    (Expect::Version(row.version), Subject { erased: closed, ..value })
                }
                None => {
                    let never = KeyId::from_bytes(self.random().bytes()?);
                    (Expect::Absent, Subject { erased: closed, ..Subject::new((*tenant).clone(), *subject, never) })
                }
            };
            let id = closing.key;
            let mut change = self.change(tenant, None).await?;
            self.put_subject(&mut change, row, expect, closing)?;
            if let Some(held) = self.keyring().key(id).await? {
                let key_row = place::key_row(id);
                let Some(stored) = self.store().row(key_row.clone()).await? else { continue };
                // Wrapped anew under the key that it is wrapped under: only its version is to change.
                let write = self.resealed_in_place(&key_row, &stored).await?;
                change.write(write);
                self.keyring().forget(&held);
            }
            match change.commit().await {
                Ok(_) => return Ok(id),
                Err(VaultError::Conflict { .. } | VaultError::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Everything that an erasure is, and the records that it removes.
    async fn erasure(&self, erasing: &Erasing<'_>, key: KeyId) -> Result<(Change, Vec<RecordKey>), VaultError> {
        let Erasing { tenant, row, audit, .. } = erasing;
        let mut change = self.change(tenant, None).await?;
        let tenant_key = change.tenant_key(row, tenant)?.id();
        let found = self.keyring().read_owner::<Envelope<Subject>>(row).await?;
        let (stored, Envelope { value, .. }) = found.ok_or_else(|| VaultError::corrupt(row))?;
        let tombstone = Subject { erased: Some(Erased { at: audit.at, tenant_key }), ..value };
        self.put_subject(&mut change, row, Expect::Version(stored.version), tombstone)?;
        self.mark_for_rotation(&mut change, tenant, audit.at).await?;
        let records = self.records_under(key).await?;
        for record in &records {
            let Some(stored) = self.store().row(record.clone()).await? else { continue };
            self.save_from_erasure(&mut change, record, &stored, erasing).await?;
            change.write(Write::delete(record.clone(), stored.version));
        }
        let key_row = place::key_row(key);
        if let Some(stored) = self.store().row(key_row.clone()).await? {
            change.write(Write::delete(key_row, stored.version));
        }
        change.audit(audit);
        Ok((change, records))
    }

    fn put_subject(
        &self,
        change: &mut Change,
        row: &RecordKey,
        expect: Expect,
        subject: Subject,
    ) -> Result<(), VaultError> {
        let envelope = Envelope { value: subject, parked: None };
        let held = change.tenant_key(row, &envelope.value.tenant)?;
        let write = self.keyring().owner_row(held, row.clone(), expect, &envelope)?;
        change.write(write);
        Ok(())
    }

    async fn mark_for_rotation(&self, change: &mut Change, tenant: &TenantId, at: Timestamp) -> Result<(), VaultError> {
        let key = place::tenant_row(self.keys(), tenant);
        let found = self.keyring().read_tenant(tenant).await?;
        let (row, mut record) = found.ok_or_else(|| VaultError::corrupt(&key))?;
        if record.marked_at.is_none() {
            record.marked_at = Some(at);
            let held = change.tenant_key(&key, tenant)?;
            let write = self.keyring().owner_row(held, key, Expect::Version(row.version), &record)?;
            change.write(write);
        }
        Ok(())
    }

    async fn records_under(&self, key: KeyId) -> Result<Vec<RecordKey>, VaultError> {
        let mut records: Vec<RecordKey> = Vec::new();
        let mut after = None;
        loop {
            let page: Vec<IndexEntry> = roots::under(self.store().as_ref(), key, after, PAGE).await?;
            let more = page.len() == PAGE;
            after = page.last().map(|entry| entry.key.clone());
            records.extend(page.into_iter().map(|entry| entry.record));
            if !more {
                return Ok(records);
            }
        }
    }

    /// What must outlive the record: that it is gone, for watchers, and its tokens, for the provider. A record that
    /// cannot be read is erased all the same.
    async fn save_from_erasure(
        &self,
        change: &mut Change,
        record: &RecordKey,
        row: &Row,
        erasing: &Erasing<'_>,
    ) -> Result<(), VaultError> {
        let saved = match record.kind() {
            RecordKind::Connection => self.connection_to_erase(record, change, erasing).await,
            RecordKind::Flow => self.flow_to_erase(record).await,
            RecordKind::Job => self.job_to_erase(record).await,
            RecordKind::Attempt
            | RecordKind::Installation
            | RecordKind::Key
            | RecordKind::Tenant
            | RecordKind::Subject
            | RecordKind::Configuration
            | RecordKind::RootKeys
            | RecordKind::Suspension
            | RecordKind::Holders => Ok(None),
        };
        let saved = match saved {
            Err(VaultError::Unsealable { .. } | VaultError::RolledBack { .. } | VaultError::Corrupt { .. }) => None,
            other => other?,
        };
        if let Some((provider, tokens)) = saved {
            tracing::debug!(row.revision = row.revision.0, "tokens of an erased subject go to their provider");
            let job = Job {
                id: JobId::from_bytes(self.random().bytes()?),
                tenant: erasing.tenant.clone(),
                subject: erasing.subject,
                kind: JobKind::RevokeErased { provider },
                failures: 0,
            };
            change.insert_job(&job, Some(&tokens), erasing.audit.at);
        }
        Ok(())
    }

    async fn connection_to_erase(
        &self,
        record: &RecordKey,
        change: &mut Change,
        erasing: &Erasing<'_>,
    ) -> Result<Option<(ProviderId, TokenSet)>, VaultError> {
        let Some(stored) = self.read::<Connection>(record.clone()).await? else { return Ok(None) };
        let status = CredentialStatus {
            state: CredentialState::Revoked,
            scopes: ScopeSet::default(),
            expires_at: None,
            reason: None,
            ..CredentialStatus::of(&stored.value)
        };
        if !stored.value.withheld {
            change.event(&CredentialEvent {
                kind: EventKind::Erased,
                tenant: erasing.tenant.clone(),
                occurred_at: erasing.audit.at,
                status,
            });
        }
        let tokens = self.connection_tokens(&stored).await?;
        Ok(tokens.map(|tokens| (stored.value.provider.clone(), tokens)))
    }

    async fn flow_to_erase(&self, record: &RecordKey) -> Result<Option<(ProviderId, TokenSet)>, VaultError> {
        let Some(id) = record.id().as_ref().try_into().ok().map(FlowId::from_bytes) else { return Ok(None) };
        let Some(stored): Option<Stored<Flow>> = self.any_flow(id).await? else { return Ok(None) };
        let waiting = self.flow_tokens(&stored).await?;
        Ok(waiting.map(|waiting| (stored.value.provider.clone(), waiting.tokens)))
    }

    async fn job_to_erase(&self, record: &RecordKey) -> Result<Option<(ProviderId, TokenSet)>, VaultError> {
        let Some(stored) = self.read::<Job>(record.clone()).await? else { return Ok(None) };
        let JobKind::RevokeTokens { provider, .. } = &stored.value.kind else { return Ok(None) };
        let tokens = self.job_tokens(&stored).await?;
        Ok(tokens.map(|tokens| (provider.clone(), tokens)))
    }

    /// Since when nothing opens that was wrapped under this key of a tenant: since the last of the root keys that had it
    /// was retired.
    async fn out_of_reach_since(&self, tenant: &TenantId, key: KeyId) -> Result<Option<Timestamp>, VaultError> {
        let Some((_, record)) = self.keyring().read_tenant(tenant).await? else { return Ok(None) };
        if record.key == key || record.older.iter().any(|(older, _)| *older == key) {
            return Ok(None);
        }
        let gone = record.gone.iter().find(|(gone, _)| *gone == key).or(record.gone.first());
        let Some((_, root)) = gone else { return Ok(None) };
        let ledger = self.keyring().read_ledger().await?;
        let roots = &ledger.ledger.roots;
        let Some(last) = roots.iter().position(|known| known.id == *root) else { return Ok(None) };
        let retired: Option<Vec<Timestamp>> = roots[..=last].iter().map(|known| known.retired_at).collect();
        Ok(retired.and_then(|retired| retired.into_iter().max()))
    }
}

/// What a receipt's MAC is over.
fn stated(receipt: &ErasureReceipt) -> [Vec<u8>; 5] {
    let ErasureReceipt { tenant, subject, erased_at, copies_unreadable_from, mac: _ } = receipt;
    let moment = |at: Timestamp| at.as_millis().to_be_bytes().to_vec();
    [
        b"receipt".to_vec(),
        tenant.as_str().as_bytes().to_vec(),
        subject.as_bytes().to_vec(),
        moment(*erased_at),
        copies_unreadable_from.map(moment).unwrap_or_default(),
    ]
}
