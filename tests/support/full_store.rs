//! A store whose disk is full, or changed behind its back, when a test says so.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use claviger::{
    domain::{BoxFuture, Revision},
    store::{
        AuditEntry, ChangeSet, CommitError, Copying, EventEntry, Head, IndexEntry, IndexKind, Receipt, RecordKey, Row,
        Store, StoreError,
    },
};
use tokio::sync::{oneshot, watch};

/// Passes everything on until it is told otherwise.
pub(crate) struct FullStore {
    inner: Arc<dyn Store>,
    full: AtomicBool,
    head: watch::Sender<Head>,
    /// The audit record with this number is read with a bit flipped; 0: none.
    spoiled: AtomicU64,
    /// The next commit is made, and answered as if nobody knew.
    forgetful: AtomicBool,
    /// Where the next commit says that it is there, and waits.
    pause: Mutex<Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>>,
}

impl FullStore {
    pub(crate) fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        let head = watch::Sender::new(inner.head());
        Arc::new(Self {
            inner,
            full: AtomicBool::new(false),
            spoiled: AtomicU64::new(0),
            forgetful: AtomicBool::new(false),
            head,
            pause: Mutex::default(),
        })
    }

    /// The next commit sends on the first channel and waits for the second; others pass it.
    pub(crate) fn pause_next_commit(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((arrived, there), (release, released)) = (oneshot::channel(), oneshot::channel());
        *self.pause.lock().unwrap() = Some((arrived, released));
        (there, release)
    }

    pub(crate) fn forget_next_commit(&self) {
        self.forgetful.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    pub(crate) fn spoil_audit(&self, sequence: u64) {
        self.spoiled.store(sequence, Ordering::SeqCst);
    }

    pub(crate) fn empty(&self) {
        self.full.store(false, Ordering::SeqCst);
        self.head.send_replace(self.inner.head());
    }
}

impl Store for FullStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Err(CommitError::Unavailable);
            }
            let pause = self.pause.lock().unwrap().take();
            if let Some((arrived, released)) = pause {
                arrived.send(()).unwrap();
                released.await.unwrap();
            }
            let receipt = self.inner.commit(change).await?;
            self.head.send_replace(self.inner.head());
            if self.forgetful.swap(false, Ordering::SeqCst) {
                return Err(CommitError::Unavailable);
            }
            Ok(receipt)
        })
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
        Box::pin(async move {
            let mut entries = self.inner.audit(after, limit).await?;
            let spoiled = self.spoiled.load(Ordering::SeqCst);
            for entry in entries.iter_mut().filter(|entry| entry.sequence == spoiled) {
                let mut linked = entry.linked.to_vec();
                *linked.last_mut().expect("a linked record ends with its body") ^= 1;
                entry.linked = linked.into();
            }
            Ok(entries)
        })
    }

    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>> {
        self.inner.copy()
    }

    fn head(&self) -> Head {
        *self.head.borrow()
    }

    fn watch_head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.inner.close().await;
            self.head.send_replace(self.inner.head());
        })
    }
}
