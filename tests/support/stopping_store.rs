//! A store that stops taking change sets, as a process that is killed does.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use claviger::{
    domain::{BoxFuture, Revision},
    store::{
        AuditEntry, ChangeSet, CommitError, Copying, EventEntry, Head, IndexEntry, IndexKind, Receipt, RecordKey, Row,
        Store, StoreError,
    },
};

pub(crate) struct StoppingStore {
    inner: Arc<dyn Store>,
    left: AtomicUsize,
}

impl StoppingStore {
    /// Takes `commits` change sets and none after them.
    pub(crate) fn after(inner: Arc<dyn Store>, commits: usize) -> Self {
        Self { inner, left: AtomicUsize::new(commits) }
    }
}

impl Store for StoppingStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match taken {
            Ok(_) => self.inner.commit(change),
            Err(_) => Box::pin(async { Err(CommitError::Unavailable) }),
        }
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

    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        self.inner.events(after, limit)
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
