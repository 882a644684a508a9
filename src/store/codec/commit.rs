//! The row that closes a change set: which rows the set wrote, and their checksums.
//!
//! It makes a torn change set visible. A row that later sets overwrote is judged by the newest of them, so only the
//! sets at the log's end need to be kept: [`CommitPart::SLOTS`] of them, in slots that are used in turn.

use bytes::{BufMut, Bytes};

use super::{
    Place,
    frame::{Content, frame, unframe},
};
use crate::{domain::Revision, store::StoreError};

/// One row that a change set left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// The row's key, encoded.
    pub place: Bytes,
    /// The checksum of the value there; `None`: the set removed the row.
    pub checksum: Option<u32>,
}

/// A commit row, or one of several where the list is too long for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPart {
    pub revision: Revision,
    pub part: u16,
    pub parts: u16,
    /// Rows of the whole change set.
    pub rows: u32,
    /// The newest audit record's sequence number after this change set.
    pub audit: u64,
    pub footprints: Vec<Footprint>,
}

impl CommitPart {
    /// How many change sets at the log's end are kept and checked. No group of sets that share one flush may be
    /// larger: everything before the newest group was durable before that group was written.
    pub const SLOTS: u16 = 256;

    /// The parts that close the change set, in order; at least one.
    pub fn split(revision: Revision, audit: u64, footprints: Vec<Footprint>) -> Vec<Self> {
        let rows = u32::try_from(footprints.len()).expect("a change set fits in memory many times over");
        let mut lists = vec![Vec::new()];
        let mut size = 0;
        for footprint in footprints {
            size += FOOTPRINT + footprint.place.len();
            if size > LIST {
                size = FOOTPRINT + footprint.place.len();
                lists.push(Vec::new());
            }
            lists.last_mut().expect("there is always one list").push(footprint);
        }
        let parts = u16::try_from(lists.len()).expect("65,535 parts would be 4 GiB of keys");
        (0..parts)
            .zip(lists)
            .map(|(part, footprints)| Self { revision, part, parts, rows, audit, footprints })
            .collect()
    }

    pub fn slot(revision: Revision) -> u16 {
        u16::try_from(revision.0 % u64::from(Self::SLOTS)).expect("less than the number of slots")
    }

    pub fn place(&self) -> Place {
        Place::Commit { slot: Self::slot(self.revision), part: self.part }
    }

    pub fn encode(&self) -> Bytes {
        let list: usize = self.footprints.iter().map(|footprint| FOOTPRINT + footprint.place.len()).sum();
        frame(&self.place().encode(), 22 + list, |out| {
            out.put_u64(self.revision.0);
            out.put_u16(self.parts);
            out.put_u32(self.rows);
            out.put_u64(self.audit);
            for Footprint { place, checksum } in &self.footprints {
                out.put_u16(u16::try_from(place.len()).expect("a place has less than 512 bytes"));
                out.put_slice(place);
                out.put_u8(checksum.is_some().into());
                out.put_u32(checksum.unwrap_or(0));
            }
        })
    }

    pub fn decode(slot: u16, part: u16, value: &Bytes) -> Result<Self, StoreError> {
        let place = Place::Commit { slot, part };
        unframe(&place, value)?.read_all(&place, |content| {
            let revision = content.u64().map(Revision).filter(|revision| Self::slot(*revision) == slot)?;
            let parts = content.u16().filter(|parts| part < *parts)?;
            let rows = content.u32()?;
            let audit = content.u64()?;
            let mut footprints = Vec::new();
            while let Some(length) = content.u16() {
                footprints.push(footprint(content, length.into())?);
            }
            Some(Self { revision, part, parts, rows, audit, footprints })
        })
    }
}

fn footprint(content: &mut Content, length: usize) -> Option<Footprint> {
    let place = content.take(length)?;
    let checksum = match (content.u8()?, content.u32()?) {
        (1, checksum) => Some(checksum),
        (0, 0) => None,
        _ => return None,
    };
    Some(Footprint { place, checksum })
}

/// Bytes of a footprint besides its place.
const FOOTPRINT: usize = 7;
/// The largest list in one part; leaves room for the rest below 64 KiB.
const LIST: usize = 63 * 1024;
