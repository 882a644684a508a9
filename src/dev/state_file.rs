//! Files that only their owner can read and that are replaced as a whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// The state could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{path} cannot be used: {kind}")]
    Io { path: PathBuf, kind: ErrorKind },
    /// Not what this version writes. What is in it is not repeated: it holds keys.
    #[error("{path} is not a state file of this version")]
    Unreadable { path: PathBuf },
    #[error("{path} is open to others (mode {mode:o}); it must be 0700")]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("the write was interrupted")]
    Interrupted,
}

/// One JSON file in a state directory.
pub(super) struct StateFile {
    directory: PathBuf,
    path: PathBuf,
}

impl StateFile {
    /// Makes the directory (0700) where it is missing; refuses one that others can enter.
    pub(super) fn new(directory: &Path, name: &str) -> Result<Self, StateError> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failed(directory, &error))?;
        let mode = fs::metadata(directory).map_err(|error| failed(directory, &error))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::OpenToOthers { path: directory.to_owned(), mode });
        }
        Ok(Self { directory: directory.to_owned(), path: directory.join(name) })
    }

    /// `None`: there is no such file yet.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.path, &error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| StateError::Unreadable { path: self.path.clone() })
    }

    /// After a crash the file holds the old content or the new, never a mixture.
    pub(super) fn write(&self, content: &impl Serialize) -> Result<(), StateError> {
        let json = serde_json::to_vec(content).map_err(|_| StateError::Unreadable { path: self.path.clone() })?;
        self.replace(&Zeroizing::new(json)).map_err(|error| failed(&self.path, &error))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // A file left over from a crash keeps its own mode.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn failed(path: &Path, error: &io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), kind: error.kind() }
}
