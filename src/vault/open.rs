//! The vault itself.

use std::sync::Arc;

use super::{
    VaultError,
    alarms::{self, Alarms},
    jobs::Planned,
    keyring::Keyring,
    records::OpenedRecords,
    roots,
};
use crate::{
    domain::{KeyId, Sealed},
    sealing::{AssociatedData, AuditKey, InstallationKeys, Key, Random, RootKeys},
    store::Store,
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
    alarms: Alarms,
}

impl Vault {
    /// Opens the installation's secret with the root key that it names, making it in a new store under the newest, and
    /// sets `audit_key`, which the store's linker was given before.
    ///
    /// # Errors
    /// [`VaultError::WrongRootKey`] when rows are sealed under a root key that was not given.
    pub async fn open(
        store: Arc<dyn Store>,
        roots: impl Into<RootKeys>,
        random: Random,
        audit_key: &AuditKey,
    ) -> Result<Self, VaultError> {
        let roots = roots::GivenRoots::new(roots.into());
        let (secret, ledger) = roots::open(store.as_ref(), &roots, &random).await.inspect_err(|error| {
            alarms::tell(error);
        })?;
        let keys = secret.keys();
        audit_key.set(&keys);
        let keyring = Keyring::new(store.clone(), roots, ledger, keys.clone(), random.clone());
        Ok(Self(Arc::new(Inner {
            store,
            keys,
            random,
            keyring,
            planned: Planned::default(),
            opened: OpenedRecords::default(),
            alarms: Alarms::default(),
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

    /// The root key in force, as last seen.
    pub fn root_key(&self) -> Result<KeyId, VaultError> {
        Ok(self.0.keyring.root()?.0.key.id())
    }

    /// Seals a key of the caller's under the root key in force, for what leaves the store as a whole.
    pub fn wrap_under_root(&self, place: &AssociatedData<'_>, key: &Key) -> Result<Sealed, VaultError> {
        Ok(self.0.keyring.root()?.0.key.wrap(place, key, &self.0.random)?)
    }

    pub(super) fn planned(&self) -> &Planned {
        &self.0.planned
    }

    pub(super) fn opened(&self) -> &OpenedRecords {
        &self.0.opened
    }

    pub(super) fn alarms_raised(&self) -> &Alarms {
        &self.0.alarms
    }

    pub(super) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }
}
