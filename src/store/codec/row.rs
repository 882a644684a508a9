//! Records, and the index entries that point to them.

use bytes::{BufMut, Bytes};

use super::{
    Place,
    frame::{Content, FRAME, frame, put_short, unframe},
};
use crate::{
    domain::{Revision, Sealed},
    store::{
        StoreError,
        change::{Row, RowFields},
        key::{FieldTag, IndexEntry, IndexKind, MAX_INDEX_VALUE, RecordKey, RecordKind},
    },
};

/// The size of a row as stored, in bytes.
pub fn row_size(fields: &RowFields, index: &[IndexEntry]) -> usize {
    let fields: usize = fields.iter().map(|(_, sealed)| 5 + sealed.as_bytes().len()).sum();
    let index: usize = index.iter().map(|entry| 3 + entry.key.len() + entry.value.len()).sum();
    FRAME + 8 + 8 + 1 + fields + 2 + index
}

/// The value of the record `key`, which must be within what [`ChangeSet::check`](crate::store::ChangeSet::check)
/// lets through.
pub fn encode_row(key: &RecordKey, row: &Row) -> Bytes {
    frame(&Place::Record(key.clone()).encode(), row_size(&row.fields, &row.index), |out| {
        out.put_u64(row.version);
        out.put_u64(row.revision.0);
        out.put_u8(u8::try_from(row.fields.len()).expect("each of the few tags stands at most once"));
        for (tag, sealed) in &row.fields {
            out.put_u8(*tag as u8);
            out.put_u32(u32::try_from(sealed.as_bytes().len()).expect("a row has at most 64 KiB"));
            out.put_slice(sealed.as_bytes());
        }
        out.put_u16(u16::try_from(row.index.len()).expect("a row of 64 KiB has fewer entries of 3 bytes"));
        for entry in &row.index {
            out.put_u8(entry.index as u8);
            put_short(out, &entry.key);
            put_short(out, &entry.value);
        }
    })
}

/// Reads the value of the record `key`. The fields share the memory of `value`.
pub fn decode_row(key: &RecordKey, value: &Bytes) -> Result<Row, StoreError> {
    let place = Place::Record(key.clone());
    unframe(&place, value)?.read_all(&place, |content| {
        let version = content.u64().filter(|version| *version > 0)?;
        let revision = Revision(content.u64()?);
        let fields = content.u8()?;
        let fields = (0..fields).map(|_| field(content)).collect::<Option<_>>()?;
        let index = content.u16()?;
        let index = (0..index).map(|_| entry(content, key)).collect::<Option<_>>()?;
        Some(Row { version, revision, fields, index })
    })
}

pub fn encode_index_entry(entry: &IndexEntry) -> Bytes {
    let place = Place::Index(entry.index, entry.key.clone());
    frame(&place.encode(), 3 + entry.value.len() + entry.record.id().len(), |out| {
        put_short(out, &entry.value);
        out.put_u8(entry.record.kind() as u8);
        put_short(out, entry.record.id());
    })
}

pub fn decode_index_entry(index: IndexKind, key: Bytes, value: &Bytes) -> Result<IndexEntry, StoreError> {
    let place = Place::Index(index, key.clone());
    unframe(&place, value)?.read_all(&place, |content| {
        let value = content.short().filter(|value| value.len() <= MAX_INDEX_VALUE)?;
        let kind = RecordKind::from_byte(content.u8()?)?;
        let record = RecordKey::new(kind, content.short()?);
        Some(IndexEntry { index, key, record, value })
    })
}

fn field(content: &mut Content) -> Option<(FieldTag, Sealed)> {
    let tag = FieldTag::from_byte(content.u8()?)?;
    let length = usize::try_from(content.u32()?).ok()?;
    Some((tag, Sealed::from_bytes(content.take(length)?)))
}

fn entry(content: &mut Content, record: &RecordKey) -> Option<IndexEntry> {
    let index = IndexKind::from_byte(content.u8()?)?;
    let key = content.short()?;
    let value = content.short().filter(|value| value.len() <= MAX_INDEX_VALUE)?;
    Some(IndexEntry { index, key, record: record.clone(), value })
}
