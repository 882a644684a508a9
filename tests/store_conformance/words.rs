//! Change sets in short, and stores to try them on.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use claviger::{
    domain::{AuditLinker, EntryId, InstallationId, Revision, Sealed},
    store::{
        ChangeSet, Expect, FieldTag, IndexEntry, IndexKind, NewEntry, Precondition, Purge, Receipt, RecordKey,
        RecordKind, RowFields, Store, Write,
        change::LINK_ROOM,
        sled::{OpenError, SledOptions, SledStore},
    },
};
use tempfile::TempDir;

use crate::{full_store::FullStore, memory_store::MemoryStore, tampering_store::TamperingStore};

pub(crate) const INSTALLATION: InstallationId = InstallationId::from_bytes([7; 16]);
pub(crate) const EPOCH: EntryId = EntryId::from_bytes([8; 16]);

pub(crate) type AnyStore = Arc<dyn Store>;

pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    _directory: Option<TempDir>,
}

pub(crate) async fn open_memory() -> Opened {
    Opened { store: Arc::new(MemoryStore::new(INSTALLATION, EPOCH, Box::new(Chain))), _directory: None }
}

/// Memory behind the store that a test can fill.
pub(crate) async fn open_full_store() -> Opened {
    Opened { store: FullStore::over(open_memory().await.store), _directory: None }
}

/// Memory behind the store that a test can tamper with.
pub(crate) async fn open_tampering_store() -> Opened {
    Opened { store: Arc::new(TamperingStore::over(open_memory().await.store)), _directory: None }
}

pub(crate) async fn open_sled() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open_at(directory.path()).await.unwrap());
    Opened { store, _directory: Some(directory) }
}

pub(crate) async fn open_sled_without_cache() -> Opened {
    let directory = tempfile::tempdir().unwrap();
    let options = SledOptions { row_cache: 0, ..options(directory.path()) };
    let store = Arc::new(SledStore::open(options, Box::new(Chain)).await.unwrap());
    Opened { store, _directory: Some(directory) }
}

pub(crate) async fn open_at(directory: &Path) -> Result<SledStore, OpenError> {
    SledStore::open(options(directory), Box::new(Chain)).await
}

pub(crate) fn options(directory: &Path) -> SledOptions {
    SledOptions {
        directory: directory.join("store"),
        page_cache: 16 << 20,
        row_cache: 1 << 20,
        installation: INSTALLATION,
        epoch: EPOCH,
    }
}

/// Links a record to all before it: number, hash over number, previous form and body. Takes more room than it may for
/// a body that begins with [`GREEDY`].
pub(crate) struct Chain;

impl AuditLinker for Chain {
    fn link(&self, sequence: u64, previous: Option<&[u8]>, body: &Sealed) -> Vec<u8> {
        let mut hasher = DefaultHasher::new();
        (sequence, previous, &body.as_bytes()[..]).hash(&mut hasher);
        let more = if body.as_bytes().starts_with(GREEDY.as_bytes()) { LINK_ROOM } else { 0 };
        [&sequence.to_be_bytes()[..], &hasher.finish().to_be_bytes(), &vec![0; more], body.as_bytes()].concat()
    }
}

pub(crate) const GREEDY: &str = "a greedy link";

pub(crate) fn key(id: u8) -> RecordKey {
    RecordKey::new(RecordKind::Connection, [id; 16])
}

pub(crate) fn fields(text: &str) -> RowFields {
    vec![
        (FieldTag::Record, sealed(text.as_bytes())),
        (FieldTag::AccessToken, sealed(format!("access {text}").as_bytes())),
    ]
}

pub(crate) fn sealed(bytes: &[u8]) -> Sealed {
    Sealed::from_bytes(Bytes::copy_from_slice(bytes))
}

pub(crate) fn entry(id: u8, body: &str) -> NewEntry {
    NewEntry { id: EntryId::from_bytes([id; 16]), body: sealed(body.as_bytes()) }
}

/// An entry of `ConnectionsOfSubject` for the record `id`.
pub(crate) fn listed(id: u8, key: &str) -> IndexEntry {
    IndexEntry {
        index: IndexKind::ConnectionsOfSubject,
        key: Bytes::copy_from_slice(key.as_bytes()),
        record: self::key(id),
        value: Bytes::from_static(b"value"),
    }
}

/// The keys under `prefix` in `ConnectionsOfSubject`.
pub(crate) async fn listing(store: &dyn Store, prefix: &str) -> Vec<String> {
    page(store, prefix, None, usize::MAX).await
}

pub(crate) async fn page(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let entries = store.index(IndexKind::ConnectionsOfSubject, bytes(prefix), after.map(bytes), limit).await.unwrap();
    entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).unwrap()).collect()
}

/// A change set, grown word by word.
#[derive(Default)]
pub(crate) struct Set(pub(crate) ChangeSet);

impl Set {
    pub(crate) fn create(self, id: u8, text: &str) -> Self {
        self.write(Write::put(key(id), Expect::Absent, fields(text), Vec::new()))
    }

    pub(crate) fn replace(self, id: u8, version: u64, text: &str) -> Self {
        self.write(Write::put(key(id), Expect::Version(version), fields(text), Vec::new()))
    }

    pub(crate) fn delete(self, id: u8, version: u64) -> Self {
        self.write(Write::delete(key(id), version))
    }

    pub(crate) fn list(self, id: u8, expect: Expect, keys: &[&str]) -> Self {
        let index = keys.iter().map(|key| listed(id, key)).collect();
        self.write(Write::put(key(id), expect, fields("listed"), index))
    }

    pub(crate) fn needs(mut self, id: u8, expect: Expect) -> Self {
        self.0.preconditions.push(Precondition { key: key(id), expect });
        self
    }

    pub(crate) fn event(mut self, id: u8, body: &str) -> Self {
        self.0.events.push(entry(id, body));
        self
    }

    pub(crate) fn audit(mut self, id: u8, body: &str) -> Self {
        self.0.audit.push(entry(id, body));
        self
    }

    pub(crate) fn purge(mut self, events: u64, audit: u64) -> Self {
        self.0.purge = Purge { events: Revision(events), audit };
        self
    }

    pub(crate) fn write(mut self, write: Write) -> Self {
        self.0.writes.push(write);
        self
    }

    /// Commits, which must succeed.
    pub(crate) async fn on(self, store: &dyn Store) -> Receipt {
        store.commit(self.0).await.unwrap()
    }
}

/// Starts the future, and answers if it is done at once.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
