//! sled itself: reads, and what makes a batch durable.

use std::{
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use ::sled::{Batch, Db, Mode};
use bytes::Bytes;

use super::{
    OpenError,
    directory::{Directory, unreadable},
    watchdog::Watchdog,
};
use crate::store::{StoreError, codec::Place};

/// How sled keeps the files of a store directory; for tools that read them directly, while no store has them open.
pub fn files(directory: &Path) -> ::sled::Config {
    ::sled::Config::new().path(directory).segment_size(SEGMENT).flush_every_ms(None).mode(Mode::HighThroughput)
}

/// A page of sled's tree holds up to 19 rows, and one over a quarter of a segment would go to a file under `blobs/`,
/// which sled writes without an fsync. 19 rows of 64 KiB fit in a quarter of this.
pub(super) const SEGMENT: usize = 8 * 1024 * 1024;

/// An open sled database. After the first [`EngineError::Failed`] it must be closed and opened anew.
pub(super) struct Engine {
    db: Db,
    watchdog: Watchdog,
    /// Our own handle of the data file, for the fsync that sled's flush is not.
    data: File,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error("the store's files failed")]
    Failed { source: io::Error },
    #[error("the row {row} is corrupt")]
    Corrupt { row: String },
}

impl Engine {
    pub(super) fn open(directory: &Directory, page_cache: u64) -> Result<Self, OpenError> {
        directory.settle()?;
        let config = files(directory.path()).cache_capacity(page_cache);
        let db = guarded(|| config.open()).map_err(|error| unreadable(directory.path())(error.into()))?;
        let path = directory.data();
        let data = File::options().read(true).write(true).open(&path).map_err(unreadable(&path));
        match data.and_then(|data| directory.sync().map(|()| data)) {
            Ok(data) => Ok(Self { watchdog: Watchdog::over(db.clone()), db, data }),
            Err(error) => {
                release(db, directory);
                Err(error)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.db.is_empty()
    }

    pub(super) fn value(&self, place: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.db.get(place).map_err(|error| failed(place, error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Rows whose key starts with `prefix`, in key order, from `start` on.
    pub(super) fn rows<'a>(
        &self,
        prefix: &'a [u8],
        start: Bound<&[u8]>,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), EngineError>> + use<'a> {
        self.db
            .range::<&[u8], _>((start, Bound::Unbounded))
            .map(|row| {
                let (key, value) = row.map_err(|error| failed(prefix, error))?;
                Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
            })
            .take_while(|row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }

    /// The last key that starts with the byte `family`.
    pub(super) fn last(&self, family: u8) -> Result<Option<Bytes>, EngineError> {
        let last = self.db.scan_prefix([family]).next_back().transpose().map_err(|error| failed(&[family], error))?;
        Ok(last.map(|(key, _)| Bytes::copy_from_slice(&key)))
    }

    /// Writes the rows (`None` removes one) all or none, and returns once they are on the disk.
    pub(super) fn apply<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        for (place, value) in rows {
            match value {
                Some(value) => batch.insert(place, value),
                None => batch.remove(place),
            }
        }
        guarded(|| {
            self.db.apply_batch(batch)?;
            // hands the pages to the kernel (`pwrite`, `sync_file_range`), which is not an fsync
            self.watchdog.during(|| self.db.flush())?;
            self.data.sync_data()?;
            Ok(())
        })
    }

    /// Writes rows one by one; they are on the disk after the next [`Engine::apply`], or in part before it. In batches
    /// sled would keep every page that it replaces: it frees them a few with each call, whatever the call's size.
    pub(super) fn write<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), EngineError> {
        guarded(|| {
            for (place, value) in rows {
                match value {
                    Some(value) => self.db.insert(place, value)?,
                    None => self.db.remove(place)?,
                };
            }
            Ok(())
        })
    }

    pub(super) fn close(self, directory: &Directory) {
        drop(self.watchdog);
        drop(self.data);
        release(self.db, directory);
    }
}

/// Drops the handle, whatever state it is in, and waits until the files are free. sled's drop panics when its own fsync
/// fails; every acknowledged write is durable by then.
fn release(db: Db, directory: &Directory) {
    let released: io::Result<()> = guarded(|| {
        drop(db);
        Ok(())
    });
    if let Err(error) = released {
        tracing::warn!(%error, "sled did not close cleanly");
    }
    directory.await_release();
}

/// sled asserts where it could answer with an error; a panic there is an I/O error here.
pub(super) fn guarded<T, E: From<io::Error>>(run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(io::Error::other("the store panicked").into()))
}

/// A page that fails its checksum does not poison the handle, and opening anew would not help: the row is corrupt.
fn failed(place: &[u8], error: ::sled::Error) -> EngineError {
    match error {
        ::sled::Error::Corruption { .. } => EngineError::Corrupt { row: row_name(place) },
        other => other.into(),
    }
}

pub(super) fn row_name(place: &[u8]) -> String {
    Place::decode(place).map_or_else(|| format!("{place:02x?}"), |place| place.to_string())
}

impl From<io::Error> for EngineError {
    fn from(source: io::Error) -> Self {
        Self::Failed { source }
    }
}

impl From<::sled::Error> for EngineError {
    fn from(error: ::sled::Error) -> Self {
        Self::Failed { source: error.into() }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { row } => Self::Corrupt { row },
            StoreError::Unavailable => io::Error::other("the store is not open").into(),
        }
    }
}
