//! A store whose log takes a while to read, and cannot be read while a test says so.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use claviger::{
    domain::{BoxFuture, Revision},
    store::{
        AuditEntry, ChangeSet, CommitError, Copying, EventEntry, Head, IndexEntry, IndexKind, Receipt, RecordKey, Row,
        Store, StoreError,
    },
};

pub(crate) struct SlowLog {
    inner: Arc<dyn Store>,
    failing: AtomicBool,
}

impl SlowLog {
    pub(crate) fn over(inner: Arc<dyn Store>) -> Self {
        Self { inner, failing: AtomicBool::new(false) }
    }

    pub(crate) fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }
}

impl Store for SlowLog {
    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        Box::pin(async move {
            // Nothing that is read from a disk is there at once.
            tokio::task::yield_now().await;
            if self.failing.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable);
            }
            self.inner.events(after, limit).await
        })
    }

    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        self.inner.commit(change)
    }

    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Arc<Row>>, StoreError>> {
        self.inner.row(key)
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        self.inner.index(index, prefix, after, limit)
    }

    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        self.inner.audit(after, limit)
    }

    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>> {
        self.inner.copy()
    }

    fn head(&self) -> Head {
        self.inner.head()
    }

    fn watch_head(&self) -> tokio::sync::watch::Receiver<Head> {
        self.inner.watch_head()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
