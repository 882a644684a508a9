//! The present keys of tenants and subjects, made when they are first needed.

use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::{
    VaultError,
    keyring::{HeldKey, KeyOwner, Keyring, TenantKeyIds},
    place, records,
    roots::Superseded,
    stored::{Envelope, Subject},
    witness,
};
use crate::{
    domain::{KeyId, SubjectId, TenantId, Timestamp},
    sealing::{Key, RandomUnavailable},
    store::{ChangeSet, Expect, FieldTag, IndexEntry, RecordKey, RecordKind, Row, RowFields, Write},
};

/// How often a lost race for creating a key, or a key that moved meanwhile, is looked at again; the first look normally
/// finds the winner's.
const RACES: usize = 16;

/// A tenant and its keys, sealed under the present one.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct TenantRecord {
    pub(super) tenant: TenantId,
    /// Seals the tenant's subjects.
    pub(super) key: KeyId,
    /// When that came into force; `None` for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    /// Seals the tenant's events and audit records, and is never replaced: else a superseded key would have to be kept
    /// as long as the trail, and with it every older copy of the store would stay readable after an erasure.
    pub(super) log: KeyId,
    /// Superseded keys that rows are still sealed under, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) older: Vec<(KeyId, Superseded)>,
    /// The newest of the keys that are gone, oldest first, each with the last root key that it was wrapped under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gone: Vec<(KeyId, KeyId)>,
    /// Since when an erasure waits for the key to be rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) marked_at: Option<Timestamp>,
}

/// A tenant's keys in force.
#[derive(Clone)]
pub(super) struct TenantKeys {
    pub(super) tenant: TenantId,
    pub(super) key: Arc<HeldKey>,
    pub(super) log: Arc<HeldKey>,
}

impl Keyring {
    /// The tenant's present keys, made now if the tenant has none.
    pub(super) async fn tenant(&self, tenant: &TenantId) -> Result<TenantKeys, VaultError> {
        for _ in 0..RACES {
            if let Some(keys) = self.present_tenant(tenant).await? {
                return Ok(keys);
            }
            self.create_tenant(tenant).await?;
        }
        Err(VaultError::Conflict { record: format!("{:?}", place::tenant_row(&self.installation, tenant)) })
    }

    /// The subject's key, made now if the subject is new.
    pub(super) async fn subject(&self, keys: &TenantKeys, subject: SubjectId) -> Result<Arc<HeldKey>, VaultError> {
        let row = place::subject_row(&self.installation, &keys.tenant, subject);
        let owner = KeyOwner::Subject { tenant: keys.tenant.clone(), subject };
        let mut tenant = Arc::clone(&keys.key);
        for _ in 0..RACES {
            if let Some(held) = self.present_subject(&row, &owner).await? {
                return Ok(held);
            }
            if self.barred.lock().unwrap_or_else(PoisonError::into_inner).contains(&row) {
                return Err(VaultError::SubjectErased);
            }
            let key = Key::generate(keys.tenant.clone(), &self.random)?;
            let record = Subject::new(keys.tenant.clone(), subject, key.id());
            let envelope = Envelope { value: record, parked: None };
            let put = self.owner_row(&tenant.key, row.clone(), Expect::Absent, &envelope)?;
            let writes = vec![self.key_row(&key, &owner, &tenant.key)?, put];
            let preconditions = vec![tenant.unmoved()];
            if !self.create(ChangeSet { writes, preconditions, ..ChangeSet::default() }).await? {
                self.forget(&tenant);
                tenant = self.tenant(&keys.tenant).await?.key;
            }
        }
        Err(VaultError::Conflict { record: format!("{row:?}") })
    }

    /// The tenant's row and what it says; `None` for a tenant without keys.
    pub(super) async fn read_tenant(&self, tenant: &TenantId) -> Result<Option<(Arc<Row>, TenantRecord)>, VaultError> {
        let key = place::tenant_row(&self.installation, tenant);
        let Some((row, record)) = self.read_owner::<TenantRecord>(&key).await? else { return Ok(None) };
        if record.tenant == *tenant { Ok(Some((row, record))) } else { Err(VaultError::corrupt(&key)) }
    }

    /// The row of a tenant or subject, which says what its key is.
    pub(super) fn owner_row<T: Serialize>(
        &self,
        held: &Key,
        row: RecordKey,
        expect: Expect,
        record: &T,
    ) -> Result<Write, RandomUnavailable> {
        let version = expect.next_version();
        let field = (FieldTag::Record, records::seal(held, &row, version, record, &self.random)?);
        let index = IndexEntry::sealed_under(held.id(), row.clone(), Some(version));
        Ok(Write::put(row, expect, vec![field], vec![index]))
    }

    /// The row of a new key, wrapped under its parent.
    pub(super) fn key_row(&self, key: &Key, owner: &KeyOwner, parent: &Key) -> Result<Write, RandomUnavailable> {
        let row = place::key_row(key.id());
        let fields: RowFields = vec![
            (FieldTag::Record, records::seal(parent, &row, 1, owner, &self.random)?),
            (FieldTag::Key, parent.wrap(&place::field(&row, FieldTag::Key, 1), key, &self.random)?),
        ];
        let index = IndexEntry::sealed_under(parent.id(), row.clone(), Some(1));
        Ok(Write::put(row, Expect::Absent, fields, vec![index]))
    }

    async fn create_tenant(&self, tenant: &TenantId) -> Result<(), VaultError> {
        let (root, in_force) = self.root()?;
        let (key, log) = (Key::generate(tenant.clone(), &self.random)?, Key::generate(tenant.clone(), &self.random)?);
        let record = TenantRecord {
            tenant: tenant.clone(),
            key: key.id(),
            since: None,
            log: log.id(),
            older: Vec::new(),
            gone: Vec::new(),
            marked_at: None,
        };
        let row = place::tenant_row(&self.installation, tenant);
        let writes = vec![
            self.key_row(&key, &KeyOwner::Tenant { tenant: tenant.clone() }, &root.key)?,
            self.key_row(&log, &KeyOwner::Log { tenant: tenant.clone() }, &root.key)?,
            self.owner_row(&key, row, Expect::Absent, &record)?,
        ];
        let preconditions = vec![in_force];
        if !self.create(ChangeSet { writes, preconditions, ..ChangeSet::default() }).await? {
            self.read_ledger().await?;
        }
        Ok(())
    }

    /// `None` when the tenant has no keys yet.
    async fn present_tenant(&self, tenant: &TenantId) -> Result<Option<TenantKeys>, VaultError> {
        let row = place::tenant_row(&self.installation, tenant);
        let mut known = self.tenants.get(tenant);
        loop {
            let ids = match known {
                Some(ids) => ids,
                None => match self.read_tenant(tenant).await? {
                    Some((_, record)) => TenantKeyIds { key: record.key, log: record.log, version: None },
                    None => return Ok(None),
                },
            };
            let (key, log) = (self.key(ids.key).await?, self.key(ids.log).await?);
            // Read after the key: if it is superseded after this look, it has another version by then.
            let confirmed = key.as_ref().is_some_and(|key| ids.version == Some(key.version))
                || self.read_tenant(tenant).await?.is_some_and(|(_, record)| record.key == ids.key);
            if !confirmed {
                known = None;
                continue;
            }
            let (Some(key), Some(log)) = (key, log) else { return Err(VaultError::unsealable(&row)) };
            if !key.owner.holds(tenant, None) || !log.owner.logs(tenant) {
                return Err(VaultError::corrupt(&row));
            }
            self.tenants.insert(tenant.clone(), TenantKeyIds { version: Some(key.version), ..ids });
            return Ok(Some(TenantKeys { tenant: tenant.clone(), key, log }));
        }
    }

    /// `None` when the subject has no row yet.
    async fn present_subject(&self, row: &RecordKey, owner: &KeyOwner) -> Result<Option<Arc<HeldKey>>, VaultError> {
        if let Some((id, version)) = self.subjects.get(row)
            && let Some(held) = self.key(id).await?
            && held.version == version
        {
            return Ok(Some(held));
        }
        self.subjects.remove(row);
        let Some((_, Envelope { value: subject, .. })) = self.read_owner::<Envelope<Subject>>(row).await? else {
            return Ok(None);
        };
        let id = subject.key;
        if *owner != (KeyOwner::Subject { tenant: subject.tenant.clone(), subject: subject.subject }) {
            return Err(VaultError::corrupt(row));
        }
        let held = self.key(id).await?.ok_or(VaultError::SubjectErased)?;
        // Read after the key: if the subject is closed after this look, the key has another version by then.
        if subject.erased.is_some() || self.is_closed(&subject.tenant, subject.subject).await? {
            return Err(VaultError::SubjectErased);
        }
        if held.owner != *owner {
            return Err(VaultError::corrupt(row));
        }
        self.subjects.insert(row.clone(), (id, held.version));
        Ok(Some(held))
    }

    /// Whether the subject is erased, or is about to be.
    pub(super) async fn is_closed(&self, tenant: &TenantId, subject: SubjectId) -> Result<bool, VaultError> {
        let row = place::subject_row(&self.installation, tenant, subject);
        let found = self.read_owner::<Envelope<Subject>>(&row).await?;
        Ok(found.is_none_or(|(_, Envelope { value, .. })| value.erased.is_some()))
    }

    /// Reads a row whose key may be rotated meanwhile.
    pub(super) async fn read_owner<T: serde::de::DeserializeOwned>(
        &self,
        key: &RecordKey,
    ) -> Result<Option<(Arc<Row>, T)>, VaultError> {
        let mut before = None;
        loop {
            let Some(row) = witness::row(self.store.as_ref(), key).await? else { return Ok(None) };
            let sealed = row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(key))?;
            match self.key_of(sealed, key).await {
                Ok(held) => {
                    let record = records::open(&held.key, key, row.version, sealed)?;
                    return Ok(Some((row, record)));
                }
                Err(VaultError::Unsealable { .. }) if before != Some(row.version) => before = Some(row.version),
                Err(error) => return Err(error),
            }
        }
    }

    /// A lost race for the owner's row is no error: whoever won made the key. False: the key that it was to be wrapped
    /// under has moved.
    async fn create(&self, set: ChangeSet) -> Result<bool, VaultError> {
        use crate::store::CommitError;
        match self.store.commit(set).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(true),
            Err(CommitError::PreconditionFailed { key })
                if matches!(key.kind(), RecordKind::Key | RecordKind::RootKeys) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
