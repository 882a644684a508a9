//! The key hierarchy: root → tenant → subject, and a log key beside each tenant key. Keys are kept wrapped in the store
//! and, unwrapped, in a bounded cache that zeroizes what it evicts.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use super::{
    VaultError, place, records,
    roots::{GivenRoots, LedgerAt, read_ledger},
    witness,
};
use crate::{
    domain::{KeyId, Sealed, SubjectId, TenantId},
    sealing::{InstallationKeys, Key, Random, sealed_key_id},
    store::{Expect, FieldTag, Precondition, RecordKey, Row, Store},
};

/// Unwrapped keys kept in memory; about 200 bytes each.
const CACHED_KEYS: usize = 65_536;
/// How often a key that moved is read again.
const LOOKS: usize = 8;
/// Root, tenant, subject: no chain of wrapped keys is longer.
const DEEPEST: usize = 2;

pub(super) struct Keyring {
    pub(super) store: Arc<dyn Store>,
    pub(super) roots: GivenRoots,
    /// Which root key is in force, as last seen.
    pub(super) ledger: ArcSwap<LedgerAt>,
    pub(super) installation: InstallationKeys,
    pub(super) random: Random,
    held: Cache<KeyId, Arc<HeldKey>>,
    /// The present keys of a tenant, and the key of a subject by the row that says so, each with the version that the
    /// key's row had before that row was last read. May be stale: superseding a key or closing a subject gives the key's
    /// row another version, and a change set requires the one seen here, so a stale entry costs a failed commit, never a
    /// record under a key that goes.
    pub(super) tenants: Cache<TenantId, TenantKeyIds>,
    pub(super) subjects: Cache<RecordKey, (KeyId, u64)>,
    /// Rows of subjects who are on the list of erasures and whom this store does not have, because it was restored from a
    /// copy of before they came. They are as erased as the others.
    pub(super) barred: Mutex<HashSet<RecordKey>>,
}

/// The keys of a tenant that are in force.
#[derive(Clone, Copy)]
pub(super) struct TenantKeyIds {
    pub(super) key: KeyId,
    pub(super) log: KeyId,
    /// Of the row of `key`; `None`: not looked at yet.
    pub(super) version: Option<u64>,
}

/// An unwrapped key and whose it is.
pub(super) struct HeldKey {
    pub(super) key: Key,
    pub(super) owner: KeyOwner,
    /// Of the key's row; 0 for a root key, which has none.
    pub(super) version: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KeyOwner {
    Installation,
    Tenant {
        tenant: TenantId,
    },
    Subject {
        tenant: TenantId,
        subject: SubjectId,
    },
    /// Seals the tenant's events and audit records.
    Log {
        tenant: TenantId,
    },
}

/// How far the way from a key up to one at hand led.
enum Walk {
    Found(Arc<HeldKey>),
    Gone,
    /// The row of this key names a parent that is gone: a rotation may have moved it between the two reads.
    Orphan(KeyId, u64),
}

impl KeyOwner {
    /// Whether this key is the one for records of the tenant, or of its subject.
    pub(super) fn holds(&self, tenant: &TenantId, subject: Option<SubjectId>) -> bool {
        match self {
            Self::Tenant { tenant: of } => of == tenant && subject.is_none(),
            Self::Subject { tenant: of, subject: by } => of == tenant && subject == Some(*by),
            Self::Installation | Self::Log { .. } => false,
        }
    }

    /// Whether this key is the one for the tenant's events and audit records.
    pub(super) fn logs(&self, tenant: &TenantId) -> bool {
        matches!(self, Self::Log { tenant: of } if of == tenant)
    }
}

impl HeldKey {
    /// That the key has not been rewrapped, superseded or destroyed since it was read. Not for root keys, which have no
    /// rows: see [`Keyring::root`].
    pub(super) fn unmoved(&self) -> Precondition {
        Precondition { key: place::key_row(self.key.id()), expect: Expect::Version(self.version) }
    }

    pub(super) fn is_of_subject(&self) -> bool {
        matches!(self.owner, KeyOwner::Subject { .. })
    }
}

impl Keyring {
    pub(super) fn new(
        store: Arc<dyn Store>,
        roots: GivenRoots,
        ledger: LedgerAt,
        installation: InstallationKeys,
        random: Random,
    ) -> Self {
        Self {
            store,
            roots,
            ledger: ArcSwap::from_pointee(ledger),
            installation,
            random,
            held: Cache::new(CACHED_KEYS),
            tenants: Cache::new(CACHED_KEYS),
            barred: Mutex::default(),
            subjects: Cache::new(CACHED_KEYS),
        }
    }

    /// The root key in force, as last seen, and that it still is: what everything needs that is sealed under it.
    pub(super) fn root(&self) -> Result<(Arc<HeldKey>, Precondition), VaultError> {
        let ledger = self.ledger.load();
        let expect = Expect::Version(ledger.version);
        let root = self.roots.get(ledger.ledger.present().id)?;
        Ok((Arc::clone(root), Precondition { key: place::root_keys_row(), expect }))
    }

    /// Reads again which root key is in force.
    pub(super) async fn read_ledger(&self) -> Result<Arc<LedgerAt>, VaultError> {
        let ledger = Arc::new(read_ledger(self.store.as_ref(), &self.roots).await?);
        self.ledger.store(Arc::clone(&ledger));
        Ok(ledger)
    }

    /// The key that `sealed` names, for opening a field of `record`.
    pub(super) async fn key_of(&self, sealed: &Sealed, record: &RecordKey) -> Result<Arc<HeldKey>, VaultError> {
        let id = sealed_key_id(sealed).map_err(|_| VaultError::corrupt(record))?;
        self.key(id).await?.ok_or_else(|| VaultError::unsealable(record))
    }

    /// Forgets a key that turned out to have moved, so that it is read again.
    pub(super) fn forget(&self, held: &HeldKey) {
        self.held.remove(&held.key.id());
        match &held.owner {
            KeyOwner::Installation => {}
            KeyOwner::Tenant { tenant } | KeyOwner::Log { tenant } => {
                self.tenants.remove(tenant);
            }
            KeyOwner::Subject { tenant, subject } => {
                self.subjects.remove(&place::subject_row(&self.installation, tenant, *subject));
            }
        }
    }

    /// As [`Keyring::forget`], for a key of which only the name is known.
    pub(super) fn forget_id(&self, id: KeyId) {
        if let Some(held) = self.held.get(&id) {
            self.forget(&held);
        }
    }

    /// The same key as its row has it now, after that row turned out to have moved. `None`: it may not be sealed with any
    /// more, because it was destroyed or superseded.
    pub(super) async fn again(&self, held: &HeldKey) -> Result<Option<Arc<HeldKey>>, VaultError> {
        for _ in 0..LOOKS {
            self.forget(held);
            let Some(newer) = self.key(held.key.id()).await? else { return Ok(None) };
            if !self.is_in_force(&newer).await? {
                return Ok(None);
            }
            // Else somebody who had read the row before it moved has put what they read at hand.
            if newer.version != held.version {
                return Ok(Some(newer));
            }
        }
        Err(VaultError::Conflict { record: format!("{:?}", place::key_row(held.key.id())) })
    }

    async fn is_in_force(&self, held: &HeldKey) -> Result<bool, VaultError> {
        Ok(match &held.owner {
            KeyOwner::Tenant { tenant } => {
                self.read_tenant(tenant).await?.is_some_and(|(_, record)| record.key == held.key.id())
            }
            KeyOwner::Subject { tenant, subject } => !self.is_closed(tenant, *subject).await?,
            KeyOwner::Log { .. } => true,
            KeyOwner::Installation => false,
        })
    }

    /// `None` when the key's row is gone.
    pub(super) async fn key(&self, id: KeyId) -> Result<Option<Arc<HeldKey>>, VaultError> {
        let mut orphan = None;
        loop {
            match self.walk(id).await? {
                Walk::Found(held) => return Ok(Some(held)),
                Walk::Gone => return Ok(None),
                Walk::Orphan(child, version) if orphan == Some((child, version)) => {
                    return Err(VaultError::unsealable(&place::key_row(child)));
                }
                Walk::Orphan(child, version) => orphan = Some((child, version)),
            }
        }
    }

    async fn walk(&self, id: KeyId) -> Result<Walk, VaultError> {
        let mut wrapped: Vec<(KeyId, Arc<Row>)> = Vec::new();
        let mut next = id;
        let mut held = loop {
            if let Some(held) = self.roots.find(next).cloned().or_else(|| self.held.get(&next)) {
                break held;
            }
            let row_key = place::key_row(next);
            if wrapped.len() > DEEPEST {
                return Err(VaultError::corrupt(&row_key));
            }
            let Some(row) = witness::row(self.store.as_ref(), &row_key).await? else {
                return Ok(wrapped.last().map_or(Walk::Gone, |(child, row)| Walk::Orphan(*child, row.version)));
            };
            let sealed = row.field(FieldTag::Key).ok_or_else(|| VaultError::corrupt(&row_key))?;
            let parent = sealed_key_id(sealed).map_err(|_| VaultError::corrupt(&row_key))?;
            wrapped.push((next, row));
            next = parent;
        };
        for (id, row) in wrapped.into_iter().rev() {
            held = Arc::new(unwrap_row(&held, id, &row)?);
            self.held.insert(id, held.clone());
        }
        Ok(Walk::Found(held))
    }
}

/// Opens a key's row with its parent's key.
fn unwrap_row(parent: &HeldKey, id: KeyId, row: &Row) -> Result<HeldKey, VaultError> {
    let key = place::key_row(id);
    let missing = || VaultError::corrupt(&key);
    let owner: KeyOwner =
        records::open(&parent.key, &key, row.version, row.field(FieldTag::Record).ok_or_else(missing)?)?;
    let tenant = match (&owner, &parent.owner) {
        (KeyOwner::Tenant { tenant } | KeyOwner::Log { tenant }, KeyOwner::Installation) => tenant,
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
