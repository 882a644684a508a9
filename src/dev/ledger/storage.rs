//! Keeps the ledger: in memory, or in a file that is replaced before a change counts.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::{sync::Mutex, task};

use super::Ledger;
use crate::dev::state_file::{StateError, StateFile};
use crate::domain::Timestamp;

/// The ledger behind a lock. With a file, a change is on disk before anybody sees it.
#[derive(Clone)]
pub(in crate::dev) struct LedgerStore {
    ledger: Arc<RwLock<Ledger>>,
    file: Option<Arc<Mutex<StateFile>>>,
}

impl LedgerStore {
    pub(in crate::dev) fn in_memory() -> Self {
        Self { ledger: Arc::default(), file: None }
    }

    pub(in crate::dev) fn open(file: StateFile) -> Result<Self, StateError> {
        let ledger = file.read()?.unwrap_or_default();
        Ok(Self { ledger: Arc::new(RwLock::new(ledger)), file: Some(Arc::new(Mutex::new(file))) })
    }

    pub(in crate::dev) fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies `change` wholly or, when the file cannot be written, not at all. Once begun it is finished, whether or
    /// not the caller waits for it.
    pub(in crate::dev) async fn change<T: Send + 'static>(
        &self,
        now: Timestamp,
        change: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, StateError> {
        let Some(file) = &self.file else {
            let mut ledger = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
            ledger.sweep(now);
            return Ok(change(&mut ledger));
        };
        let file = file.clone().lock_owned().await;
        let ledger = self.ledger.clone();
        let written = task::spawn_blocking(move || {
            let mut next = ledger.read().unwrap_or_else(PoisonError::into_inner).clone();
            next.sweep(now);
            let outcome = change(&mut next);
            file.write(&next)?;
            *ledger.write().unwrap_or_else(PoisonError::into_inner) = next;
            Ok(outcome)
        });
        written.await.unwrap_or(Err(StateError::Interrupted))
    }
}
