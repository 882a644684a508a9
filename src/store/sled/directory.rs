//! Who may use the store's directory, and whether its files can be believed.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::Advice;

use super::{OpenError, recovery};

/// A store directory that is ours for as long as this value lives.
pub(super) struct Directory {
    path: PathBuf,
    /// Holds the lock. Its one byte is a mark: [`TRUSTED`], [`DISTRUSTED`], or none before there is a store.
    lock: File,
}

impl Directory {
    /// Creates the directory where it is absent, closes it to others and takes its lock.
    pub(super) fn acquire(path: &Path) -> Result<Self, OpenError> {
        create(path).map_err(unreadable(path))?;
        close_to_others(path)?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock_path).map_err(unreadable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { directory: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(OpenError::Unreadable { path: lock_path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// sled's one data file.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Whether a store was once opened here to the end.
    pub(super) fn has_store(&self) -> Result<bool, OpenError> {
        Ok(self.mark()?.is_some())
    }

    /// Remembers that the files' cached pages may differ from the disk. This outlives the process, as those pages do,
    /// and need not outlive the machine, as those pages don't; so it is written without an fsync.
    pub(super) fn distrust_cached_pages(&self) {
        if let Err(error) = self.lock.write_all_at(&[DISTRUSTED], 0) {
            tracing::warn!(%error, "could not mark the store's files as failed");
        }
    }

    /// Remembers that there is a store, and that its cached pages are those of the disk.
    pub(super) fn trust(&self) -> Result<(), OpenError> {
        if self.mark()? == Some(TRUSTED) {
            return Ok(());
        }
        self.lock.write_all_at(&[TRUSTED], 0).and_then(|()| self.lock.sync_all()).map_err(unreadable(&self.path))
    }

    fn mark(&self) -> Result<Option<u8>, OpenError> {
        let mut mark = [0];
        let length = self.lock.read_at(&mut mark, 0).map_err(unreadable(&self.path))?;
        Ok((length == 1).then_some(mark[0]))
    }

    /// Makes sure, before sled looks at the data file, that sled will read what the disk holds.
    ///
    /// After a failed fsync the kernel may hold pages that it never wrote, marked clean: they would be read back as
    /// durable, and vanish with the machine. So what is still dirty is written, by handles that have not failed, and
    /// then the cached pages are dropped. And sled takes a read error at open for the end of its log, and overwrites
    /// what follows; so what it will read is read once without it.
    pub(super) fn settle(&self) -> Result<(), OpenError> {
        let data = self.data();
        let file = match OpenOptions::new().read(true).write(true).open(&data) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(OpenError::Unreadable { path: data, source }),
        };
        // sled takes this lock itself, but reports a taken one as any I/O error
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { directory: self.path.clone() }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Unreadable { path: data, source }),
        }
        file.sync_all().map_err(unreadable(&data))?;
        if self.mark()? == Some(DISTRUSTED) {
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| unreadable(&data)(error.into()))?;
        }
        // sled reads the newest of all snapshots, and gives up on one that it did not get to write whole
        let mut newest = None;
        for (path, whole) in self.snapshots()? {
            match whole {
                true => newest = newest.max(Some(path)),
                false => fs::remove_file(&path).map_err(unreadable(&path))?,
            }
        }
        recovery::read_ahead(&file, newest.as_deref()).map_err(unreadable(&data))?;
        // Not left to the end of the handle: a child that is being started at this moment has it too, and would keep the
        // lock until it is another program.
        file.unlock().map_err(unreadable(&data))
    }

    /// Where a store is filled that is to take this one's place.
    pub(super) fn filling(&self) -> PathBuf {
        self.path.join("filling")
    }

    /// Bytes of the data file on the disk.
    pub(super) fn size(&self) -> Result<u64, OpenError> {
        let data = self.data();
        Ok(fs::metadata(&data).map_err(unreadable(&data))?.blocks() * 512)
    }

    /// Refuses a directory that was to be filled and was not; beside a store, what was left of filling another is
    /// removed.
    pub(super) fn leave_half_filled(&self) -> Result<(), OpenError> {
        let (filling, data) = (self.filling(), self.data());
        if !filling.try_exists().map_err(unreadable(&filling))? {
            return Ok(());
        }
        if !data.try_exists().map_err(unreadable(&data))? {
            return Err(OpenError::HalfFilled { directory: self.path.clone() });
        }
        self.clear_filling()
    }

    pub(super) fn clear_filling(&self) -> Result<(), OpenError> {
        let filling = self.filling();
        match fs::remove_dir_all(&filling) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unreadable(&filling)(error)),
            _ => Ok(()),
        }
    }

    /// Puts the data file of `filled`, closed and whole, in the place of this one's. The one rename of it is the moment
    /// at which the one store becomes the other. sled's snapshots speed up the opening of the data file that they were
    /// made of and break any other, so they are gone before and follow after.
    pub(super) fn take_over(&self, filled: &Self) -> Result<(), OpenError> {
        filled.sync()?;
        for (path, _) in self.snapshots()? {
            fs::remove_file(&path).map_err(unreadable(&path))?;
        }
        self.move_here(&filled.path.join("conf"))?;
        self.sync_names()?;
        self.move_here(&filled.data())?;
        self.sync_names()?;
        for (path, _) in filled.snapshots()? {
            self.move_here(&path)?;
        }
        self.sync_names()?;
        self.trust()
    }

    fn move_here(&self, file: &Path) -> Result<(), OpenError> {
        let name = file.file_name().expect("it is a file in a directory");
        fs::rename(file, self.path.join(name)).map_err(unreadable(file))
    }

    fn sync_names(&self) -> Result<(), OpenError> {
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(unreadable(&self.path))
    }

    /// sled's snapshots, and whether each was written to its end.
    fn snapshots(&self) -> Result<Vec<(PathBuf, bool)>, OpenError> {
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable(&self.path))? {
            let path = entry.map_err(unreadable(&self.path))?.path();
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if name.starts_with("snap.") {
                let whole = !name.ends_with(".generating");
                snapshots.push((path, whole));
            }
        }
        Ok(snapshots)
    }

    /// Makes the files' existence durable.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        for path in [self.data(), self.path.join("conf"), self.path.join("blobs"), self.path.clone()] {
            File::open(&path).and_then(|file| file.sync_all()).map_err(unreadable(&path))?;
        }
        Ok(())
    }

    /// Waits until sled's threads have let go of the data file, which they do shortly after its handle is dropped.
    pub(super) fn await_release(&self) {
        let release = |file: File| file.lock().and_then(|()| file.unlock());
        if let Err(error) = File::open(self.data()).and_then(release) {
            tracing::warn!(%error, "could not wait for the store's data file");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "could not give up the store directory's lock");
        }
    }
}

pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Unreadable { path: path.to_owned(), source }
}

fn create(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// Takes others' permissions away. A mounted volume may hand them out anew at each start (Kubernetes' `fsGroup` does),
/// so refusing to start would not do.
fn close_to_others(path: &Path) -> Result<(), OpenError> {
    let mode = fs::metadata(path).map_err(unreadable(path))?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|_| OpenError::Exposed { directory: path.to_owned(), mode })?;
    tracing::warn!(store.directory = %path.display(), store.mode = format!("{mode:o}"), "closed the store directory to others");
    Ok(())
}

const TRUSTED: u8 = b'.';
const DISTRUSTED: u8 = b'!';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_holders_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/store");
        let held = Directory::acquire(&path).unwrap();
        assert!(matches!(Directory::acquire(&path), Err(OpenError::InUse { directory }) if directory == path));
        drop(held);
        Directory::acquire(&path).unwrap();
    }

    /// The pages that must not be believed outlive the process, and so does the mark.
    #[test]
    fn distrust_outlives_the_holder_until_it_is_settled() {
        let parent = tempfile::tempdir().unwrap();
        let held = Directory::acquire(parent.path()).unwrap();
        assert!(!held.has_store().unwrap());
        held.trust().unwrap();
        held.distrust_cached_pages();
        drop(held);
        let next = Directory::acquire(parent.path()).unwrap();
        assert_eq!(next.mark().unwrap(), Some(DISTRUSTED));
        assert!(next.has_store().unwrap());
        next.trust().unwrap();
        assert_eq!(next.mark().unwrap(), Some(TRUSTED));
    }
}
