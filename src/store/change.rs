//! What is written together.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    CommitError, codec,
    key::{FieldTag, IndexEntry, MAX_ID, MAX_INDEX_KEY, MAX_INDEX_VALUE, RecordKey},
};
use crate::domain::{EntryId, Revision, Sealed};

/// The largest row as stored, in bytes.
pub const MAX_ROW: usize = 64 * 1024;

/// Records, events, audit records and follow-up jobs that become true together. Jobs are records with an entry in the
/// `Due` index, so they need no field of their own.
#[derive(Clone, Default)]
pub struct ChangeSet {
    pub writes: Vec<Write>,
    /// Records that must be as expected although they are not written.
    pub preconditions: Vec<Precondition>,
    /// All get this change set's revision, in this order.
    pub events: Vec<NewEntry>,
    /// Each gets the next dense sequence number, in this order.
    pub audit: Vec<NewEntry>,
    /// What has reached the end of its retention and goes with this change set.
    pub purge: Purge,
}

/// The old ends of the two logs that a change set cuts off; zeros cut nothing. What it cuts is removed one by one, so
/// callers keep it to about a thousand entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// Events of this revision and of those before it, as far as they are older than the change set.
    pub events: Revision,
    /// Audit records with this number and those before it, as far as they are older than the change set. The newest of
    /// all stays, because the next one is linked to it.
    pub audit: u64,
}

impl ChangeSet {
    /// What every store refuses before it looks at a single row: a set that contradicts itself, or a row over
    /// [`MAX_ROW`].
    pub fn check(&self) -> Result<(), CommitError> {
        let mut records = BTreeSet::new();
        let mut entries = BTreeSet::new();
        for write in &self.writes {
            let sound = write.key.id().len() <= MAX_ID
                && records.insert(&write.key)
                && write.index().iter().all(|entry| {
                    entry.record == write.key
                        && entry.key.len() <= MAX_INDEX_KEY
                        && entry.value.len() <= MAX_INDEX_VALUE
                        && entries.insert((entry.index, &entry.key))
                });
            if !sound || !write.tags_are_unique() {
                return Err(CommitError::Malformed { key: write.key.clone() });
            }
        }
        let rows = self.writes.iter().filter_map(|write| match &write.action {
            WriteAction::Put { fields, index } => Some(codec::row_size(fields, index)),
            WriteAction::Delete => None,
        });
        let events = self.events.iter().map(|entry| codec::entry_size(entry.body.as_bytes().len()));
        let audit = self.audit.iter().map(|entry| codec::entry_size(entry.body.as_bytes().len() + LINK_ROOM));
        match rows.chain(events).chain(audit).find(|size| *size > MAX_ROW) {
            Some(size) => Err(CommitError::TooLarge { size }),
            None => Ok(()),
        }
    }
}

/// What the audit linker may add to a record's body, in bytes.
pub const LINK_ROOM: usize = 1024;

/// One record's change. A change set names a record at most once, and every index entry names its record.
#[derive(Clone)]
pub struct Write {
    pub key: RecordKey,
    pub expect: Expect,
    pub action: WriteAction,
}

/// What must hold of a record for the change set to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Version(u64),
}

#[derive(Clone)]
pub enum WriteAction {
    /// The new content. Its version is 1 for `Expect::Absent`, else one more than expected. The record's index
    /// entries become exactly `index`; those of the content before are removed.
    Put { fields: RowFields, index: Vec<IndexEntry> },
    /// Removes the record and its index entries. With `Expect::Absent` it removes nothing.
    Delete,
}

#[derive(Clone)]
pub struct Precondition {
    pub key: RecordKey,
    pub expect: Expect,
}

/// An event or audit record before its number.
#[derive(Clone)]
pub struct NewEntry {
    pub id: EntryId,
    pub body: Sealed,
}

/// The sealed fields of a row, each tag at most once.
pub type RowFields = Vec<(FieldTag, Sealed)>;

/// A record as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// +1 on every write; the compare-and-swap token.
    pub version: u64,
    /// The change set that wrote it.
    pub revision: Revision,
    pub fields: RowFields,
    pub index: Vec<IndexEntry>,
}

/// What was numbered at commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// This change set's revision; every committed change set has its own.
    pub revision: Revision,
    /// The sequence numbers of its audit records, in order.
    pub audit: Vec<u64>,
}

impl Row {
    pub fn field(&self, tag: FieldTag) -> Option<&Sealed> {
        self.fields.iter().find(|(have, _)| *have == tag).map(|(_, sealed)| sealed)
    }
}

impl Write {
    pub fn put(key: RecordKey, expect: Expect, fields: RowFields, index: Vec<IndexEntry>) -> Self {
        Self { key, expect, action: WriteAction::Put { fields, index } }
    }

    pub fn delete(key: RecordKey, version: u64) -> Self {
        Self { key, expect: Expect::Version(version), action: WriteAction::Delete }
    }

    /// The index entries that the record has afterwards.
    pub fn index(&self) -> &[IndexEntry] {
        match &self.action {
            WriteAction::Put { index, .. } => index,
            WriteAction::Delete => &[],
        }
    }

    fn tags_are_unique(&self) -> bool {
        let mut tags = BTreeSet::new();
        match &self.action {
            WriteAction::Put { fields, .. } => fields.iter().all(|(tag, _)| tags.insert(*tag)),
            WriteAction::Delete => true,
        }
    }
}

impl Expect {
    /// Whether a record with this version (`None`: no record) is as expected.
    pub fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::Version(expected) => version == Some(expected),
        }
    }

    /// The version that a put leaves behind.
    pub fn next_version(self) -> u64 {
        match self {
            Self::Absent => 1,
            Self::Version(version) => version + 1,
        }
    }
}

/// The value of an index entry that carries nothing.
pub const NO_VALUE: Bytes = Bytes::new();
