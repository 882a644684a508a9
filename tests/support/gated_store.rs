//! A store whose readers of a subject's connections can be made to wait, and are counted.

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

pub(crate) struct GatedStore {
    inner: Arc<dyn Store>,
    gate: Gate,
}

/// Open until it is closed.
#[derive(Clone)]
pub(crate) struct Gate {
    closed: watch::Sender<bool>,
    /// Now, and the most that there ever were.
    reading: watch::Sender<(usize, usize)>,
}

impl GatedStore {
    pub(crate) fn over(inner: Arc<dyn Store>) -> (Self, Gate) {
        let gate = Gate { closed: watch::Sender::new(false), reading: watch::Sender::new((0, 0)) };
        (Self { inner, gate: gate.clone() }, gate)
    }
}

impl Gate {
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn open(&self) {
        self.closed.send_replace(false);
    }

    pub(crate) async fn reached_by(&self, readers: usize) {
        self.reading.subscribe().wait_for(|(now, _)| *now >= readers).await.unwrap();
    }

    pub(crate) fn most(&self) -> usize {
        self.reading.borrow().1
    }
}

impl Store for GatedStore {
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
        if index != IndexKind::ConnectionsOfSubject {
            return self.inner.index(index, prefix, after, limit);
        }
        Box::pin(async move {
            self.gate.reading.send_modify(|(now, most)| (*now, *most) = (*now + 1, (*most).max(*now + 1)));
            self.gate.closed.subscribe().wait_for(|closed| !closed).await.unwrap();
            let entries = self.inner.index(index, prefix, after, limit).await;
            self.gate.reading.send_modify(|(now, _)| *now -= 1);
            entries
        })
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

    fn watch_head(&self) -> watch::Receiver<Head> {
        self.inner.watch_head()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
