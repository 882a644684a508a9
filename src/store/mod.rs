//! The store: atomic, durable change sets and typed reads. It sees only sealed bytes and keyed hashes.
//!
//! - [`change`]: what is written together · [`key`]: how rows are found · [`codec`]: how they look as bytes
//! - [`copy`]: all of it as of one revision · [`sled`]: the embedded store

pub mod change;
pub mod codec;
pub mod copy;
pub mod key;
pub mod sled;

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{BoxFuture, EntryId, InstallationId, Revision, Sealed};

pub use change::{ChangeSet, Expect, NewEntry, Precondition, Purge, Receipt, Row, RowFields, Write, WriteAction};
pub use copy::{Copied, CopiedRow, CopyError, Copying};
pub use key::{FieldTag, IndexEntry, IndexKind, RecordKey, RecordKind};

/// What every store promises; `tests/store_conformance.rs` holds each sentence as a test.
pub trait Store: Send + Sync + 'static {
    /// Commits the whole change set or nothing of it. When it returns `Ok`, the change set is durable, visible to
    /// every later read and announced to [`Store::watch_head`]. Of several racing change sets each is judged against
    /// those committed before it, and a refusal concerns only the refused one.
    ///
    /// [`CommitError::Unavailable`] means that the outcome is unknown and must be read back; every other error means
    /// that nothing was written. A dropped future does not take the change set back. While others wait, this one
    /// waits for room, in order.
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>>;

    /// The row, or `None` when there is none. Never shows a write that is not durable. A store that keeps rows at hand
    /// gives out the one that it keeps, so the same `Arc` twice means that nothing was written in between.
    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Arc<Row>>, StoreError>>;

    /// Entries of one index whose key starts with `prefix`, in key order, strictly after `after` (an entry's whole
    /// key), at most `limit`. An entry that was deleted between two pages does not disturb the second.
    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>>;

    /// Event entries with a revision greater than `after`, oldest first, whole revisions only, stopping after the
    /// revision that reaches `limit` entries. One that is damaged is among them, with an empty body.
    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>>;

    /// Audit entries with a sequence number greater than `after`, oldest first, at most `limit`.
    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>>;

    /// Takes a copy of everything as of one revision, which is none before the call's, while writing goes on. The
    /// copy is read as it is asked for, and keeps neither its rows nor the writers waiting. A corrupt row ends it, but for an event:
    /// that is left out.
    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>>;

    /// Where the log stands, as of the last durable change set.
    fn head(&self) -> Head;

    /// Follows [`Store::head`]: changes after every durable commit, and when the store becomes (un)available.
    fn watch_head(&self) -> tokio::sync::watch::Receiver<Head>;

    /// Finishes what is waiting and closes the store. Afterwards every call answers `Unavailable`.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Where a store stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub installation: InstallationId,
    /// Drawn anew when the store is restored from a copy, so that watchers do not trust old positions.
    pub epoch: EntryId,
    /// The newest durable revision.
    pub revision: Revision,
    /// Events up to and including this revision are gone.
    pub compacted: Revision,
    /// The newest audit record's number; 0 before the first.
    pub audit: u64,
    /// Audit records up to and including this number are gone.
    pub audit_purged: u64,
    /// False after an I/O error until the store has been reopened.
    pub available: bool,
}

/// An event as stored: its place, and its sealed content.
#[derive(Clone, PartialEq, Eq)]
pub struct EventEntry {
    pub revision: Revision,
    /// Position within the revision, from 0.
    pub index: u32,
    pub id: EntryId,
    pub body: Sealed,
}

/// An audit record as stored, in the linker's form.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub sequence: u64,
    pub id: EntryId,
    pub linked: Bytes,
}

/// A read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store had an I/O error and is being reopened, or is closed.
    #[error("the store is unavailable")]
    Unavailable,
    /// The bytes of a row are not a row. The row is named, never its content.
    #[error("the row {row} is corrupt")]
    Corrupt { row: String },
}

/// A change set was not committed, or its outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A write's expectation does not hold, or another record has its index key: another change came first.
    #[error("another change came first")]
    Conflict { key: RecordKey },
    /// A record that the change set depends on has moved.
    #[error("a precondition does not hold")]
    PreconditionFailed { key: RecordKey },
    /// The change set contradicts itself: it names a record, a field or an index key twice, an index entry names
    /// another record, or a key is too long.
    #[error("the change set is malformed")]
    Malformed { key: RecordKey },
    /// A row would exceed [`change::MAX_ROW`].
    #[error("a row of {size} bytes is too large")]
    TooLarge { size: usize },
    /// The outcome is unknown: read back before trying again.
    #[error("the store is unavailable; whether the change was written is unknown")]
    Unavailable,
    /// A row that had to be judged is corrupt; nothing was written.
    #[error("the row {row} is corrupt")]
    Corrupt { row: String },
}
