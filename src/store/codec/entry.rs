//! Events and audit records.

use bytes::{BufMut, Bytes};

use super::{
    Place,
    frame::{FRAME, frame, unframe},
};
use crate::{
    domain::{EntryId, Revision, Sealed},
    store::{AuditEntry, EventEntry, StoreError},
};

/// The size of an event, or of a linked audit record, with a body of `body` bytes.
pub fn entry_size(body: usize) -> usize {
    FRAME + 16 + body
}

pub fn encode_event(event: &EventEntry) -> Bytes {
    encode(&Place::Event(event.revision, event.index), event.id, event.body.as_bytes())
}

pub fn decode_event(revision: Revision, index: u32, value: &Bytes) -> Result<EventEntry, StoreError> {
    let (id, body) = decode(&Place::Event(revision, index), value)?;
    Ok(EventEntry { revision, index, id, body: Sealed::from_bytes(body) })
}

pub fn encode_audit(record: &AuditEntry) -> Bytes {
    encode(&Place::Audit(record.sequence), record.id, &record.linked)
}

pub fn decode_audit(sequence: u64, value: &Bytes) -> Result<AuditEntry, StoreError> {
    let (id, linked) = decode(&Place::Audit(sequence), value)?;
    Ok(AuditEntry { sequence, id, linked })
}

fn encode(place: &Place, id: EntryId, body: &[u8]) -> Bytes {
    frame(&place.encode(), 16 + body.len(), |out| {
        out.put_slice(id.as_bytes());
        out.put_slice(body);
    })
}

fn decode(place: &Place, value: &Bytes) -> Result<(EntryId, Bytes), StoreError> {
    unframe(place, value)?.read_all(place, |content| Some((EntryId::from_bytes(content.array()?), content.rest())))
}
