use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot, watch};

use super::{
    OpenError, SledOptions,
    cache::HotRows,
    copy,
    engine::{Engine, EngineError},
    scan,
    shared::Shared,
    writer::{Request, Waiting, Writer},
};
use crate::{
    domain::{AuditLinker, BoxFuture, Revision},
    store::{
        AuditEntry, ChangeSet, CommitError, Copying, EventEntry, Head, IndexEntry, IndexKind, Receipt, RecordKey, Row,
        Store, StoreError, WriteAction,
    },
};

/// A [`Store`] in one directory. Dropping it and its copies ends its thread after what is waiting; [`Store::close`] also
/// waits for that, and only then is the directory free for another.
pub struct SledStore {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    /// A permit a KiB.
    room: Arc<Semaphore>,
    /// Closed when the thread has let go of the directory.
    ended: watch::Receiver<()>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SledStore {
    /// Opens the store, or creates it. `linker` links the audit records in commit order, on the writer thread.
    pub async fn open(options: SledOptions, linker: Box<dyn AuditLinker>) -> Result<Self, OpenError> {
        let (requests, inbox) = mpsc::channel();
        let (opened, is_open) = oneshot::channel();
        let (end, ended) = watch::channel(());
        let path = options.directory.clone();
        let unreadable = |source| OpenError::Unreadable { path: path.clone(), source };
        let thread = thread::Builder::new()
            .name("claviger-store".to_owned())
            .spawn(move || {
                let _end = end;
                match Writer::open(options, linker, inbox) {
                    Ok(writer) => {
                        if opened.send(Ok(writer.shared())).is_ok() {
                            writer.run();
                        }
                    }
                    // nobody is left to tell when the opener is gone
                    Err(error) => drop(opened.send(Err(error))),
                }
            })
            .map_err(unreadable)?;
        let shared = is_open.await.unwrap_or_else(|_| Err(unreadable(io::Error::other("the store's thread ended"))))?;
        let room = Arc::new(Semaphore::new(ROOM));
        Ok(Self { shared, requests, room, ended, thread: Mutex::new(Some(thread)) })
    }

    async fn enqueue(&self, change: ChangeSet) -> Result<Receipt, CommitError> {
        change.check()?;
        if !self.shared.is_available() {
            return Err(CommitError::Unavailable);
        }
        let unavailable = |_| CommitError::Unavailable;
        let room = Arc::clone(&self.room).acquire_many_owned(weight(&change)).await.map_err(unavailable)?;
        let (answer, answered) = oneshot::channel();
        let request = Request::Commit(Waiting { change, answer, room });
        self.requests.send(request).map_err(|_| CommitError::Unavailable)?;
        answered.await.unwrap_or(Err(CommitError::Unavailable))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine, &HotRows) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader().read(read).await
    }

    fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared), requests: self.requests.clone() }
    }

    fn ready(&self) -> Result<(), StoreError> {
        if self.shared.is_available() { Ok(()) } else { Err(StoreError::Unavailable) }
    }
}

impl Store for SledStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(self.enqueue(change))
    }

    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Arc<Row>>, StoreError>> {
        Box::pin(async move {
            self.ready()?;
            if let Some(row) = self.shared.hot.row(&key) {
                return Ok(Some(row));
            }
            self.read(|engine, hot| scan::row(engine, hot, key)).await
        })
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        Box::pin(async move {
            self.ready()?;
            if let Some(page) = self.shared.hot.page(index, &prefix) {
                let later = page.iter().filter(|entry| after.as_ref().is_none_or(|after| entry.key > *after));
                return Ok(later.take(limit).cloned().collect());
            }
            self.read(move |engine, hot| scan::index(engine, hot, index, prefix, after.as_ref(), limit)).await
        })
    }

    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        Box::pin(async move {
            self.ready()?;
            self.read(move |engine, _| scan::events(engine, after, limit)).await
        })
    }

    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(async move {
            self.ready()?;
            self.read(move |engine, _| scan::audit(engine, after, limit)).await
        })
    }

    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>> {
        Box::pin(async move {
            self.ready()?;
            Ok(copy::begin(self.reader()))
        })
    }

    fn head(&self) -> Head {
        *self.shared.head.borrow()
    }

    fn watch_head(&self) -> watch::Receiver<Head> {
        self.shared.head.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.closing.store(true, Ordering::Release);
            // refused when the thread has ended already
            let _ = self.requests.send(Request::Close);
            let mut ended = self.ended.clone();
            while ended.changed().await.is_ok() {}
            self.room.close();
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if thread.is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("the store's thread panicked");
            }
        })
    }
}

/// Reads off the async threads.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    requests: Sender<Request>,
}

impl Reader {
    /// Runs a read that may wait for the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Engine, &HotRows) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Self { shared, requests } = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = shared.read(read);
            if matches!(result, Err(StoreError::Unavailable)) {
                // after the end of the thread there is nobody to tell
                let _ = requests.send(Request::Reopen);
            }
            result
        });
        done.await.unwrap_or(Err(StoreError::Unavailable))
    }
}

/// The permits that a waiting change set takes.
fn weight(change: &ChangeSet) -> u32 {
    let fields = change.writes.iter().map(|write| match &write.action {
        WriteAction::Put { fields, .. } => fields.iter().map(|(_, sealed)| sealed.as_bytes().len()).sum(),
        WriteAction::Delete => 0,
    });
    let entries = change.events.iter().chain(&change.audit).map(|entry| entry.body.as_bytes().len());
    let index = change.writes.iter().map(|write| 256 * write.index().len());
    let bytes: usize = fields.chain(entries).chain(index).sum();
    u32::try_from((1 + bytes / 1024).min(ROOM)).expect("the room is less than 4 Ti permits")
}

/// KiB of change sets that wait for the writer. Who comes later waits for room in order, with nothing of theirs taken in,
/// so callers that give up on a slow disk and come again do not add up. A group takes the same several times over while
/// it is judged and written.
const ROOM: usize = 16 * 1024;
