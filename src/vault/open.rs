//! The vault itself.

use std::sync::Arc;

use super::{VaultError, alarms::Alarms, jobs::Planned, keyring::Keyring, records::OpenedRecords, roots};
use crate::{
    sealing::{AuditKey, InstallationKeys, Random, RootKeys},
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
        let (secret, ledger) = roots::open(store.as_ref(), &roots, &random).await?;
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
