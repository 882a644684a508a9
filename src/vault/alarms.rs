//! What can only be damage or an attack is told once, here.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Vault, VaultError};

/// How often something was found in the store that no change set of ours leaves there.
#[derive(Default)]
pub(super) struct Alarms(AtomicU64);

impl Vault {
    /// Since the vault was opened: fields that did not open, rows older than their witness, rows that are none.
    pub fn alarms(&self) -> u64 {
        self.alarms_raised().0.load(Ordering::Relaxed)
    }

    /// Raises an alarm when the error says that somebody, or a disk, has changed the store.
    pub(super) fn watched<T>(&self, result: Result<T, VaultError>) -> Result<T, VaultError> {
        if let Err(error) = &result
            && tell(error)
        {
            self.alarms_raised().0.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

/// Logs the error when it is an alarm; false: it is none.
pub(super) fn tell(error: &VaultError) -> bool {
    let name = name(error);
    if let Some(name) = name {
        tracing::error!(alarm = name, %error, "the store holds what was not written there");
    }
    name.is_some()
}

fn name(error: &VaultError) -> Option<&'static str> {
    match error {
        VaultError::Unsealable { .. } => Some("unsealable"),
        VaultError::RolledBack { .. } => Some("rolled_back"),
        VaultError::Corrupt { .. } => Some("corrupt"),
        VaultError::ErasureList { .. } => Some("erasure_list"),
        VaultError::Conflict { .. }
        | VaultError::PreconditionFailed { .. }
        | VaultError::Unavailable
        | VaultError::OutcomeUnknown
        | VaultError::TooLarge { .. }
        | VaultError::WrongRootKey { .. }
        | VaultError::InstallationMissing
        | VaultError::SubjectErased
        | VaultError::NoTokens { .. }
        | VaultError::NoNewRootKey { .. }
        | VaultError::KeyUnknown { .. }
        | VaultError::KeyInUse { .. }
        | VaultError::ErasuresUnwritten { .. }
        | VaultError::Random(_)
        | VaultError::Misuse(_) => None,
    }
}
