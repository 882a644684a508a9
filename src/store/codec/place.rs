//! Where a row stands: one key space for everything, a family byte first.

use std::fmt;

use bytes::{BufMut, Bytes};

use crate::{
    domain::Revision,
    store::key::{IndexKind, MAX_ID, MAX_INDEX_KEY, RecordKey, RecordKind},
};

/// What kind of row; the first byte of its key. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    Meta = 1,
    /// Record kind, id.
    Record = 2,
    /// Index kind, the entry's key.
    Index = 3,
    /// Revision, position within it (both big-endian): sorts in the order of the log.
    Event = 4,
    /// Sequence number, big-endian: sorts in the order of the chain.
    Audit = 5,
    /// Slot, part (both big-endian).
    Commit = 6,
}

/// The key of a stored row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Meta,
    Record(RecordKey),
    Index(IndexKind, Bytes),
    Event(Revision, u32),
    Audit(u64),
    /// One part of the row that closes a change set; the slots are used in turn.
    Commit {
        slot: u16,
        part: u16,
    },
}

impl Place {
    pub fn encode(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(40);
        key.put_u8(self.family() as u8);
        match self {
            Self::Meta => {}
            Self::Record(record) => {
                key.put_u8(record.kind() as u8);
                key.put_slice(record.id());
            }
            Self::Index(index, entry) => {
                key.put_u8(*index as u8);
                key.put_slice(entry);
            }
            Self::Event(revision, position) => {
                key.put_u64(revision.0);
                key.put_u32(*position);
            }
            Self::Audit(sequence) => key.put_u64(*sequence),
            Self::Commit { slot, part } => {
                key.put_u16(*slot);
                key.put_u16(*part);
            }
        }
        key
    }

    /// The place that these bytes name; `None` when no row can stand there.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (family, rest) = key.split_first()?;
        match Family::from_byte(*family)? {
            Family::Meta => rest.is_empty().then_some(Self::Meta),
            Family::Record => {
                let (kind, id) = rest.split_first()?;
                let kind = RecordKind::from_byte(*kind)?;
                (id.len() <= MAX_ID).then(|| Self::Record(RecordKey::new(kind, id)))
            }
            Family::Index => {
                let (index, entry) = rest.split_first()?;
                let index = IndexKind::from_byte(*index)?;
                (entry.len() <= MAX_INDEX_KEY).then(|| Self::Index(index, Bytes::copy_from_slice(entry)))
            }
            Family::Event => {
                let (revision, position) = rest.split_first_chunk()?;
                let position = u32::from_be_bytes(position.try_into().ok()?);
                Some(Self::Event(Revision(u64::from_be_bytes(*revision)), position))
            }
            Family::Audit => Some(Self::Audit(u64::from_be_bytes(rest.try_into().ok()?))),
            Family::Commit => {
                let (slot, part) = rest.split_first_chunk()?;
                let part = u16::from_be_bytes(part.try_into().ok()?);
                Some(Self::Commit { slot: u16::from_be_bytes(*slot), part })
            }
        }
    }

    pub fn family(&self) -> Family {
        match self {
            Self::Meta => Family::Meta,
            Self::Record(_) => Family::Record,
            Self::Index(..) => Family::Index,
            Self::Event(..) => Family::Event,
            Self::Audit(_) => Family::Audit,
            Self::Commit { .. } => Family::Commit,
        }
    }
}

/// The row's name in errors: ids and keyed hashes, so it names nobody.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta => f.write_str("Meta"),
            Self::Record(record) => write!(f, "{record:?}"),
            Self::Index(index, key) => {
                write!(f, "{index:?}/")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Event(revision, position) => write!(f, "Event/{}.{position}", revision.0),
            Self::Audit(sequence) => write!(f, "Audit/{sequence}"),
            Self::Commit { slot, part } => write!(f, "Commit/{slot}.{part}"),
        }
    }
}

impl Family {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Meta, Self::Record, Self::Index, Self::Event, Self::Audit, Self::Commit]
            .into_iter()
            .find(|family| *family as u8 == byte)
    }
}
