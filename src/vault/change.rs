//! A change set in the making: domain values in, one atomic commit out.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use serde::Serialize;

use super::{
    Misuse, Stored, Subject, Vault, VaultError,
    keyring::{HeldKey, Keyring},
    place,
    records::{self, Owned},
    tenants::TenantKeys,
};
use crate::{
    domain::{AuditRecord, Connection, CredentialEvent, EntryId, SubjectId, TenantId, Timestamp},
    sealing::{AssociatedData, Key},
    store::{
        ChangeSet, CommitError, Expect, IndexEntry, NewEntry, Precondition, Purge, Receipt, RecordKey, RecordKind,
        Write, WriteAction,
    },
};

/// Everything that becomes true together, for one tenant and at most one of its subjects; others have to be admitted. A
/// defect or a failure of the
/// random source while building is kept and answered by [`Change::commit`]; then nothing is written.
pub struct Change {
    pub(super) vault: Vault,
    tenant: TenantKeys,
    /// Whose events may stand beside the tenant's own.
    others: Vec<TenantKeys>,
    subjects: Vec<Arc<HeldKey>>,
    /// Whether something was sealed under the tenant's own key.
    under_tenant: Cell<bool>,
    pub(super) set: ChangeSet,
    failed: Option<VaultError>,
}

impl Vault {
    /// Begins a change set. Keys that the tenant or subject does not have yet are made and committed first.
    pub async fn change(&self, tenant: &TenantId, subject: Option<SubjectId>) -> Result<Change, VaultError> {
        let (tenant, subject) = self.watched(self.keys_for(tenant, subject).await)?;
        let (under_tenant, set) = (Cell::new(false), ChangeSet::default());
        let (others, subjects) = (Vec::new(), subject.into_iter().collect());
        Ok(Change { vault: self.clone(), tenant, others, subjects, under_tenant, set, failed: None })
    }

    /// As [`Vault::change`], for what is announced to several tenants at once.
    pub async fn change_across(&self, tenant: &TenantId, others: &BTreeSet<TenantId>) -> Result<Change, VaultError> {
        let mut change = self.change(tenant, None).await?;
        for other in others {
            let (keys, _) = self.watched(self.keys_for(other, None).await)?;
            change.others.push(keys);
        }
        Ok(change)
    }

    async fn keys_for(
        &self,
        tenant: &TenantId,
        subject: Option<SubjectId>,
    ) -> Result<(TenantKeys, Option<Arc<HeldKey>>), VaultError> {
        let keys = self.keyring().tenant(tenant).await?;
        let subject = match subject {
            Some(subject) => Some(self.keyring().subject(&keys, subject).await?),
            None => None,
        };
        Ok((keys, subject))
    }
}

impl Change {
    /// Lets records of another subject stand in it, and events of theirs; false: nothing can be stored for them any more.
    pub async fn admit(&mut self, tenant: &TenantId, subject: SubjectId) -> Result<bool, VaultError> {
        if self.subjects.iter().any(|held| held.owner.holds(tenant, Some(subject))) {
            return Ok(true);
        }
        let held = match self.vault.keys_for(tenant, Some(subject)).await {
            Err(VaultError::SubjectErased) => return Ok(false),
            other => self.vault.watched(other)?,
        };
        self.subjects.extend(held.1);
        if self.tenants().all(|keys| keys.tenant != *tenant) {
            self.others.push(held.0);
        }
        Ok(true)
    }

    fn tenants(&self) -> impl Iterator<Item = &TenantKeys> {
        std::iter::once(&self.tenant).chain(&self.others)
    }

    /// Announces an event. All of a change set's events get its revision, in this order.
    pub fn event(&mut self, event: &CredentialEvent) {
        self.build(|change| {
            let entry = change.entry(&event.tenant, "event", event, place::event)?;
            change.set.events.push(entry);
            Ok(())
        });
    }

    /// Records what was done, in the audit trail. Numbered in this order.
    pub fn audit(&mut self, record: &AuditRecord) {
        self.build(|change| {
            let entry = change.entry(&record.tenant, "audit record", record, place::audit)?;
            change.set.audit.push(entry);
            Ok(())
        });
    }

    /// Removes what has reached the end of its retention; see [`Purge`] for how much at a time.
    pub fn purge(&mut self, purge: Purge) {
        self.set.purge = purge;
    }

    /// That the connection has not changed since it was read, although this change set does not write it.
    pub fn require_connection(&mut self, connection: &Stored<Connection>) {
        self.require(connection);
    }

    /// That the subject was neither erased nor signed out since it was read.
    pub fn require_subject(&mut self, subject: &Stored<Subject>) {
        self.require(subject);
    }

    /// Commits everything or nothing. With `Ok` it is durable and visible. [`VaultError::Conflict`] and
    /// [`VaultError::PreconditionFailed`]: nothing was written; [`VaultError::OutcomeUnknown`]: read back.
    pub async fn commit(self) -> Result<Receipt, VaultError> {
        let Self { vault, tenant, others: _, subjects, under_tenant, set, failed } = self;
        if let Some(error) = failed {
            return Err(error);
        }
        let due = earliest_due(&set);
        let tenant = under_tenant.get().then_some(tenant.key);
        let committed = commit_sealed(vault.keyring(), set, tenant.into_iter().chain(subjects).collect()).await;
        let receipt = vault.watched(committed)?;
        if let Some(due) = due {
            vault.planned().committed(due);
        }
        Ok(receipt)
    }

    pub(super) fn build(&mut self, step: impl FnOnce(&mut Self) -> Result<(), VaultError>) {
        if self.failed.is_none() {
            self.failed = step(self).err();
        }
    }

    /// The key for records of this subject, who must be the change set's own or admitted to it.
    pub(super) fn key(&self, record: &RecordKey, tenant: &TenantId, subject: SubjectId) -> Result<&Key, VaultError> {
        let held = self.subjects.iter().find(|held| held.owner.holds(tenant, Some(subject)));
        held.map(|held| &held.key).ok_or_else(|| Misuse::OtherOwner { record: format!("{record:?}") }.into())
    }

    /// The key for records of the tenant itself, which must be the change set's own.
    pub(super) fn tenant_key(&self, record: &RecordKey, tenant: &TenantId) -> Result<&Key, VaultError> {
        if self.tenant.tenant == *tenant {
            self.under_tenant.set(true);
            Ok(&self.tenant.key.key)
        } else {
            Err(Misuse::OtherOwner { record: format!("{record:?}") }.into())
        }
    }

    /// The key for this value's record, which must be of the change set's own subject or tenant.
    pub(super) fn key_for<T: Owned>(&self, record: &RecordKey, value: &T) -> Result<&Key, VaultError> {
        match value.subject() {
            Some(subject) => self.key(record, value.tenant(), subject),
            None => self.tenant_key(record, value.tenant()),
        }
    }

    pub(super) fn write(&mut self, write: Write) {
        self.set.writes.push(write);
    }

    fn require<T>(&mut self, stored: &Stored<T>) {
        let expect = Expect::Version(stored.version());
        self.set.preconditions.push(Precondition { key: stored.key.clone(), expect });
    }

    fn entry<T: Serialize>(
        &self,
        tenant: &TenantId,
        what: &str,
        value: &T,
        place: impl FnOnce(&EntryId) -> AssociatedData<'_>,
    ) -> Result<NewEntry, VaultError> {
        let Some(keys) = self.tenants().find(|keys| keys.tenant == *tenant) else {
            return Err(Misuse::OtherOwner { record: what.to_owned() }.into());
        };
        let random = self.vault.random();
        let id = EntryId::from_bytes(random.bytes()?);
        let body = keys.log.key.seal(&place(&id), &records::encode(value), random)?;
        Ok(NewEntry { id, body })
    }
}

/// Commits what was sealed under `keys`. It must still be readable when it becomes true, so each of them must be neither
/// superseded nor destroyed; one that a rotation has only wrapped anew is the same key.
async fn commit_sealed(keyring: &Keyring, set: ChangeSet, mut keys: Vec<Arc<HeldKey>>) -> Result<Receipt, VaultError> {
    loop {
        let mut attempt = set.clone();
        attempt.preconditions.extend(keys.iter().map(|held| held.unmoved()));
        let moved = match keyring.store.commit(attempt).await {
            Err(CommitError::PreconditionFailed { key }) if key.kind() == RecordKind::Key => key,
            other => return Ok(other?),
        };
        let Some(held) = keys.iter_mut().find(|held| place::key_row(held.key.id()) == moved) else {
            return Err(CommitError::PreconditionFailed { key: moved }.into());
        };
        match keyring.again(held).await? {
            Some(newer) => *held = newer,
            None if held.is_of_subject() => return Err(VaultError::SubjectErased),
            None => return Err(CommitError::PreconditionFailed { key: moved }.into()),
        }
    }
}

/// When the first of the written records is due.
fn earliest_due(set: &ChangeSet) -> Option<Timestamp> {
    let puts = set.writes.iter().filter_map(|write| match &write.action {
        WriteAction::Put { index, .. } => Some(index),
        WriteAction::Delete => None,
    });
    puts.flatten().filter_map(IndexEntry::due_at).min()
}
