//! The vault itself, and the installation's secret, made once and kept wrapped under the root key.

use std::sync::Arc;

use super::{VaultError, jobs::Planned, keyring::Keyring, place, records::OpenedRecords};
use crate::{
    domain::{Revision, Sealed},
    sealing::{
        AssociatedData, AuditKey, InstallationKeys, InstallationSecret, Key, Random, RandomUnavailable, RootKey,
        sealed_key_id,
    },
    store::{ChangeSet, CommitError, Expect, FieldTag, Row, Store, Write},
};

/// Sealed records over a store. Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    keys: InstallationKeys,
    random: Random,
    keyring: Keyring,
    planned: Planned,
    opened: OpenedRecords,
}

impl Vault {
    /// Opens the installation's secret with the root key, making it in a new store, and sets `audit_key`, which the
    /// store's linker was given before.
    pub async fn open(
        store: Arc<dyn Store>,
        root: RootKey,
        random: Random,
        audit_key: &AuditKey,
    ) -> Result<Self, VaultError> {
        let keys = installation(store.as_ref(), &root, &random).await?.keys();
        audit_key.set(&keys);
        let keyring = Keyring::new(store.clone(), root, keys.clone(), random.clone());
        Ok(Self(Arc::new(Inner {
            store,
            keys,
            random,
            keyring,
            planned: Planned::default(),
            opened: OpenedRecords::default(),
        })))
    }

    pub fn keys(&self) -> &InstallationKeys {
        &self.0.keys
    }

    pub fn random(&self) -> &Random {
        &self.0.random
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Seals a key of the caller's under the root key in force, for what leaves the store as a whole.
    pub fn wrap_under_root(&self, place: &AssociatedData<'_>, key: &Key) -> Result<Sealed, RandomUnavailable> {
        self.0.keyring.root().wrap(place, key, &self.0.random)
    }

    pub(super) fn planned(&self) -> &Planned {
        &self.0.planned
    }

    pub(super) fn opened(&self) -> &OpenedRecords {
        &self.0.opened
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }
}

async fn installation(store: &dyn Store, root: &RootKey, random: &Random) -> Result<InstallationSecret, VaultError> {
    // Read before the row: the secret is the first thing ever written, so a log without it has lost it.
    let written = store.head().revision > Revision::default();
    let key = place::installation_row();
    if let Some(row) = store.row(key.clone()).await? {
        return unwrap(root, &row);
    }
    if written {
        return Err(VaultError::InstallationMissing);
    }
    let secret = InstallationSecret::generate(random)?;
    let wrapped = secret.wrap(root.key(), &place::field(&key, FieldTag::Key, 1), random)?;
    let put = Write::put(key.clone(), Expect::Absent, vec![(FieldTag::Key, wrapped)], vec![]);
    match store.commit(ChangeSet { writes: vec![put], ..ChangeSet::default() }).await {
        Ok(_) => Ok(secret),
        Err(CommitError::Conflict { .. }) => {
            let row = store.row(key.clone()).await?.ok_or_else(|| VaultError::corrupt(&key))?;
            unwrap(root, &row)
        }
        Err(error) => Err(error.into()),
    }
}

fn unwrap(root: &RootKey, row: &Row) -> Result<InstallationSecret, VaultError> {
    let key = place::installation_row();
    let wrapped = row.field(FieldTag::Key).ok_or_else(|| VaultError::corrupt(&key))?;
    let expected = sealed_key_id(wrapped).map_err(|_| VaultError::corrupt(&key))?;
    if expected != root.id() {
        return Err(VaultError::WrongRootKey { expected, given: root.id() });
    }
    InstallationSecret::unwrap_secret(root.key(), &place::field(&key, FieldTag::Key, row.version), wrapped)
        .map_err(|_| VaultError::unsealable(&key))
}
