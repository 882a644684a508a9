//! A secret in a file that only its owner can use.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};
use zeroize::Zeroizing;

/// Why a file is not read as a secret, and what cures it.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("there is no file {path}: make it, with mode 0600")]
    Missing { path: PathBuf },
    #[error("{path} is a symbolic link: name the file itself")]
    Symlink { path: PathBuf },
    #[error("{path} is not a regular file: name a file")]
    NotAFile { path: PathBuf },
    #[error("{path} belongs to user {owner}, and this process runs as {process}: `chown {process} {path}`")]
    Owner { path: PathBuf, owner: u32, process: u32 },
    #[error("{path} has mode {mode:04o}, so others may use it: `chmod 600 {path}`")]
    Mode { path: PathBuf, mode: u32 },
    #[error("{path} has more than {longest} bytes: name a file with the secret alone")]
    TooLong { path: PathBuf, longest: usize },
    #[error("{path} cannot be used: check the path and the disk")]
    Io { path: PathBuf, source: io::Error },
}

/// Reads a file of at most `longest` bytes. It must be a regular file of the effective user with mode 0600 or 0400;
/// all of it is checked on the opened file, so that it cannot be exchanged between check and use.
pub fn read(path: &Path, longest: usize) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|source| refuse_open(path, source))?;
    let failed = |source| PrivateFileError::Io { path: path.to_owned(), source };
    check(path, &file.metadata().map_err(failed)?, geteuid().as_raw())?;
    // One more than is allowed, so that a longer file is seen to be longer; and never grown, which would leave copies.
    let mut bytes = Zeroizing::new(vec![0; longest + 1]);
    let length = read_up_to(&mut file, &mut bytes).map_err(failed)?;
    if length > longest {
        return Err(PrivateFileError::TooLong { path: path.to_owned(), longest });
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn check(path: &Path, metadata: &Metadata, process: u32) -> Result<(), PrivateFileError> {
    let path = || path.to_owned();
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile { path: path() });
    }
    if metadata.uid() != process {
        return Err(PrivateFileError::Owner { path: path(), owner: metadata.uid(), process });
    }
    match metadata.permissions().mode() & 0o7777 {
        0o600 | 0o400 => Ok(()),
        mode => Err(PrivateFileError::Mode { path: path(), mode }),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn refuse_open(path: &Path, source: io::Error) -> PrivateFileError {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        PrivateFileError::Missing { path }
    } else if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        PrivateFileError::Symlink { path }
    } else {
        PrivateFileError::Io { path, source }
    }
}
