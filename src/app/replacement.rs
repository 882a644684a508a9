//! Another directory in the place of a store's: filled beside it, exchanged in one step.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::store::sled::OpenError;

/// The place of a store, held against every broker, and the name of what will stand there. What was filled and not put
/// in place is removed with this value.
pub(super) struct Replacement {
    directory: PathBuf,
    /// `DIRECTORY.WORD`, for as long as it is not in place.
    staging: PathBuf,
    /// `DIRECTORY.KEPT`
    kept: PathBuf,
    /// The lock of the store that is there.
    held: Option<File>,
    filled: bool,
}

/// Why nothing was put in the store's place. What was there is there still.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    #[error(
        "{path} is left of an earlier attempt that was cut off: it holds a copy that is not finished or, if the exchange \
         had come to pass, the store of before; look, and move it away"
    )]
    LeftOver { path: PathBuf },
    #[error("{path} is still there from an earlier restore; move it away, or remove it when nobody needs it")]
    StillKept { path: PathBuf },
    #[error("{path} cannot be used; check the directory above it and the disk")]
    Unusable { path: PathBuf, source: io::Error },
    #[error(
        "the filesystem of {directory} cannot exchange directories; move {directory} away by hand and restore again"
    )]
    NoExchange { directory: PathBuf },
    #[error("a store was made in {directory} meanwhile; stop what makes it, and restore again")]
    Appeared { directory: PathBuf },
}

impl Replacement {
    /// Takes the place, which need not have a store yet. `word` tells what is going on, `kept` what the store that is
    /// there becomes.
    ///
    /// # Errors
    /// [`OpenError::InUse`] while a broker has the store open.
    pub(super) fn begin(directory: &Path, word: &str, kept: &str) -> anyhow::Result<Self> {
        // Where the configuration names a link, the store behind it is replaced and the link stays.
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        let held = hold(&directory)?;
        let staging = beside(&directory, word);
        if staging.symlink_metadata().is_ok() {
            return Err(NotReplaced::LeftOver { path: staging }.into());
        }
        let kept = beside(&directory, kept);
        if kept.symlink_metadata().is_ok() {
            return Err(NotReplaced::StillKept { path: kept }.into());
        }
        Ok(Self { directory, staging, kept, held, filled: false })
    }

    pub(super) fn staging(&self) -> &Path {
        &self.staging
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn has_store(&self) -> bool {
        self.directory.join("db").exists()
    }

    /// Puts the new directory in place, durably. Gives the path of the store that was there.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<PathBuf>> {
        if self.held.is_none() {
            // There was no store to hold, so a broker may have been started and have made one.
            self.held = hold(&self.directory)?;
            if self.has_store() {
                return Err(NotReplaced::Appeared { directory: self.directory.clone() }.into());
            }
        }
        let replaced = self.put_in_place()?;
        self.filled = true;
        // A directory that was made for a store and never had one is not worth keeping.
        let kept = replaced && fs::remove_dir(&self.staging).is_err();
        if kept {
            fs::rename(&self.staging, &self.kept).map_err(unusable(&self.kept))?;
        }
        self.sync().map_err(unusable(&self.directory))?;
        Ok(kept.then(|| self.kept.clone()))
    }

    /// Whether there was something before, which then has the staging directory's name.
    fn put_in_place(&self) -> Result<bool, NotReplaced> {
        if !self.directory.exists() {
            fs::rename(&self.staging, &self.directory).map_err(unusable(&self.directory))?;
            return Ok(false);
        }
        // In one step: a broker that is started at any moment finds a whole store, never none, which it would make.
        match renameat_with(CWD, &self.staging, CWD, &self.directory, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS) => Err(NotReplaced::NoExchange { directory: self.directory.clone() }),
            Err(error) => Err(unusable(&self.directory)(error.into())),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let above = self.directory.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above)?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.filled {
            // Ours, and of no use. The error that brought us here is the one to report.
            fs::remove_dir_all(&self.staging).ok();
        }
        drop(self.held.take());
    }
}

/// `DIRECTORY.WORD`
pub(super) fn beside(directory: &Path, word: &str) -> PathBuf {
    let mut name = OsString::from(directory);
    name.push(".");
    name.push(word);
    name.into()
}

/// The lock that a broker takes as long as it lives; `None` where there is no store.
fn hold(directory: &Path) -> anyhow::Result<Option<File>> {
    let path = directory.join("lock");
    let lock = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(NotReplaced::Unusable { path, source }.into()),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { directory: directory.to_owned() }.into()),
        Err(TryLockError::Error(source)) => Err(NotReplaced::Unusable { path, source }.into()),
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> NotReplaced {
    move |source| NotReplaced::Unusable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_made_meanwhile_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        let place = Replacement::begin(&directory, "restoring", "before-restore").unwrap();
        fs::create_dir(place.staging()).unwrap();
        fs::create_dir(&directory).unwrap();
        ["lock", "db"].iter().for_each(|name| fs::write(directory.join(name), "made meanwhile").unwrap());
        let refused = place.finish().unwrap_err();
        assert!(matches!(refused.downcast_ref(), Some(NotReplaced::Appeared { .. })), "{refused}");
        assert_eq!(fs::read_to_string(directory.join("db")).unwrap(), "made meanwhile");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "what was filled is gone");
    }

    #[test]
    fn an_empty_directory_is_not_kept() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("store");
        fs::create_dir(&directory).unwrap();
        let place = Replacement::begin(&directory, "restoring", "before-restore").unwrap();
        fs::create_dir(place.staging()).unwrap();
        fs::write(place.staging().join("db"), "new").unwrap();
        assert_eq!(place.finish().unwrap(), None);
        assert_eq!(fs::read_to_string(directory.join("db")).unwrap(), "new");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
