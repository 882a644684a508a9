//! What is checked when the files are opened: that they are a store of ours, and that the change sets at the end of its
//! log were written whole.

use std::{collections::BTreeMap, ops::Bound, panic::resume_unwind, thread};

use bytes::Bytes;

use super::{
    OpenError,
    engine::{Engine, EngineError, row_name},
};
use crate::{
    domain::Revision,
    store::{
        Head,
        codec::{self, CommitPart, FORMAT, Family, Meta, Place},
    },
};

/// Where the log and the audit chain begin and end.
#[derive(Clone)]
pub(super) struct Tail {
    pub(super) meta: Meta,
    pub(super) revision: Revision,
    pub(super) audit: u64,
    /// The newest audit record in the linker's form.
    pub(super) linked: Option<Bytes>,
}

impl Tail {
    pub(super) fn head(&self) -> Head {
        Head {
            installation: self.meta.installation,
            epoch: self.meta.epoch,
            revision: self.revision,
            compacted: self.meta.compacted,
            audit: self.audit,
            audit_purged: self.meta.audit_purged,
            available: true,
        }
    }

    /// The revisions whose commit rows are kept.
    fn kept(&self) -> impl DoubleEndedIterator<Item = Revision> + use<> {
        let oldest = self.revision.0.saturating_sub(u64::from(CommitPart::SLOTS) - 1);
        (oldest.max(self.meta.filled_at.0).max(1)..=self.revision.0).map(Revision)
    }
}

/// Reads and checks the store's own rows. Where nothing is yet, `new` becomes the first row; without it there has to be
/// a store.
pub(super) fn read(engine: &Engine, new: Option<Meta>) -> Result<Tail, OpenError> {
    let meta = match engine.value(&Place::Meta.encode())? {
        Some(value) => read_meta(&value)?,
        None => {
            let new = new.filter(|_| engine.is_empty()).ok_or(OpenError::Corrupt { row: Place::Meta.to_string() })?;
            engine.apply([(&Place::Meta.encode()[..], Some(&new.encode()[..]))])?;
            new
        }
    };
    let log = log(engine)?;
    let mut tail = whole(&log, meta)?;
    nothing_beyond(engine, &tail)?;
    unchanged(engine, &log, &tail)?;
    if tail.audit > 0 {
        let newest = engine.value(&Place::Audit(tail.audit).encode())?;
        let newest = newest.ok_or(OpenError::TornChangeSet { revision: tail.revision })?;
        tail.linked = Some(codec::decode_audit(tail.audit, &newest).map_err(EngineError::from)?.linked);
    }
    Ok(tail)
}

fn read_meta(value: &Bytes) -> Result<Meta, OpenError> {
    match value.first() {
        Some(&found) if found != FORMAT => Err(OpenError::UnknownFormat { found }),
        _ => Meta::decode(value).map_err(|_| OpenError::Corrupt { row: Place::Meta.to_string() }),
    }
}

/// The commit rows by revision.
type Log = BTreeMap<Revision, Vec<CommitPart>>;

fn log(engine: &Engine) -> Result<Log, EngineError> {
    let mut log = Log::new();
    for row in engine.rows(&[Family::Commit as u8], Bound::Included(&[Family::Commit as u8])) {
        let (key, value) = row?;
        let Some(Place::Commit { slot, part }) = Place::decode(&key) else {
            return Err(EngineError::Corrupt { row: row_name(&key) });
        };
        let part = CommitPart::decode(slot, part, &value)?;
        log.entry(part.revision).or_default().push(part);
    }
    Ok(log)
}

/// Holds when every change set at the end of the log is closed by all parts of its commit row. Parts that an older set
/// left in a slot, because the newer one needs fewer, are older than the kept end and say nothing.
fn whole(log: &Log, meta: Meta) -> Result<Tail, OpenError> {
    let revision = log.last_key_value().map_or(meta.filled_at, |(newest, _)| *newest);
    let mut tail = Tail { meta, revision, audit: 0, linked: None };
    for revision in tail.kept() {
        let torn = OpenError::TornChangeSet { revision };
        let Some(parts) = log.get(&revision) else { return Err(torn) };
        let first = &parts[0];
        let rows: usize = parts.iter().map(|part| part.footprints.len()).sum();
        let in_order = parts.iter().zip(0..).all(|(part, place)| part.part == place);
        if !in_order || parts.len() != usize::from(first.parts) || rows != first.rows as usize {
            return Err(torn);
        }
        tail.audit = first.audit;
    }
    Ok(tail)
}

/// Holds when every row is as the newest change set left it. The content of a row is not looked at: a damaged one is
/// named by whoever reads it. The rows lie all over a file that may be cold, so several threads wait for the disk.
fn unchanged(engine: &Engine, log: &Log, tail: &Tail) -> Result<(), OpenError> {
    let mut newest = BTreeMap::new();
    for revision in tail.kept().rev() {
        for footprint in log.get(&revision).into_iter().flatten().flat_map(|part| &part.footprints) {
            newest.entry(&footprint.place).or_insert((revision, footprint.checksum));
        }
    }
    let rows: Vec<_> = newest.into_iter().collect();
    let share = rows.len().div_ceil(READERS).max(READERS);
    let torn: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = rows.chunks(share).map(|share| scope.spawn(|| changed(engine, share))).collect();
        let found = readers.into_iter().map(|reader| reader.join().unwrap_or_else(|panic| resume_unwind(panic)));
        found.collect::<Result<_, EngineError>>()
    })?;
    match torn.into_iter().flatten().max() {
        Some(revision) => Err(OpenError::TornChangeSet { revision }),
        None => Ok(()),
    }
}

/// The newest revision that did not leave one of these rows as it is.
fn changed(engine: &Engine, rows: &[(&Bytes, (Revision, Option<u32>))]) -> Result<Option<Revision>, EngineError> {
    let mut torn = None;
    for (place, (revision, checksum)) in rows {
        let stored = engine.value(place)?;
        if stored.map(|value| codec::checksum(&value)) != checksum.map(Some) {
            torn = torn.max(Some(*revision));
        }
    }
    Ok(torn)
}

/// Holds when the newest change set is the last that left events or audit records.
fn nothing_beyond(engine: &Engine, tail: &Tail) -> Result<(), OpenError> {
    for family in [Family::Event, Family::Audit] {
        let Some(key) = engine.last(family as u8)? else { continue };
        let beyond = match Place::decode(&key) {
            Some(Place::Event(revision, _)) => (revision > tail.revision).then_some(revision),
            Some(Place::Audit(sequence)) => (sequence > tail.audit).then_some(tail.revision.next()),
            _ => return Err(OpenError::Corrupt { row: row_name(&key) }),
        };
        if let Some(revision) = beyond {
            return Err(OpenError::TornChangeSet { revision });
        }
    }
    Ok(())
}

/// Threads that check rows at open.
const READERS: usize = 16;
