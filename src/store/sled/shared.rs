//! What the readers and the writer thread share.

use std::sync::{
    Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use super::{
    cache::HotRows,
    copy::Copies,
    engine::{Engine, EngineError, guarded},
};
use crate::store::{Head, StoreError};

pub(super) struct Shared {
    /// The writer holds this alone from applying a group until the group is durable and the hot rows follow it, so
    /// nobody reads what is not durable. Whoever reads through it may keep what was read in `hot` before letting go of
    /// it; a row that a group is about to replace can't be kept after the group.
    engine: RwLock<Option<Engine>>,
    pub(super) hot: HotRows,
    pub(super) head: watch::Sender<Head>,
    pub(super) copies: Copies,
    /// No more change sets are taken.
    pub(super) closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(engine: Engine, hot: HotRows, head: Head) -> Arc<Self> {
        let (head, _) = watch::channel(head);
        Arc::new(Self {
            engine: RwLock::new(Some(engine)),
            hot,
            head,
            copies: Copies::default(),
            closing: AtomicBool::new(false),
        })
    }

    pub(super) fn is_available(&self) -> bool {
        self.head.borrow().available && !self.closing.load(Ordering::Acquire)
    }

    pub(super) fn set_available(&self, available: bool) {
        self.head.send_if_modified(|head| std::mem::replace(&mut head.available, available) != available);
    }

    /// Reads from sled; blocks. `Err(Unavailable)` also when this very read failed, and then the writer must be told.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Engine, &HotRows) -> Result<T, EngineError>,
    ) -> Result<T, StoreError> {
        let slot = self.reading();
        let engine = slot.as_ref().ok_or(StoreError::Unavailable)?;
        guarded(|| read(engine, &self.hot)).map_err(|error| match error {
            EngineError::Corrupt { row } => {
                tracing::error!(store.row = row, "a stored row is corrupt");
                StoreError::Corrupt { row }
            }
            EngineError::Failed { source } => {
                tracing::error!(error = %source, "the store failed while reading");
                // still under the lock: the writer cannot have opened a new handle in between
                self.set_available(false);
                StoreError::Unavailable
            }
        })
    }

    pub(super) fn reading(&self) -> RwLockReadGuard<'_, Option<Engine>> {
        // a panic while the lock was held left a handle that the writer replaces
        self.engine.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writing(&self) -> RwLockWriteGuard<'_, Option<Engine>> {
        self.engine.write().unwrap_or_else(PoisonError::into_inner)
    }
}
