//! Judging the change sets of one group: each against the tree and the sets before it.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    cache::HotRows,
    engine::{Engine, EngineError},
    tail::Tail,
};
use crate::{
    domain::{AuditLinker, Revision},
    store::{
        AuditEntry, CommitError, EventEntry,
        change::{ChangeSet, MAX_ROW, NewEntry, Purge, Receipt, Row, Write, WriteAction},
        codec::{self, CommitPart, Family, Footprint, Place},
        key::{IndexEntry, IndexKind, RecordKey},
    },
};

/// The group's change sets so far, over the tree.
pub(super) struct Group<'a> {
    engine: &'a Engine,
    hot: &'a HotRows,
    linker: &'a dyn AuditLinker,
    changed: Changed,
}

/// What a group leaves behind.
pub(super) struct Changed {
    /// Values by encoded place; `None`: removed.
    pub(super) values: HashMap<Vec<u8>, Option<Bytes>>,
    pub(super) rows: HashMap<RecordKey, Option<Arc<Row>>>,
    pub(super) entries: Vec<(IndexKind, Bytes)>,
    pub(super) tail: Tail,
}

/// One change set, judged and encoded but not yet part of the group.
struct Draft {
    revision: Revision,
    values: BTreeMap<Vec<u8>, Option<Bytes>>,
    rows: Vec<(RecordKey, Option<Arc<Row>>)>,
    entries: Vec<(IndexKind, Bytes)>,
}

/// Why a change set does not become part of the group.
pub(super) enum Refusal {
    /// It alone is refused.
    Refused(CommitError),
    /// The files failed, and with them the whole group.
    Failed(EngineError),
}

impl<'a> Group<'a> {
    pub(super) fn new(engine: &'a Engine, hot: &'a HotRows, linker: &'a dyn AuditLinker, tail: Tail) -> Self {
        let changed = Changed { values: HashMap::new(), rows: HashMap::new(), entries: Vec::new(), tail };
        Self { engine, hot, linker, changed }
    }

    pub(super) fn finish(self) -> Changed {
        self.changed
    }

    /// Makes the change set part of the group, or changes nothing.
    pub(super) fn add(&mut self, change: ChangeSet) -> Result<Receipt, Refusal> {
        for needed in &change.preconditions {
            let row = self.row(&needed.key)?;
            if !needed.expect.holds(row.map(|row| row.version)) {
                return Err(CommitError::PreconditionFailed { key: needed.key.clone() }.into());
            }
        }
        let mut before = Vec::with_capacity(change.writes.len());
        for write in &change.writes {
            let row = self.row(&write.key)?;
            if !write.expect.holds(row.as_ref().map(|row| row.version)) {
                return Err(CommitError::Conflict { key: write.key.clone() }.into());
            }
            before.push(row);
        }
        let mut draft = Draft::new(self.changed.tail.revision.next());
        self.move_entries(&mut draft, &change.writes, &before)?;
        for write in change.writes {
            draft.write(write)?;
        }
        draft.events(&change.events);
        let (mut tail, sequences) = self.link(&mut draft, &change.audit)?;
        self.purge(&mut draft, change.purge, &mut tail)?;
        let receipt = Receipt { revision: draft.revision, audit: sequences };
        self.close(draft, tail);
        Ok(receipt)
    }

    /// The record as the sets before left it.
    fn row(&self, key: &RecordKey) -> Result<Option<Arc<Row>>, EngineError> {
        if let Some(row) = self.changed.rows.get(key) {
            return Ok(row.clone());
        }
        if let Some(row) = self.hot.row(key) {
            return Ok(Some(row));
        }
        let value = self.engine.value(&Place::Record(key.clone()).encode())?;
        Ok(value.map(|value| codec::decode_row(key, &value)).transpose()?.map(Arc::new))
    }

    /// Removes the entries that the writes give up, then adds those they take: a key may pass from one record of the
    /// set to another.
    fn move_entries(&self, draft: &mut Draft, writes: &[Write], before: &[Option<Arc<Row>>]) -> Result<(), Refusal> {
        let had = |row: &'_ Option<Arc<Row>>| row.as_ref().map(|row| row.index.clone()).unwrap_or_default();
        let place = |entry: &IndexEntry| Place::Index(entry.index, entry.key.clone()).encode();
        for entry in before.iter().flat_map(had) {
            draft.values.insert(place(&entry), None);
            draft.entries.push((entry.index, entry.key));
        }
        for (write, before) in writes.iter().zip(before) {
            let had = had(before);
            for entry in write.index() {
                let place = place(entry);
                let own = had.iter().find(|own| own.index == entry.index && own.key == entry.key);
                if own == Some(entry) {
                    draft.values.remove(&place);
                    continue;
                }
                if !draft.values.contains_key(&place) && self.is_taken(&place)? {
                    return Err(CommitError::Conflict { key: write.key.clone() }.into());
                }
                draft.values.insert(place, Some(codec::encode_index_entry(entry)));
                draft.entries.push((entry.index, entry.key.clone()));
            }
        }
        Ok(())
    }

    fn is_taken(&self, place: &[u8]) -> Result<bool, EngineError> {
        match self.changed.values.get(place) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.engine.value(place)?.is_some()),
        }
    }

    /// Numbers and links the audit records, last of all: only a set that commits gets here.
    fn link(&self, draft: &mut Draft, records: &[NewEntry]) -> Result<(Tail, Vec<u64>), CommitError> {
        let mut tail = self.changed.tail.clone();
        tail.revision = draft.revision;
        let mut sequences = Vec::with_capacity(records.len());
        for NewEntry { id, body } in records {
            tail.audit += 1;
            let linked = Bytes::from(self.linker.link(tail.audit, tail.linked.as_deref(), body));
            let size = codec::entry_size(linked.len());
            if size > MAX_ROW {
                return Err(CommitError::TooLarge { size });
            }
            let record = AuditEntry { sequence: tail.audit, id: *id, linked };
            draft.values.insert(Place::Audit(tail.audit).encode(), Some(codec::encode_audit(&record)));
            tail.linked = Some(record.linked);
            sequences.push(tail.audit);
        }
        Ok((tail, sequences))
    }

    /// Removes what the set purges of the change sets before it. The newest audit record stays: the next one is linked
    /// to it, and opening the store looks for it.
    fn purge(&self, draft: &mut Draft, purge: Purge, tail: &mut Tail) -> Result<(), EngineError> {
        let before = &self.changed.tail;
        let events = purge.events.min(before.revision);
        if events > before.meta.compacted {
            for place in self.events_through(events)? {
                draft.values.insert(place, None);
            }
            tail.meta.compacted = events;
        }
        let audit = purge.audit.min(before.audit).min(tail.audit.saturating_sub(1));
        if audit > before.meta.audit_purged {
            for sequence in before.meta.audit_purged + 1..=audit {
                draft.values.insert(Place::Audit(sequence).encode(), None);
            }
            tail.meta.audit_purged = audit;
        }
        if tail.meta != before.meta {
            draft.values.insert(Place::Meta.encode(), Some(tail.meta.encode()));
        }
        Ok(())
    }

    /// The places of the events up to this revision, of the tree and of the sets before.
    fn events_through(&self, last: Revision) -> Result<Vec<Vec<u8>>, EngineError> {
        let first = Place::Event(self.changed.tail.meta.compacted.next(), 0).encode();
        let beyond = Place::Event(last.next(), 0).encode();
        let mut places = Vec::new();
        for row in self.engine.rows(&[Family::Event as u8], Bound::Included(&first)) {
            let (place, _) = row?;
            if place >= beyond {
                break;
            }
            places.push(place.to_vec());
        }
        places.extend(self.changed.values.keys().filter(|place| (&first..&beyond).contains(place)).cloned());
        Ok(places)
    }

    /// Takes the draft over, with the row that closes it.
    fn close(&mut self, draft: Draft, tail: Tail) {
        let footprint = |(place, value): (&Vec<u8>, &Option<Bytes>)| Footprint {
            place: Bytes::copy_from_slice(place),
            checksum: value.as_ref().and_then(|value| codec::checksum(value)),
        };
        let footprints = draft.values.iter().map(footprint).collect();
        self.changed.values.extend(draft.values);
        for part in CommitPart::split(draft.revision, tail.audit, footprints) {
            self.changed.values.insert(part.place().encode(), Some(part.encode()));
        }
        self.changed.rows.extend(draft.rows);
        self.changed.entries.extend(draft.entries);
        self.changed.tail = tail;
    }
}

impl Draft {
    fn new(revision: Revision) -> Self {
        Self { revision, values: BTreeMap::new(), rows: Vec::new(), entries: Vec::new() }
    }

    fn write(&mut self, write: Write) -> Result<(), Refusal> {
        let Write { key, expect, action } = write;
        let (value, row) = match action {
            WriteAction::Put { fields, index } => {
                let row = Row { version: expect.next_version(), revision: self.revision, fields, index };
                let value = codec::encode_row(&key, &row);
                // decoded anew, so that the cached row holds on to this value alone and not to the caller's buffers
                let row = codec::decode_row(&key, &value).map_err(EngineError::from)?;
                (Some(value), Some(Arc::new(row)))
            }
            WriteAction::Delete => (None, None),
        };
        self.values.insert(Place::Record(key.clone()).encode(), value);
        self.rows.push((key, row));
        Ok(())
    }

    fn events(&mut self, events: &[NewEntry]) {
        for (index, NewEntry { id, body }) in (0..).zip(events) {
            let event = EventEntry { revision: self.revision, index, id: *id, body: body.clone() };
            self.values.insert(Place::Event(self.revision, index).encode(), Some(codec::encode_event(&event)));
        }
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        Self::Refused(error)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Corrupt { row } => Self::Refused(CommitError::Corrupt { row }),
            failed @ EngineError::Failed { .. } => Self::Failed(failed),
        }
    }
}
