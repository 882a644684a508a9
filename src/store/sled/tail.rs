//! What is checked when the files are opened: that they are a store of ours, and that the change sets at the end of its
//! log were written whole.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
};

use bytes::Bytes;

use super::{
    OpenError,
    directory::Directory,
    engine::{Engine, EngineError, row_name},
};
use crate::{
    domain::Revision,
    store::codec::{self, CommitPart, FORMAT, Family, Meta, Place},
};

/// Where the log and the audit chain end.
#[derive(Clone, Default)]
pub(super) struct Tail {
    pub(super) revision: Revision,
    pub(super) audit: u64,
    /// The newest audit record in the linker's form.
    pub(super) linked: Option<Bytes>,
}

/// Reads and checks the store's own rows; a new store gets `new` as its first.
pub(super) fn read(engine: &Engine, directory: &Directory, new: Meta) -> Result<(Meta, Tail), OpenError> {
    let meta = match engine.value(&Place::Meta.encode())? {
        Some(value) => read_meta(&value)?,
        None if engine.is_empty() && !directory.has_store()? => {
            engine.apply([(&Place::Meta.encode()[..], Some(&new.encode()[..]))])?;
            new
        }
        None => return Err(OpenError::Corrupt { row: Place::Meta.to_string() }),
    };
    let log = log(engine)?;
    let mut tail = whole(&log)?;
    nothing_beyond(engine, &tail)?;
    unchanged(engine, &log, tail.revision)?;
    if tail.audit > 0 {
        let newest = engine.value(&Place::Audit(tail.audit).encode())?;
        let newest = newest.ok_or(OpenError::TornChangeSet { revision: tail.revision })?;
        tail.linked = Some(codec::decode_audit(tail.audit, &newest).map_err(EngineError::from)?.linked);
    }
    Ok((meta, tail))
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
fn whole(log: &Log) -> Result<Tail, OpenError> {
    let Some((&newest, _)) = log.last_key_value() else { return Ok(Tail::default()) };
    let mut tail = Tail { revision: newest, ..Tail::default() };
    for revision in kept(newest) {
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
/// named by whoever reads it.
fn unchanged(engine: &Engine, log: &Log, newest: Revision) -> Result<(), OpenError> {
    let mut seen = HashSet::new();
    for revision in kept(newest).rev() {
        for footprint in log.get(&revision).into_iter().flatten().flat_map(|part| &part.footprints) {
            if !seen.insert(&footprint.place) {
                continue;
            }
            let stored = engine.value(&footprint.place)?;
            if stored.map(|value| codec::checksum(&value)) != footprint.checksum.map(Some) {
                return Err(OpenError::TornChangeSet { revision });
            }
        }
    }
    Ok(())
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

/// The revisions whose commit rows are kept when `newest` is the newest.
fn kept(newest: Revision) -> impl DoubleEndedIterator<Item = Revision> {
    let oldest = newest.0.saturating_sub(u64::from(CommitPart::SLOTS) - 1).max(1);
    (oldest..=newest.0).map(Revision)
}
