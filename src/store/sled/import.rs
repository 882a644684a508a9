//! Filling a store directory from a copy, and writing a store anew without what its files no longer need.
//!
//! Both fill a directory of their own inside the store's, and put its data file in place with one rename, once it has
//! been opened and checked: at every moment there is one whole store or, in a new directory, none.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    OpenError,
    copy::{self, check},
    directory::Directory,
    engine::{Engine, EngineError, guarded, row_name},
    tail,
    writer::closed,
};
use crate::store::{
    CopiedRow, Head,
    codec::{self, CommitPart, Footprint, Meta, Place},
};

/// A store that is being filled from a copy. Dropping it before [`Import::finish`] leaves everything as it was. All of
/// it blocks.
pub struct Import {
    home: Arc<Directory>,
    filling: Directory,
    /// `None` only while opening and closing.
    engine: Option<Engine>,
}

impl Import {
    /// Into a directory without a store, which is created where it is absent.
    pub fn begin(directory: &Path) -> Result<Self, OpenError> {
        let home = Directory::acquire(directory)?;
        if home.has_store()? {
            return Err(OpenError::Occupied { directory: directory.to_owned() });
        }
        Self::into(Arc::new(home))
    }

    /// Into a directory whose store, if there is one, stays whole until the copy takes its place at the end.
    pub fn replace(directory: &Path) -> Result<Self, OpenError> {
        Self::into(Arc::new(Directory::acquire(directory)?))
    }

    fn into(home: Arc<Directory>) -> Result<Self, OpenError> {
        home.clear_filling()?;
        let filling = Directory::acquire(&home.filling())?;
        let mut import = Self { home, filling, engine: None };
        import.engine = Some(Engine::open(&import.filling, PAGE_CACHE)?);
        Ok(import)
    }

    /// Adds rows; of those with the same place the last one counts. A row that is not intact is refused.
    pub fn add(&mut self, rows: &[CopiedRow]) -> Result<(), OpenError> {
        for row in rows {
            let copied = (&copy::BEGIN[..]..&copy::END[..]).contains(&&row.place[..]);
            match &row.value {
                _ if !copied => return Err(OpenError::Corrupt { row: row_name(&row.place) }),
                Some(value) => check(&row.place, value)?,
                None => {}
            }
        }
        let rows = rows.iter().map(|row| (&row.place[..], row.value.as_deref()));
        self.engine()?.write(rows)?;
        Ok(())
    }

    /// Makes the store durable under this head, which is the copy's (with a new epoch when the store goes on from an
    /// older state, so that watchers do not trust old positions), checks it, and puts it in place.
    pub fn finish(mut self, head: Head) -> Result<(), OpenError> {
        let meta = Meta {
            compacted: head.compacted,
            audit_purged: head.audit_purged,
            filled_at: head.revision,
            ..Meta::new(head.installation, head.epoch)
        };
        let mut rows = vec![(Place::Meta.encode(), meta.encode())];
        if meta.filled_at.0 > 0 {
            let footprint = Footprint { place: rows[0].0.clone().into(), checksum: codec::checksum(&rows[0].1) };
            let parts = CommitPart::split(head.revision, head.audit, vec![footprint]);
            rows.extend(parts.into_iter().map(|part| (part.place().encode(), part.encode())));
        }
        self.engine()?.apply(rows.iter().map(|(place, value)| (&place[..], Some(&value[..]))))?;
        self.close();
        // sled writes down here what it would otherwise have to find out at the first opening
        let engine = self.engine.insert(Engine::open(&self.filling, PAGE_CACHE)?);
        let found = tail::read(engine, None)?.head();
        self.close();
        if found != (Head { available: true, ..head }) {
            return Err(OpenError::Incomplete { revision: head.revision, found: found.revision });
        }
        self.home.take_over(&self.filling)
    }

    fn engine(&self) -> Result<&Engine, EngineError> {
        self.engine.as_ref().ok_or_else(closed)
    }

    fn close(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.close(&self.filling);
        }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        self.close();
        if let Err(error) = self.home.clear_filling() {
            tracing::warn!(%error, "could not remove what was left of filling a store");
        }
    }
}

/// What [`compact`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub rows: u64,
    /// Bytes of the data file on the disk, before and after.
    pub before: u64,
    pub after: u64,
}

/// Writes the store of a directory anew that no process has open. `progress` is told the number of rows so far. Needs
/// room for the live data once more, on the same volume. Blocks.
pub fn compact(directory: &Path, mut progress: impl FnMut(u64)) -> Result<Compacted, OpenError> {
    let home = Arc::new(Directory::acquire(directory)?);
    if !home.has_store()? {
        return Err(OpenError::Absent { directory: directory.to_owned() });
    }
    let before = home.size()?;
    let mut import = Import::into(Arc::clone(&home))?;
    let source = Engine::open(&home, PAGE_CACHE)?;
    let copied = guarded(|| copy_all(&source, &mut import, &mut progress));
    source.close(&home);
    let (head, rows) = copied?;
    import.finish(head)?;
    Ok(Compacted { rows, before, after: home.size()? })
}

fn copy_all(source: &Engine, import: &mut Import, progress: &mut impl FnMut(u64)) -> Result<(Head, u64), OpenError> {
    let head = tail::read(source, None)?.head();
    let (mut through, mut rows) = (Bytes::from_static(&copy::BEGIN), 0);
    while through < copy::END[..] {
        let page = copy::page(source, &mut through)?;
        import.add(&page)?;
        rows += page.len() as u64;
        progress(rows);
    }
    Ok((head, rows))
}

/// Bytes of sled's page cache while a store is filled.
const PAGE_CACHE: u64 = 64 << 20;
