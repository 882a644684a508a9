//! Around every stored value: a format version and a checksum over the place and the content, so that a damaged value,
//! and an intact one in the wrong place, are told apart from a row.

use bytes::{Buf, BufMut, Bytes};

use super::Place;
use crate::store::StoreError;

/// The version of every stored form; its first byte.
pub const FORMAT: u8 = 1;

/// Format version and checksum, in bytes.
pub(super) const FRAME: usize = 5;

/// Wraps what `write` appends, about `size` bytes, into the value that belongs at `place`.
pub(super) fn frame(place: &[u8], size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut value = Vec::with_capacity(FRAME + size);
    value.extend_from_slice(&[FORMAT, 0, 0, 0, 0]);
    write(&mut value);
    let sum = sum(place, &value[FRAME..]);
    value[1..FRAME].copy_from_slice(&sum.to_be_bytes());
    value.into()
}

/// Takes the content out of the value found at `place`.
pub(super) fn unframe(place: &Place, value: &Bytes) -> Result<Content, StoreError> {
    let intact = value.first() == Some(&FORMAT)
        && checksum(value).is_some_and(|stored| stored == sum(&place.encode(), &value[FRAME..]));
    if intact { Ok(Content(value.slice(FRAME..))) } else { Err(corrupt(place)) }
}

/// Holds when `value` is intact and belongs where it was found.
pub fn verify(place: &Place, value: &Bytes) -> Result<(), StoreError> {
    unframe(place, value).map(drop)
}

/// The checksum that a stored value carries, unverified; `None` when it is too short to have one.
pub fn checksum(value: &[u8]) -> Option<u32> {
    value.get(1..FRAME).and_then(|sum| sum.try_into().ok()).map(u32::from_be_bytes)
}

pub(super) fn corrupt(place: &Place) -> StoreError {
    StoreError::Corrupt { row: place.to_string() }
}

fn sum(place: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&u32::try_from(place.len()).expect("a place has less than 512 bytes").to_be_bytes());
    hasher.update(place);
    hasher.update(content);
    hasher.finalize()
}

/// What is left to read of a value.
pub(super) struct Content(Bytes);

impl Content {
    /// Decodes the whole content; anything too short, too long or refused by `read` is a corrupt row.
    pub(super) fn read_all<T>(
        mut self,
        place: &Place,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Result<T, StoreError> {
        read(&mut self).filter(|_| self.0.is_empty()).ok_or_else(|| corrupt(place))
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    pub(super) fn array(&mut self) -> Option<[u8; 16]> {
        self.take(16)?.as_ref().try_into().ok()
    }

    pub(super) fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    /// Bytes behind their length in one byte.
    pub(super) fn short(&mut self) -> Option<Bytes> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(super) fn rest(&mut self) -> Bytes {
        self.0.split_off(0)
    }
}

/// Appends bytes behind their length in one byte.
pub(super) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u8(u8::try_from(bytes.len()).expect("ChangeSet::check bounds ids, index keys and index values"));
    out.put_slice(bytes);
}
