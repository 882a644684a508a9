//! The key hierarchy: root → tenant → subject. Keys are kept wrapped in the store and, unwrapped, in a bounded cache that
//! zeroizes what it evicts.

use std::sync::Arc;

use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use super::{
    VaultError, place, records,
    stored::{Envelope, Subject},
};
use crate::{
    domain::{KeyId, Sealed, SubjectId, TenantId},
    sealing::{InstallationKeys, Key, Random, RootKey, sealed_key_id},
    store::{ChangeSet, Expect, FieldTag, Precondition, RecordKey, Row, RowFields, Store, Write},
};

/// Unwrapped keys kept in memory; about 200 bytes each.
const CACHED_KEYS: usize = 65_536;
/// Root, tenant, subject: no chain of wrapped keys is longer.
const DEEPEST: usize = 2;
/// How often a lost race for creating a key is looked at again; the first look normally finds the winner's.
const RACES: usize = 4;

pub(super) struct Keyring {
    store: Arc<dyn Store>,
    root: Arc<HeldKey>,
    installation: InstallationKeys,
    random: Random,
    held: Cache<KeyId, Arc<HeldKey>>,
    /// The present key of a tenant or subject, by the row that says so. May be stale: a change set requires the key's
    /// row at the version seen here, so a stale entry costs a failed commit, never a record under a retired key.
    present: Cache<RecordKey, KeyId>,
}

/// An unwrapped key and whose it is.
pub(super) struct HeldKey {
    pub(super) key: Key,
    pub(super) owner: KeyOwner,
    /// Of the key's row; 0 for the root key, which has none.
    version: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeyOwner {
    Installation,
    Tenant { tenant: TenantId },
    Subject { tenant: TenantId, subject: SubjectId },
}

#[derive(Serialize, Deserialize)]
struct TenantRecord {
    tenant: TenantId,
    key: KeyId,
}

impl HeldKey {
    /// That the key has not been rewrapped, retired or destroyed since it was read.
    pub(super) fn unmoved(&self) -> Precondition {
        Precondition { key: place::key_row(self.key.id()), expect: Expect::Version(self.version) }
    }
}

impl KeyOwner {
    /// Whether this key is the one for records of the tenant, or of its subject.
    pub(super) fn holds(&self, tenant: &TenantId, subject: Option<SubjectId>) -> bool {
        match self {
            Self::Installation => false,
            Self::Tenant { tenant: of } => of == tenant && subject.is_none(),
            Self::Subject { tenant: of, subject: by } => of == tenant && subject == Some(*by),
        }
    }
}

impl Keyring {
    pub(super) fn new(store: Arc<dyn Store>, root: RootKey, installation: InstallationKeys, random: Random) -> Self {
        let root = HeldKey { key: root.into_key(), owner: KeyOwner::Installation, version: 0 };
        Self {
            store,
            root: Arc::new(root),
            installation,
            random,
            held: Cache::new(CACHED_KEYS),
            present: Cache::new(CACHED_KEYS),
        }
    }

    pub(super) fn root(&self) -> &Key {
        &self.root.key
    }

    /// The key that `sealed` names, for opening a field of `record`.
    pub(super) async fn key_of(&self, sealed: &Sealed, record: &RecordKey) -> Result<Arc<HeldKey>, VaultError> {
        let id = sealed_key_id(sealed).map_err(|_| VaultError::corrupt(record))?;
        self.key(id).await?.ok_or_else(|| VaultError::unsealable(record))
    }

    /// The tenant's present key, made now if the tenant has none.
    pub(super) async fn tenant(&self, tenant: &TenantId) -> Result<Arc<HeldKey>, VaultError> {
        let row = place::tenant_row(&self.installation, tenant);
        let owner = KeyOwner::Tenant { tenant: tenant.clone() };
        for _ in 0..RACES {
            if let Some(held) = self.present_key(&row, &owner).await? {
                return Ok(held);
            }
            let key = Key::generate(tenant.clone(), &self.random)?;
            let record = TenantRecord { tenant: tenant.clone(), key: key.id() };
            let fields = vec![(FieldTag::Record, records::seal(&key, &row, 1, &record, &self.random)?)];
            let set =
                self.creation(&key, &owner, &self.root, Write::put(row.clone(), Expect::Absent, fields, vec![]))?;
            self.create(set).await?;
        }
        Err(VaultError::Conflict { record: format!("{row:?}") })
    }

    /// The subject's key, made now if the subject is new.
    pub(super) async fn subject(&self, tenant: &HeldKey, subject: SubjectId) -> Result<Arc<HeldKey>, VaultError> {
        let name = tenant.key.tenant().expect("a tenant's key has its tenant").clone();
        let row = place::subject_row(&self.installation, &name, subject);
        let owner = KeyOwner::Subject { tenant: name.clone(), subject };
        for _ in 0..RACES {
            if let Some(held) = self.present_key(&row, &owner).await? {
                return Ok(held);
            }
            let key = Key::generate(name.clone(), &self.random)?;
            let record = Subject { tenant: name.clone(), subject, key: key.id(), not_before: None };
            let envelope = Envelope { value: record, parked: None };
            let fields = vec![(FieldTag::Record, records::seal(&tenant.key, &row, 1, &envelope, &self.random)?)];
            let put = Write::put(row.clone(), Expect::Absent, fields, vec![]);
            let mut set = self.creation(&key, &owner, tenant, put)?;
            set.preconditions.push(tenant.unmoved());
            self.create(set).await.inspect_err(|error| {
                if matches!(error, VaultError::PreconditionFailed { .. }) {
                    self.forget(tenant);
                }
            })?;
        }
        Err(VaultError::Conflict { record: format!("{row:?}") })
    }

    /// Forgets a key that turned out to have moved, so that it is read again.
    pub(super) fn forget(&self, held: &HeldKey) {
        self.held.remove(&held.key.id());
        match &held.owner {
            KeyOwner::Installation => {}
            KeyOwner::Tenant { tenant } => {
                self.present.remove(&place::tenant_row(&self.installation, tenant));
            }
            KeyOwner::Subject { tenant, subject } => {
                self.present.remove(&place::subject_row(&self.installation, tenant, *subject));
            }
        }
    }

    /// `None` when the owner has no row yet.
    async fn present_key(&self, row: &RecordKey, owner: &KeyOwner) -> Result<Option<Arc<HeldKey>>, VaultError> {
        if let Some(id) = self.present.get(row) {
            if let Some(held) = self.key(id).await? {
                return Ok(Some(held));
            }
            self.present.remove(row);
        }
        let Some(id) = self.read_present(row, owner).await? else { return Ok(None) };
        let held = self.key(id).await?.ok_or_else(|| match owner {
            KeyOwner::Subject { .. } => VaultError::SubjectErased,
            KeyOwner::Tenant { .. } | KeyOwner::Installation => VaultError::unsealable(row),
        })?;
        if held.owner != *owner {
            return Err(VaultError::corrupt(row));
        }
        self.present.insert(row.clone(), id);
        Ok(Some(held))
    }

    async fn read_present(&self, key: &RecordKey, owner: &KeyOwner) -> Result<Option<KeyId>, VaultError> {
        let Some(row) = self.store.row(key.clone()).await? else { return Ok(None) };
        let sealed = row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(key))?;
        let holder = self.key_of(sealed, key).await?;
        let (named, id) = match owner {
            KeyOwner::Subject { .. } => {
                let subject = records::open::<Envelope<Subject>>(&holder.key, key, row.version, sealed)?.value;
                (KeyOwner::Subject { tenant: subject.tenant, subject: subject.subject }, subject.key)
            }
            KeyOwner::Tenant { .. } | KeyOwner::Installation => {
                let record: TenantRecord = records::open(&holder.key, key, row.version, sealed)?;
                (KeyOwner::Tenant { tenant: record.tenant }, record.key)
            }
        };
        if named == *owner { Ok(Some(id)) } else { Err(VaultError::corrupt(key)) }
    }

    /// `None` when the key's row, or a row of its parents, is gone.
    pub(super) async fn key(&self, id: KeyId) -> Result<Option<Arc<HeldKey>>, VaultError> {
        let mut wrapped = Vec::new();
        let mut next = id;
        let mut holder = loop {
            if next == self.root.key.id() {
                break self.root.clone();
            }
            if let Some(held) = self.held.get(&next) {
                break held;
            }
            let row_key = place::key_row(next);
            if wrapped.len() == DEEPEST {
                return Err(VaultError::corrupt(&row_key));
            }
            let Some(row) = self.store.row(row_key.clone()).await? else { return Ok(None) };
            let sealed = row.field(FieldTag::Key).ok_or_else(|| VaultError::corrupt(&row_key))?;
            let parent = sealed_key_id(sealed).map_err(|_| VaultError::corrupt(&row_key))?;
            wrapped.push((next, row));
            next = parent;
        };
        for (id, row) in wrapped.into_iter().rev() {
            holder = Arc::new(unwrap_row(&holder, id, &row)?);
            self.held.insert(id, holder.clone());
        }
        Ok(Some(holder))
    }

    fn creation(
        &self,
        key: &Key,
        owner: &KeyOwner,
        parent: &HeldKey,
        owner_row: Write,
    ) -> Result<ChangeSet, VaultError> {
        let row = place::key_row(key.id());
        let fields: RowFields = vec![
            (FieldTag::Record, records::seal(&parent.key, &row, 1, owner, &self.random)?),
            (FieldTag::Key, parent.key.wrap(&place::field(&row, FieldTag::Key, 1), key, &self.random)?),
        ];
        let writes = vec![Write::put(row, Expect::Absent, fields, vec![]), owner_row];
        Ok(ChangeSet { writes, ..ChangeSet::default() })
    }

    /// A lost race is no error: whoever won made the key.
    async fn create(&self, set: ChangeSet) -> Result<(), VaultError> {
        match self.store.commit(set).await.map_err(VaultError::from) {
            Ok(_) | Err(VaultError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn unwrap_row(parent: &HeldKey, id: KeyId, row: &Row) -> Result<HeldKey, VaultError> {
    let key = place::key_row(id);
    let missing = || VaultError::corrupt(&key);
    let owner: KeyOwner =
        records::open(&parent.key, &key, row.version, row.field(FieldTag::Record).ok_or_else(missing)?)?;
    let tenant = match (&owner, &parent.owner) {
        (KeyOwner::Tenant { tenant }, KeyOwner::Installation) => tenant,
        (KeyOwner::Subject { tenant, .. }, KeyOwner::Tenant { tenant: parents }) if tenant == parents => tenant,
        _ => return Err(missing()),
    };
    let wrapped = row.field(FieldTag::Key).ok_or_else(missing)?;
    let unwrapped = parent
        .key
        .unwrap_key(&place::field(&key, FieldTag::Key, row.version), wrapped, id, Some(tenant.clone()))
        .map_err(|_| VaultError::unsealable(&key))?;
    Ok(HeldKey { key: unwrapped, version: row.version, owner })
}
