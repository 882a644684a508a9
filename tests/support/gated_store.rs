//! A store whose readers of a subject's connections can be made to wait, and are counted; and any one read of which can
//! be held, before it is answered or after.

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
    hold: watch::Sender<Hold>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    All,
    OfTheLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    /// After so many others.
    Awaited(Reads, usize, Side),
    Begun,
    Reached,
}

impl GatedStore {
    pub(crate) fn over(inner: Arc<dyn Store>) -> (Self, Gate) {
        let gate = Gate {
            closed: watch::Sender::new(false),
            reading: watch::Sender::new((0, 0)),
            hold: watch::Sender::new(Hold::None),
        };
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

    /// Holds one read, after so many that are not.
    pub(crate) fn hold(&self, reads: Reads, others: usize, side: Side) {
        self.hold.send_replace(Hold::Awaited(reads, others, side));
    }

    /// Returns once it is held.
    pub(crate) async fn held(&self) {
        self.hold.subscribe().wait_for(|hold| *hold == Hold::Reached).await.unwrap();
    }

    pub(crate) fn release(&self) {
        self.hold.send_replace(Hold::None);
    }

    async fn pass<T>(&self, kind: Reads, read: impl Future<Output = T>) -> T {
        let mut side = None;
        self.hold.send_if_modified(|hold| {
            match *hold {
                Hold::Awaited(reads, 0, at) if reads == Reads::All || reads == kind => {
                    (side, *hold) = (Some(at), Hold::Begun);
                }
                Hold::Awaited(reads, others, at) if reads == Reads::All || reads == kind => {
                    *hold = Hold::Awaited(reads, others - 1, at);
                }
                _ => {}
            }
            false
        });
        if side == Some(Side::Before) {
            self.wait().await;
        }
        let answer = read.await;
        if side == Some(Side::After) {
            self.wait().await;
        }
        answer
    }

    async fn wait(&self) {
        // Unless it was given up meanwhile.
        self.hold.send_if_modified(|hold| {
            std::mem::replace(hold, Hold::Reached) == Hold::Begun || {
                *hold = Hold::None;
                false
            }
        });
        self.hold.subscribe().wait_for(|hold| *hold == Hold::None).await.unwrap();
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
        Box::pin(self.gate.pass(Reads::All, self.inner.row(key)))
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        if index != IndexKind::ConnectionsOfSubject {
            return Box::pin(self.gate.pass(Reads::All, self.inner.index(index, prefix, after, limit)));
        }
        Box::pin(async move {
            self.gate.reading.send_modify(|(now, most)| (*now, *most) = (*now + 1, (*most).max(*now + 1)));
            self.gate.closed.subscribe().wait_for(|closed| !closed).await.unwrap();
            let entries = self.gate.pass(Reads::All, self.inner.index(index, prefix, after, limit)).await;
            self.gate.reading.send_modify(|(now, _)| *now -= 1);
            entries
        })
    }

    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        Box::pin(self.gate.pass(Reads::OfTheLog, self.inner.events(after, limit)))
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
