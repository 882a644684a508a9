//! Rows as the chunks hold them, one after the other; an entry may go on in the next chunk.

use bytes::{Buf, BufMut, Bytes};

use crate::{domain::Revision, store::CopiedRow};

/// What closes an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Rows in the archive, the replaced ones included.
    pub rows: u64,
    /// The revision that the copy shows.
    pub revision: Revision,
    /// Events up to and including this revision are gone.
    pub compacted: Revision,
    /// The newest audit record that it holds.
    pub audit: u64,
    /// Audit records up to and including this number are gone.
    pub audit_purged: u64,
}

/// What an archive holds, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of those with the same place the last one counts.
    Row(CopiedRow),
    End(End),
}

pub(super) fn put_row(out: &mut Vec<u8>, row: &CopiedRow) {
    let CopiedRow { place, value } = row;
    out.put_u8(if value.is_some() { ROW } else { GONE });
    out.put_u16(u16::try_from(place.len()).expect("a place has less than 512 bytes"));
    out.put_slice(place);
    if let Some(value) = value {
        out.put_u32(u32::try_from(value.len()).expect("a row has at most 64 KiB"));
        out.put_slice(value);
    }
}

pub(super) fn put_end(out: &mut Vec<u8>, end: &End) {
    out.put_u8(END);
    out.put_u64(end.rows);
    out.put_u64(end.revision.0);
    out.put_u64(end.compacted.0);
    out.put_u64(end.audit);
    out.put_u64(end.audit_purged);
}

/// What stands at the front of `bytes`, and how long it is.
pub(super) enum Taken {
    Entry(Entry, usize),
    /// It goes on in the next chunk.
    Unfinished,
    Malformed,
}

pub(super) fn take(bytes: &[u8]) -> Taken {
    let mut rest = bytes;
    match entry(&mut rest) {
        Ok(entry) => Taken::Entry(entry, bytes.len() - rest.len()),
        Err(Stop::Unfinished) => Taken::Unfinished,
        Err(Stop::Malformed) => Taken::Malformed,
    }
}

enum Stop {
    Unfinished,
    Malformed,
}

impl From<bytes::TryGetError> for Stop {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Unfinished
    }
}

fn entry(rest: &mut &[u8]) -> Result<Entry, Stop> {
    match rest.try_get_u8()? {
        END => {
            let rows = rest.try_get_u64()?;
            let (revision, compacted) = (Revision(rest.try_get_u64()?), Revision(rest.try_get_u64()?));
            let (audit, audit_purged) = (rest.try_get_u64()?, rest.try_get_u64()?);
            Ok(Entry::End(End { rows, revision, compacted, audit, audit_purged }))
        }
        tag @ (ROW | GONE) => {
            let length = rest.try_get_u16()?.into();
            let place = slice(rest, length, LONGEST_PLACE)?;
            if tag == GONE {
                return Ok(Entry::Row(CopiedRow { place, value: None }));
            }
            let length = usize::try_from(rest.try_get_u32()?).map_err(|_| Stop::Malformed)?;
            let value = slice(rest, length, LONGEST_VALUE)?;
            Ok(Entry::Row(CopiedRow { place, value: Some(value) }))
        }
        _ => Err(Stop::Malformed),
    }
}

/// Bounded, so that what is kept of unfinished entries is.
fn slice(rest: &mut &[u8], length: usize, longest: usize) -> Result<Bytes, Stop> {
    if length > longest {
        return Err(Stop::Malformed);
    }
    let (taken, left) = rest.split_at_checked(length).ok_or(Stop::Unfinished)?;
    *rest = left;
    Ok(Bytes::copy_from_slice(taken))
}

const END: u8 = 1;
const ROW: u8 = 2;
const GONE: u8 = 3;

const LONGEST_PLACE: usize = 512;
/// More than a row may have.
const LONGEST_VALUE: usize = 128 * 1024;
