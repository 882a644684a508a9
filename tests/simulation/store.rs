//! The in-memory store as a process meets it: slow, unavailable, and cut off by a kill before or after a commit.

use std::sync::Arc;

use bytes::Bytes;
use claviger::{
    domain::{BoxFuture, Revision},
    store::{
        AuditEntry, ChangeSet, CommitError, Copying, EventEntry, Head, IndexEntry, IndexKind, Receipt, RecordKey, Row,
        Store, StoreError,
    },
};
use tokio::sync::watch;

use crate::world::World;

pub(crate) struct FaultyStore {
    world: Arc<World>,
    head: watch::Sender<Head>,
}

impl FaultyStore {
    pub(crate) fn over(world: Arc<World>) -> Arc<Self> {
        let head = Head { available: !world.is_store_down(), ..world.memory.head() };
        Arc::new(Self { world, head: watch::Sender::new(head) })
    }

    /// The store went away, or has come back.
    pub(crate) fn announce(&self) {
        self.head.send_replace(Head { available: !self.world.is_store_down(), ..self.world.memory.head() });
    }

    async fn read<T>(&self, read: BoxFuture<'_, Result<T, StoreError>>) -> Result<T, StoreError> {
        self.world.take_time_to_read().await;
        let read = if self.world.is_store_down() { Err(StoreError::Unavailable) } else { read.await };
        // What is read may be old when it is seen.
        self.world.take_time_to_read().await;
        read
    }

    async fn take(&self, change: ChangeSet) -> Result<Receipt, CommitError> {
        self.world.step("commit", false).await;
        self.world.take_time_to_write().await;
        if self.world.is_store_down() && !self.world.is_written_unseen() {
            return Err(CommitError::Unavailable);
        }
        let keys: Vec<RecordKey> = change.writes.iter().map(|write| write.key.clone()).collect();
        let receipt = self.world.memory.commit(change).await;
        self.world.trace(|| format!("commit of {} rows: {}", keys.len(), receipt.is_ok()));
        if let Ok(receipt) = &receipt {
            self.world.committed(&keys, receipt);
        }
        if self.world.is_store_down() {
            return Err(CommitError::Unavailable);
        }
        self.announce();
        self.world.step("committed", false).await;
        receipt
    }
}

impl Store for FaultyStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(self.take(change))
    }

    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Arc<Row>>, StoreError>> {
        Box::pin(self.read(self.world.memory.row(key)))
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        Box::pin(self.read(self.world.memory.index(index, prefix, after, limit)))
    }

    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        Box::pin(self.read(self.world.memory.events(after, limit)))
    }

    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(self.read(self.world.memory.audit(after, limit)))
    }

    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>> {
        self.world.memory.copy()
    }

    fn head(&self) -> Head {
        *self.head.borrow()
    }

    fn watch_head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
