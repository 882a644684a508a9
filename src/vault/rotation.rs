//! Superseding keys while calls are served.
//!
//! Beginning is one change set: from then on everything new is sealed under the new key, and a mark says since when.
//! What is left to move is what the index lists under the old key, so whoever goes on, in this process or a later one,
//! needs to know nothing else. A tenant's old key is destroyed with the last row; a root key is for the operator to
//! retire, because its file is theirs.

use super::{
    Vault, VaultError,
    keyring::KeyOwner,
    place,
    roots::{self, RootEntry, Superseded, live},
    tenants::TenantRecord,
};
use crate::{
    domain::{AuditRecord, EntryId, KeyId, KeyRotation, TenantId, Timestamp},
    sealing::Key,
    store::{ChangeSet, CommitError, Expect, FieldTag, NewEntry, RecordKind, Write},
};

/// Whose rows are on the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotating {
    Root,
    Tenant(TenantId),
}

/// How many of a tenant's destroyed keys are remembered. Of an older one it is only said that copies open until the
/// oldest of these is out of reach, which is later, never sooner.
const REMEMBERED: usize = 128;

impl Vault {
    /// Takes the newest of the given root keys into force, on record as `audit` says. A rotation that is under way
    /// already is what is answered.
    ///
    /// # Errors
    /// [`VaultError::NoNewRootKey`].
    pub async fn begin_root_rotation(&self, audit: &AuditRecord) -> Result<KeyRotation, VaultError> {
        let now = audit.at;
        loop {
            let before = self.keyring().read_ledger().await?;
            let (present, root) = (before.ledger.present(), self.keyring().roots.newest());
            if present.id == root.key.id()
                && let Some(rotation) = self.root_rotation().await?
            {
                return Ok(rotation);
            }
            if before.ledger.roots.iter().any(|known| known.id == root.key.id()) {
                return Err(VaultError::NoNewRootKey { newest: root.key.id() });
            }
            let begun = live(self.store().as_ref(), present.id, u64::MAX).await?;
            let mut ledger = before.ledger.clone();
            if let Some(last) = ledger.roots.last_mut() {
                last.superseded = Some(Superseded { at: now, begun });
            }
            ledger.roots.push(RootEntry { id: root.key.id(), since: Some(now), superseded: None, retired_at: None });
            let secret = self.installation_row(&root.key).await?;
            let ledger = ledger.write(&root.key, Expect::Version(before.version), self.random())?;
            let audit = vec![self.audit_entry(audit).await?];
            let set = ChangeSet { writes: vec![secret, ledger], audit, ..ChangeSet::default() };
            let done = self.commit_or_again(set).await?;
            self.keyring().read_ledger().await?;
            if done {
                // Small stores may be moved by the time that anybody looks.
                let left = self.root_rotation().await?.map_or(0, |rotation| rotation.left);
                return Ok(KeyRotation { begun, left, started_at: now });
            }
        }
    }

    /// Gives the tenant a new key, on record as `audit` says. A rotation that is under way already is what is answered, unless an erasure has marked the
    /// key since it began. `None`: the tenant has no keys.
    pub async fn begin_tenant_rotation(
        &self,
        tenant: &TenantId,
        audit: &AuditRecord,
    ) -> Result<Option<KeyRotation>, VaultError> {
        let now = audit.at;
        loop {
            let Some((row, before)) = self.keyring().read_tenant(tenant).await? else { return Ok(None) };
            if before.marked_at.is_none()
                && let Some(rotation) = self.tenant_rotation(&before).await?
            {
                return Ok(Some(rotation));
            }
            let old = self.keyring().key(before.key).await?;
            let old = old.ok_or_else(|| VaultError::unsealable(&place::key_row(before.key)))?;
            let ((root, in_force), key) = (self.keyring().root()?, Key::generate(tenant.clone(), self.random())?);
            let begun = live(self.store().as_ref(), before.key, u64::MAX).await?;
            let mut record = TenantRecord { key: key.id(), since: Some(now), marked_at: None, ..before };
            record.older.push((old.key.id(), Superseded { at: now, begun }));
            let owner = KeyOwner::Tenant { tenant: tenant.clone() };
            let tenant_row = place::tenant_row(self.keys(), tenant);
            let writes = vec![
                self.keyring().key_row(&key, &owner, &root.key)?,
                self.keyring().owner_row(&key, tenant_row, Expect::Version(row.version), &record)?,
                // Whoever is about to seal something under the old key must see that it is no longer in force.
                self.touched(&old.key, &root.key).await?,
            ];
            let preconditions = vec![in_force];
            let audit = vec![self.audit_entry(audit).await?];
            let set = ChangeSet { writes, preconditions, audit, ..ChangeSet::default() };
            let begun = self.commit_or_again(set).await?;
            self.keyring().forget(&old);
            if begun {
                return self.tenant_rotation(&record).await;
            }
            self.keyring().read_ledger().await?;
        }
    }

    /// Moves some rows. False: nothing is left, and the superseded keys of a tenant are destroyed.
    pub async fn go_on_rotating(&self, what: &Rotating) -> Result<bool, VaultError> {
        self.watched(match what {
            Rotating::Root => self.go_on_with_roots().await,
            Rotating::Tenant(tenant) => self.go_on_with_tenant(tenant).await,
        })
    }

    /// Every rotation that is not at its end.
    pub async fn rotations(&self) -> Result<Vec<(Rotating, KeyRotation)>, VaultError> {
        let mut under_way: Vec<_> =
            self.root_rotation().await?.into_iter().map(|rotation| (Rotating::Root, rotation)).collect();
        for tenant in self.tenants().await? {
            let Some((_, record)) = self.keyring().read_tenant(&tenant).await? else { continue };
            under_way.extend(self.tenant_rotation(&record).await?.map(|rotation| (Rotating::Tenant(tenant), rotation)));
        }
        Ok(under_way)
    }

    /// Tenants with keys, in no order.
    pub async fn tenants(&self) -> Result<Vec<TenantId>, VaultError> {
        let mut tenants = Vec::new();
        for key in self.tenant_keys().await? {
            if let KeyOwner::Log { tenant } = &key.owner {
                tenants.push(tenant.clone());
            }
        }
        Ok(tenants)
    }

    /// Tenants whose key an erasure has marked, and since when.
    pub async fn marked_tenants(&self) -> Result<Vec<(TenantId, Timestamp)>, VaultError> {
        let mut marked = Vec::new();
        for tenant in self.tenants().await? {
            let record = self.keyring().read_tenant(&tenant).await?.map(|(_, record)| record);
            marked.extend(record.and_then(|record| record.marked_at).map(|at| (tenant, at)));
        }
        Ok(marked)
    }

    async fn root_rotation(&self) -> Result<Option<KeyRotation>, VaultError> {
        let ledger = self.keyring().read_ledger().await?;
        let mut rotation = None;
        for (root, superseded) in ledger.ledger.superseded() {
            let left = live(self.store().as_ref(), root.id, u64::MAX).await?;
            rotation = add(rotation, superseded, left);
        }
        Ok(rotation)
    }

    async fn tenant_rotation(&self, record: &TenantRecord) -> Result<Option<KeyRotation>, VaultError> {
        let mut rotation = None;
        for (key, superseded) in &record.older {
            // Its own row is the last that goes.
            let left = live(self.store().as_ref(), *key, u64::MAX).await?.max(1);
            rotation = add(rotation, *superseded, left);
        }
        Ok(rotation)
    }

    async fn go_on_with_roots(&self) -> Result<bool, VaultError> {
        let ledger = self.keyring().read_ledger().await?;
        let (root, in_force) = self.keyring().root()?;
        let mut more = false;
        for (old, _) in ledger.ledger.superseded() {
            more |= !self.move_rows(old.id, &root, &in_force).await?;
        }
        Ok(more)
    }

    async fn go_on_with_tenant(&self, tenant: &TenantId) -> Result<bool, VaultError> {
        let Some((_, record)) = self.keyring().read_tenant(tenant).await? else { return Ok(false) };
        let Some((old, _)) = record.older.first() else { return Ok(false) };
        let present = self.keyring().tenant(tenant).await?.key;
        if self.move_rows(*old, &present, &present.unmoved()).await? {
            self.destroy_tenant_key(tenant, *old).await?;
        } else {
            // It may have been superseded itself.
            self.keyring().forget(&present);
        }
        Ok(true)
    }

    /// Nothing is sealed under it, and nothing new can be: who would needs its row as it was before it was superseded.
    async fn destroy_tenant_key(&self, tenant: &TenantId, old: KeyId) -> Result<(), VaultError> {
        let Some((row, mut record)) = self.keyring().read_tenant(tenant).await? else { return Ok(()) };
        let key_row = place::key_row(old);
        let (root, in_force) = self.keyring().root()?;
        let Some(stored) = self.store().row(key_row.clone()).await? else { return Ok(()) };
        if live(self.store().as_ref(), old, 1).await? > 0 {
            return Ok(());
        }
        let present = self.keyring().tenant(tenant).await?.key;
        record.older.retain(|(key, _)| *key != old);
        record.gone.push((old, root.key.id()));
        let forgotten = record.gone.len().saturating_sub(REMEMBERED);
        record.gone.drain(..forgotten);
        let tenant_row = place::tenant_row(self.keys(), tenant);
        let put = self.keyring().owner_row(&present.key, tenant_row, Expect::Version(row.version), &record)?;
        let set = ChangeSet {
            writes: vec![put, Write::delete(key_row, stored.version)],
            preconditions: vec![present.unmoved(), in_force],
            ..ChangeSet::default()
        };
        if self.commit_or_again(set).await? {
            self.keyring().forget_id(old);
        } else {
            self.keyring().forget(&present);
            self.keyring().read_ledger().await?;
        }
        Ok(())
    }

    /// The row of a key, wrapped anew.
    async fn touched(&self, key: &Key, root: &Key) -> Result<Write, VaultError> {
        let record = place::key_row(key.id());
        let gone = || VaultError::unsealable(&record);
        let row = self.store().row(record.clone()).await?.ok_or_else(gone)?;
        let sealed = row.field(FieldTag::Key).ok_or_else(gone)?;
        let parent = self.keyring().key_of(sealed, &record).await?;
        let to = self.keyring().roots.get(root.id())?;
        self.resealed(&record, &row, &parent, to)
    }

    /// The installation's row, wrapped under another root key.
    async fn installation_row(&self, root: &Key) -> Result<Write, VaultError> {
        let record = place::installation_row();
        let corrupt = || VaultError::corrupt(&record);
        let row = self.store().row(record.clone()).await?.ok_or_else(corrupt)?;
        let held = self.keyring().key_of(row.field(FieldTag::Key).ok_or_else(corrupt)?, &record).await?;
        self.resealed(&record, &row, &held, self.keyring().roots.get(root.id())?)
    }

    /// For change sets that are not made as a [`super::Change`].
    pub(super) async fn audit_entry(&self, record: &AuditRecord) -> Result<NewEntry, VaultError> {
        let log = self.keyring().tenant(&record.tenant).await?.log;
        let id = EntryId::from_bytes(self.random().bytes()?);
        let body = log.key.seal(&place::audit(&id), &super::records::encode(record), self.random())?;
        Ok(NewEntry { id, body })
    }

    /// False: another change set came first, so it has to be looked at again.
    pub(super) async fn commit_or_again(&self, set: ChangeSet) -> Result<bool, VaultError> {
        match self.store().commit(set).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(CommitError::PreconditionFailed { key })
                if matches!(key.kind(), RecordKind::Key | RecordKind::RootKeys) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Every tenant's keys, superseded ones and log keys included.
    pub(super) async fn tenant_keys(&self) -> Result<Vec<std::sync::Arc<super::keyring::HeldKey>>, VaultError> {
        let ledger = self.keyring().read_ledger().await?;
        let in_use = ledger.ledger.roots.iter().filter(|root| root.retired_at.is_none());
        let mut keys = Vec::new();
        for root in in_use {
            let mut after = None;
            loop {
                let page = roots::under(self.store().as_ref(), root.id, after, PAGE).await?;
                for entry in page.iter().filter(|entry| entry.record.kind() == RecordKind::Key) {
                    let Some(id) = roots::key_named_by(&entry.record) else { continue };
                    // One that was moved while this read is found under its new root key too.
                    if keys.iter().all(|known: &std::sync::Arc<super::keyring::HeldKey>| known.key.id() != id) {
                        keys.extend(self.keyring().key(id).await?);
                    }
                }
                after = match page.len() == PAGE {
                    true => page.into_iter().last().map(|entry| entry.key),
                    false => break,
                };
            }
        }
        Ok(keys)
    }
}

/// Several keys' rotations to the same one, seen as one.
fn add(rotation: Option<KeyRotation>, superseded: Superseded, left: u64) -> Option<KeyRotation> {
    let Superseded { at, begun } = superseded;
    match rotation {
        _ if left == 0 => rotation,
        None => Some(KeyRotation { begun, left, started_at: at }),
        Some(before) => Some(KeyRotation {
            begun: before.begun + begun,
            left: before.left + left,
            started_at: before.started_at.min(at),
        }),
    }
}

const PAGE: usize = 1024;
