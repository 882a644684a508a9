//! Copies of everything as of one revision, while the writer goes on.
//!
//! A copy scans the tree in pages. The writer notes the places that change behind the scan, and the copy reads those
//! again, in rounds. Once few are left it reads them, and the head with them, under the lock that keeps the next group
//! from being applied: that fixes the revision, and is the only moment in which a writer waits for a copy.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use futures_util::stream;

use super::{
    engine::{Engine, EngineError, row_name},
    store::Reader,
};
use crate::store::{
    Copied, CopiedRow, CopyError, Copying, StoreError,
    codec::{self, Family, Place},
};

/// The copies that are being taken.
#[derive(Default)]
pub(super) struct Copies(Mutex<Vec<Weak<Behind>>>);

/// What changes behind one copy.
struct Behind(Mutex<Track>);

struct Track {
    /// Everything up to this place has been read.
    through: Bytes,
    /// Of that, what has changed since.
    changed: BTreeSet<Box<[u8]>>,
    /// Rows that were read again after the scan.
    again: usize,
    /// Why the copy can't be finished.
    ended: Option<CopyError>,
}

/// Begins a copy as of now or later.
pub(super) fn begin(reader: Reader) -> Copying {
    let behind = Arc::new(Behind(Mutex::new(Track::new())));
    reader.shared.copies.lock().push(Arc::downgrade(&behind));
    Copying::new(stream::try_unfold(Step::Read { reader, behind }, Step::next))
}

enum Step {
    Read { reader: Reader, behind: Arc<Behind> },
    End(Copied),
    Done,
}

impl Step {
    async fn next(self) -> Result<Option<(Copied, Self)>, CopyError> {
        let (reader, behind) = match self {
            Self::Read { reader, behind } => (reader, behind),
            Self::End(end) => return Ok(Some((end, Self::Done))),
            Self::Done => return Ok(None),
        };
        let (shared, visited) = (Arc::clone(&reader.shared), Arc::clone(&behind));
        // rows and head belong together: both change only under the lock that a read holds
        let read =
            reader.read(move |engine, _| Ok(visited.lock().visit(engine)?.map(|visit| (visit, *shared.head.borrow()))));
        Ok(Some(match read.await?? {
            (Visit::Rows(rows), _) => (Copied::Rows(rows), Self::Read { reader, behind }),
            (Visit::LastRows(rows), head) => (Copied::Rows(rows), Self::End(Copied::End { head })),
        }))
    }
}

/// What one look at the tree brought.
enum Visit {
    Rows(Vec<CopiedRow>),
    LastRows(Vec<CopiedRow>),
}

impl Track {
    fn new() -> Self {
        Self { through: Bytes::from_static(&BEGIN), changed: BTreeSet::new(), again: 0, ended: None }
    }

    fn visit(&mut self, engine: &Engine) -> Result<Result<Visit, CopyError>, EngineError> {
        if let Some(ended) = &self.ended {
            return Ok(Err(ended.clone()));
        }
        let scanned = self.through >= END[..];
        if self.changed.len() > if scanned { LAST.max((self.again / 4).min(SOON)) } else { SOON } {
            let rows = self.changed_rows(engine, PAGE)?;
            self.again += if scanned { rows.len() } else { 0 };
            return Ok(Ok(Visit::Rows(rows)));
        }
        if scanned {
            return Ok(Ok(Visit::LastRows(self.changed_rows(engine, usize::MAX)?)));
        }
        Ok(Ok(Visit::Rows(page(engine, &mut self.through)?)))
    }

    /// Reads places again that changed, up to a page of this size.
    fn changed_rows(&mut self, engine: &Engine, page: usize) -> Result<Vec<CopiedRow>, EngineError> {
        let (mut rows, mut size) = (Vec::new(), 0);
        while size < page {
            let Some(place) = self.changed.pop_first() else { break };
            let value = engine.value(&place)?;
            if let Some(value) = &value
                && !is_copied(&place, value)?
            {
                continue;
            }
            size += ROW + value.as_ref().map_or(0, Bytes::len);
            rows.push(CopiedRow { place: place.into_vec().into(), value });
        }
        Ok(rows)
    }

    fn end(&mut self, error: CopyError) {
        self.changed.clear();
        self.ended = Some(error);
    }
}

/// The next page of a scan that has read everything up to `through`, which begins at [`BEGIN`] and is at [`END`] when
/// there is no more.
pub(super) fn page(engine: &Engine, through: &mut Bytes) -> Result<Vec<CopiedRow>, EngineError> {
    let (mut rows, mut size) = (Vec::new(), 0);
    for row in engine.rows(&[], Bound::Excluded(&through[..])) {
        let (place, value) = row?;
        if place >= END[..] {
            break;
        }
        if !is_copied(&place, &value)? {
            continue;
        }
        size += ROW + value.len();
        rows.push(CopiedRow { place, value: Some(value) });
        if size >= PAGE {
            break;
        }
    }
    // shorter than a page: there was no more
    *through = rows.last().filter(|_| size >= PAGE).map_or(Bytes::from_static(&END), |row| row.place.clone());
    Ok(rows)
}

/// Whether the row goes into a copy. An event that is damaged does not, and keeps nobody from having a copy: what it
/// told is stored with the records.
fn is_copied(place: &[u8], value: &Bytes) -> Result<bool, EngineError> {
    match (check(place, value), Place::decode(place)) {
        (Err(EngineError::Corrupt { row }), Some(Place::Event(..))) => {
            tracing::error!(store.row = row, "a stored event is corrupt, and is left out of the copy");
            Ok(false)
        }
        (checked, _) => checked.map(|()| true),
    }
}

/// Holds when an intact row stands here.
pub(super) fn check(place: &[u8], value: &Bytes) -> Result<(), EngineError> {
    let decoded = Place::decode(place).ok_or_else(|| EngineError::Corrupt { row: row_name(place) })?;
    Ok(codec::verify(&decoded, value)?)
}

impl Copies {
    /// Tells the copies what a durable group changed, before anyone may read it.
    pub(super) fn note(&self, changed: &HashMap<Vec<u8>, Option<Bytes>>) {
        self.each(|track| {
            let behind = changed.keys().filter(|place| (&BEGIN[..]..&END[..]).contains(&&place[..]));
            track.changed.extend(behind.filter(|place| place[..] <= track.through[..]).map(|place| place[..].into()));
            if track.changed.len() > MOST {
                track.end(CopyError::Outrun { places: MOST });
            }
        });
    }

    /// Ends all copies: what the files hold may have changed without a note.
    pub(super) fn end(&self) {
        self.each(|track| track.end(StoreError::Unavailable.into()));
    }

    fn each(&self, mut tell: impl FnMut(&mut Track)) {
        self.lock().retain(|copy| {
            copy.upgrade().is_some_and(|behind| {
                tell(&mut behind.lock());
                true
            })
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Behind>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Behind {
    fn lock(&self) -> MutexGuard<'_, Track> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The families that are copied lie from here to before [`END`]. The others say where this store stands, and that goes
/// with the head.
pub(super) const BEGIN: [u8; 1] = [Family::Record as u8];
pub(super) const END: [u8; 1] = [Family::Commit as u8];

/// Bytes that are read at a time.
const PAGE: usize = 512 * 1024;
/// Bytes that a row takes in memory besides its value.
const ROW: usize = 100;
/// Changed places that are read again before the scan goes on.
const SOON: usize = 16 * 1024;
/// Changed places that may be left for the end. A copy whose reader is slow is allowed more, the longer it goes on.
const LAST: usize = 4 * 1024;
/// Changed places that are remembered, about 40 MB.
const MOST: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// The writer's memory is bounded, whatever a copy's reader does.
    #[test]
    fn a_copy_that_falls_too_far_behind_is_given_up() {
        let (copies, behind) = (Copies::default(), Arc::new(Behind(Mutex::new(Track::new()))));
        copies.lock().push(Arc::downgrade(&behind));
        let place = |number: usize| [&BEGIN[..], &number.to_be_bytes()].concat();
        let change = |numbers: std::ops::Range<usize>| numbers.map(|number| (place(number), None)).collect();
        behind.lock().through = place(MOST).into();
        copies.note(&change(0..MOST));
        // twice the same, and what the scan has still before it
        copies.note(&change(0..9));
        copies.note(&change(MOST + 1..MOST + 9));
        assert!(behind.lock().ended.is_none() && behind.lock().changed.len() == MOST);
        copies.note(&change(MOST..MOST + 1));
        assert_eq!(behind.lock().ended, Some(CopyError::Outrun { places: MOST }));
        assert!(behind.lock().changed.is_empty());
        drop(behind);
        copies.note(&change(0..1));
        assert!(copies.lock().is_empty());
    }
}
