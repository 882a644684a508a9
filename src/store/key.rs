//! How rows are found. Every key is built here, from a kind byte and fixed-length or keyed-hash parts: no text of a
//! user, provider or plugin ever stands in a key.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::change::NO_VALUE;
use crate::domain::{KeyId, Timestamp};

/// The longest id of a record, in bytes.
pub const MAX_ID: usize = 64;
/// The longest key of an index entry, in bytes.
pub const MAX_INDEX_KEY: usize = 255;
/// The longest value of an index entry, in bytes.
pub const MAX_INDEX_VALUE: usize = 64;

/// What a record is. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// One row: the installation's wrapped secret.
    Installation = 1,
    /// A wrapped sealing key, by key id.
    Key = 2,
    /// A tenant and its present key, by keyed hash.
    Tenant = 3,
    /// A subject, its present key and `not_before`, by keyed hash.
    Subject = 4,
    Connection = 5,
    Flow = 6,
    /// An authorization attempt, by keyed hash of its `state`.
    Attempt = 7,
    Job = 8,
    /// One row: which configuration is in force.
    Configuration = 9,
    /// One row: which root keys were and are in force.
    RootKeys = 10,
    /// Whether a provider refuses our registration, by keyed hash of the provider.
    Suspension = 11,
    /// Who holds which generation of a connection's credential, by connection id.
    Holders = 12,
}

/// Names one record: its kind and 16 or 32 bytes of id or keyed hash, never more than [`MAX_ID`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    kind: RecordKind,
    id: Bytes,
}

/// What a sealed field of a row is. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FieldTag {
    /// The record itself, without its secrets.
    Record = 1,
    AccessToken = 2,
    RefreshToken = 3,
    CodeVerifier = 4,
    Nonce = 5,
    /// The `state` of an attempt.
    FlowSecret = 6,
    IdToken = 7,
    /// A wrapped key.
    Key = 8,
    /// An authorization response that waits for its browser.
    PostedResponse = 9,
}

/// A secondary index. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IndexKind {
    /// Keyed hash of (tenant, subject), then of the provider, then the connection id.
    ConnectionsOfSubject = 1,
    /// Keyed hash of a flow's intent, then the flow id.
    FlowsByIntent = 2,
    /// Keyed hash of (tenant, subject), then the flow id: for the quota.
    FlowsOfSubject = 3,
    /// Time (64 bits, big-endian, sign bit flipped), record kind, record id; the value is the row's version, the
    /// independent witness of a rolled-back row.
    Due = 4,
    /// Id of the key that the record is sealed under, record kind, record id: which rows are live under a key. The
    /// value is the row's version where the row has no entry in `Due`.
    SealedUnder = 5,
}

/// One entry of an index: points from a key to a record, with a small value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub index: IndexKind,
    /// At most [`MAX_INDEX_KEY`] bytes; unique within the index.
    pub key: Bytes,
    /// The record whose row carries this entry.
    pub record: RecordKey,
    /// At most [`MAX_INDEX_VALUE`] bytes.
    pub value: Bytes,
}

impl IndexEntry {
    /// The scheduler's entry: `record` is due at `at`, and had `version` when it was written.
    pub fn due(at: Timestamp, record: RecordKey, version: u64) -> Self {
        let mut key = BytesMut::with_capacity(9 + record.id.len());
        key.put_slice(&due_time(at));
        key.put_u8(record.kind as u8);
        key.put_slice(&record.id);
        let value = Bytes::copy_from_slice(&version.to_be_bytes());
        Self { index: IndexKind::Due, key: key.freeze(), record, value }
    }

    /// That `record` is sealed under `key`; with `version`, that it had that version when it was written.
    pub fn sealed_under(key: KeyId, record: RecordKey, version: Option<u64>) -> Self {
        let mut entry = BytesMut::with_capacity(17 + record.id.len());
        entry.put_slice(key.as_bytes());
        entry.put_u8(record.kind as u8);
        entry.put_slice(&record.id);
        let value = version.map_or(NO_VALUE, |version| Bytes::copy_from_slice(&version.to_be_bytes()));
        Self { index: IndexKind::SealedUnder, key: entry.freeze(), record, value }
    }

    /// When a [`IndexEntry::due`] entry is due; `None` for an entry of another index.
    pub fn due_at(&self) -> Option<Timestamp> {
        let time = self.key.first_chunk().filter(|_| self.index == IndexKind::Due)?;
        Some(Timestamp::from_millis((u64::from_be_bytes(*time) ^ SIGN) as i64))
    }
}

/// The first 8 bytes of a [`IndexKind::Due`] key; sorts as the times do.
pub fn due_time(at: Timestamp) -> [u8; 8] {
    (at.as_millis() as u64 ^ SIGN).to_be_bytes()
}

const SIGN: u64 = 1 << 63;

impl RecordKey {
    pub fn new(kind: RecordKind, id: impl AsRef<[u8]>) -> Self {
        Self { kind, id: Bytes::copy_from_slice(id.as_ref()) }
    }

    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    pub fn id(&self) -> &Bytes {
        &self.id
    }
}

impl RecordKind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Installation,
            Self::Key,
            Self::Tenant,
            Self::Subject,
            Self::Connection,
            Self::Flow,
            Self::Attempt,
            Self::Job,
            Self::Configuration,
            Self::RootKeys,
            Self::Suspension,
            Self::Holders,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

impl FieldTag {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Record,
            Self::AccessToken,
            Self::RefreshToken,
            Self::CodeVerifier,
            Self::Nonce,
            Self::FlowSecret,
            Self::IdToken,
            Self::Key,
            Self::PostedResponse,
        ]
        .into_iter()
        .find(|tag| *tag as u8 == byte)
    }
}

impl IndexKind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::ConnectionsOfSubject, Self::FlowsByIntent, Self::FlowsOfSubject, Self::Due, Self::SealedUnder]
            .into_iter()
            .find(|index| *index as u8 == byte)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/", self.kind)?;
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
