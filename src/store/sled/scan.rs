//! Reads that sled answers: one row, or rows in order.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    cache::HotRows,
    engine::{Engine, EngineError, row_name},
};
use crate::{
    domain::{EntryId, Revision, Sealed},
    store::{
        AuditEntry, EventEntry,
        change::Row,
        codec::{self, Family, Place},
        key::{IndexEntry, IndexKind, RecordKey},
    },
};

pub(super) fn row(engine: &Engine, hot: &HotRows, key: RecordKey) -> Result<Option<Arc<Row>>, EngineError> {
    let Some(value) = engine.value(&Place::Record(key.clone()).encode())? else { return Ok(None) };
    let row = Arc::new(codec::decode_row(&key, &value)?);
    hot.keep_row(key, Arc::clone(&row));
    Ok(Some(row))
}

pub(super) fn index(
    engine: &Engine,
    hot: &HotRows,
    index: IndexKind,
    prefix: Bytes,
    after: Option<&Bytes>,
    limit: usize,
) -> Result<Vec<IndexEntry>, EngineError> {
    let under = Place::Index(index, prefix.clone()).encode();
    let from = after.filter(|after| **after >= prefix).map(|after| Place::Index(index, after.clone()).encode());
    let start = from.as_deref().map_or(Bound::Included(&under[..]), Bound::Excluded);
    let entries = engine
        .rows(&under, start)
        .take(limit)
        .map(|row| {
            let (place, value) = row?;
            // family and index kind stand before the entry's key
            Ok(codec::decode_index_entry(index, place.slice(2..), &value)?)
        })
        .collect::<Result<Vec<_>, EngineError>>()?;
    if after.is_none() && entries.len() < limit {
        hot.keep_page(index, prefix, &entries);
    }
    Ok(entries)
}

pub(super) fn events(engine: &Engine, after: Revision, limit: usize) -> Result<Vec<EventEntry>, EngineError> {
    let mut events: Vec<EventEntry> = Vec::new();
    let start = Place::Event(after, u32::MAX).encode();
    for row in engine.rows(&[Family::Event as u8], Bound::Excluded(&start)) {
        let (key, value) = row?;
        let Some(Place::Event(revision, index)) = Place::decode(&key) else {
            return Err(EngineError::Corrupt { row: row_name(&key) });
        };
        if events.len() >= limit && events.last().is_none_or(|last| last.revision < revision) {
            break;
        }
        // A damaged one must keep nobody from the events after it: it is given out as one that does not open.
        events.push(codec::decode_event(revision, index, &value).unwrap_or_else(|error| {
            tracing::error!(%error, "a stored event is corrupt");
            EventEntry { revision, index, id: EntryId::from_bytes([0; 16]), body: Sealed::from_bytes(Bytes::new()) }
        }));
    }
    Ok(events)
}

pub(super) fn audit(engine: &Engine, after: u64, limit: usize) -> Result<Vec<AuditEntry>, EngineError> {
    let start = Place::Audit(after).encode();
    engine
        .rows(&[Family::Audit as u8], Bound::Excluded(&start))
        .take(limit)
        .map(|row| {
            let (key, value) = row?;
            let Some(Place::Audit(sequence)) = Place::decode(&key) else {
                return Err(EngineError::Corrupt { row: row_name(&key) });
            };
            Ok(codec::decode_audit(sequence, &value)?)
        })
        .collect()
}
