//! Which root keys were and are in force, and the installation's secret, kept wrapped under the present one.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    VaultError,
    keyring::{HeldKey, KeyOwner},
    place, records, witness,
};
use crate::{
    domain::{KeyId, Revision, Timestamp},
    sealing::{InstallationSecret, Key, Random, RandomUnavailable, RootKey, RootKeys, sealed_key_id},
    store::{ChangeSet, CommitError, Expect, FieldTag, IndexEntry, IndexKind, RecordKey, Row, Store, Write},
};

/// The root keys that the process was given, newest first.
pub(super) struct GivenRoots(Vec<Arc<HeldKey>>);

/// The history of the root keys, oldest first, never empty; the last is in force.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RootLedger {
    pub(super) roots: Vec<RootEntry>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RootEntry {
    pub(super) id: KeyId,
    /// When it came into force; `None` for the first, which came with the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) superseded: Option<Superseded>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retired_at: Option<Timestamp>,
}

/// The durable mark of a rotation: when it was asked for, and how many rows there were to move. How many are left, the
/// index says.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Superseded {
    pub(super) at: Timestamp,
    pub(super) begun: u64,
}

/// The ledger as a row of this version had it.
pub(super) struct LedgerAt {
    pub(super) version: u64,
    pub(super) ledger: RootLedger,
}

impl GivenRoots {
    pub(super) fn new(roots: RootKeys) -> Self {
        let held =
            |root: RootKey| Arc::new(HeldKey { key: root.into_key(), owner: KeyOwner::Installation, version: 0 });
        Self(roots.into_iter().map(held).collect())
    }

    pub(super) fn newest(&self) -> &Arc<HeldKey> {
        self.0.first().expect("root keys are at least one")
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&Arc<HeldKey>> {
        self.0.iter().find(|root| root.key.id() == id)
    }

    /// # Errors
    /// [`VaultError::WrongRootKey`] when it was not given.
    pub(super) fn get(&self, expected: KeyId) -> Result<&Arc<HeldKey>, VaultError> {
        let given = || self.0.iter().map(|root| root.key.id()).collect();
        self.find(expected).ok_or_else(|| VaultError::WrongRootKey { expected, given: given() })
    }
}

impl RootLedger {
    pub(super) fn present(&self) -> &RootEntry {
        self.roots.last().expect("a ledger begins with the root key that it was made under")
    }

    /// Those that other rows may still be sealed under.
    pub(super) fn superseded(&self) -> impl Iterator<Item = (&RootEntry, Superseded)> {
        let open = self.roots.iter().filter(|root| root.retired_at.is_none());
        open.filter_map(|root| Some((root, root.superseded?)))
    }

    /// The row, sealed under the root key in force.
    pub(super) fn write(&self, root: &Key, expect: Expect, random: &Random) -> Result<Write, RandomUnavailable> {
        let (row, version) = (place::root_keys_row(), expect.next_version());
        let field = (FieldTag::Record, records::seal(root, &row, version, self, random)?);
        let index = IndexEntry::sealed_under(root.id(), row.clone(), Some(version));
        Ok(Write::put(row, expect, vec![field], vec![index]))
    }
}

/// Opens what the root keys protect, or makes it in a new store under the newest of them.
pub(super) async fn open(
    store: &dyn Store,
    roots: &GivenRoots,
    random: &Random,
) -> Result<(InstallationSecret, LedgerAt), VaultError> {
    // Read before the row: the secret is the first thing ever written, so a log without it has lost it.
    let written = store.head().revision > Revision::default();
    let key = place::installation_row();
    let row = match witness::row(store, &key).await? {
        Some(row) => row,
        None if written => return Err(VaultError::InstallationMissing),
        None => {
            create(store, roots, random).await?;
            store.row(key.clone()).await?.ok_or_else(|| VaultError::corrupt(&key))?
        }
    };
    let secret = unwrap(roots, &row)?;
    let ledger = read_ledger(store, roots).await?;
    for (root, _) in ledger.ledger.superseded() {
        if roots.find(root.id).is_none() && live(store, root.id, 1).await? > 0 {
            roots.get(root.id)?;
        }
    }
    Ok((secret, ledger))
}

/// A lost race is no error: whoever won made the secret.
async fn create(store: &dyn Store, roots: &GivenRoots, random: &Random) -> Result<(), VaultError> {
    let root = &roots.newest().key;
    let secret = InstallationSecret::generate(random)?;
    let ledger =
        RootLedger { roots: vec![RootEntry { id: root.id(), since: None, superseded: None, retired_at: None }] };
    let writes =
        vec![write_secret(&secret, root, Expect::Absent, random)?, ledger.write(root, Expect::Absent, random)?];
    match store.commit(ChangeSet { writes, ..ChangeSet::default() }).await {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn write_secret(
    secret: &InstallationSecret,
    root: &Key,
    expect: Expect,
    random: &Random,
) -> Result<Write, RandomUnavailable> {
    let (key, version) = (place::installation_row(), expect.next_version());
    let wrapped = secret.wrap(root, &place::field(&key, FieldTag::Key, version), random)?;
    let index = IndexEntry::sealed_under(root.id(), key.clone(), Some(version));
    Ok(Write::put(key, expect, vec![(FieldTag::Key, wrapped)], vec![index]))
}

fn unwrap(roots: &GivenRoots, row: &Row) -> Result<InstallationSecret, VaultError> {
    let key = place::installation_row();
    let wrapped = row.field(FieldTag::Key).ok_or_else(|| VaultError::corrupt(&key))?;
    let expected = sealed_key_id(wrapped).map_err(|_| VaultError::corrupt(&key))?;
    let root = roots.get(expected)?;
    InstallationSecret::unwrap_secret(&root.key, &place::field(&key, FieldTag::Key, row.version), wrapped)
        .map_err(|_| VaultError::unsealable(&key))
}

pub(super) async fn read_ledger(store: &dyn Store, roots: &GivenRoots) -> Result<LedgerAt, VaultError> {
    let key = place::root_keys_row();
    let row = witness::row(store, &key).await?.ok_or_else(|| VaultError::corrupt(&key))?;
    let sealed = row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(&key))?;
    let expected = sealed_key_id(sealed).map_err(|_| VaultError::corrupt(&key))?;
    let root = roots.get(expected)?;
    let ledger: RootLedger = records::open(&root.key, &key, row.version, sealed)?;
    match ledger.roots.last() {
        Some(present) if present.id == expected => Ok(LedgerAt { version: row.version, ledger }),
        _ => Err(VaultError::corrupt(&key)),
    }
}

/// How many rows are sealed under a key; stops counting at `most`.
pub(super) async fn live(store: &dyn Store, key: KeyId, most: u64) -> Result<u64, VaultError> {
    let (mut count, mut after) = (0, None);
    while count < most {
        let page = under(store, key, after, PAGE).await?;
        count += page.len() as u64;
        if page.len() < PAGE {
            break;
        }
        after = page.into_iter().last().map(|entry| entry.key);
    }
    Ok(count.min(most))
}

/// Rows that are sealed under a key, by kind and id.
pub(super) async fn under(
    store: &dyn Store,
    key: KeyId,
    after: Option<Bytes>,
    limit: usize,
) -> Result<Vec<IndexEntry>, VaultError> {
    let prefix = Bytes::copy_from_slice(key.as_bytes());
    Ok(store.index(IndexKind::SealedUnder, prefix, after, limit).await?)
}

/// The id in a key's row.
pub(super) fn key_named_by(record: &RecordKey) -> Option<KeyId> {
    record.id().as_ref().try_into().ok().map(KeyId::from_bytes)
}

const PAGE: usize = 1024;
