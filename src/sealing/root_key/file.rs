//! A root key in a file of one line: `claviger-root-key-v1:` and 32 bytes as base64url without padding.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::{fs::OFlags, process::geteuid};
use zeroize::Zeroizing;

use super::{super::Random, super::RandomUnavailable, RootKey};

const PREFIX: &str = "claviger-root-key-v1:";
/// Base64url of 32 bytes.
const ENCODED: usize = 43;
/// A little more than a well-formed file, so that a longer one is seen to be longer.
const LONGEST: usize = PREFIX.len() + ENCODED + 3;

/// Why a root key file is not used, and what cures it.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyFileError {
    #[error("there is no root key file {path}: create it with `claviger generate-key {path}`")]
    Missing { path: PathBuf },
    #[error("the root key file {path} exists already: a root key is never overwritten; choose another path")]
    Exists { path: PathBuf },
    #[error("the root key file {path} is a symbolic link: name the file itself")]
    Symlink { path: PathBuf },
    #[error("the root key file {path} is not a regular file: name a file")]
    NotAFile { path: PathBuf },
    #[error(
        "the root key file {path} belongs to user {owner}, and this process runs as {process}: `chown {process} {path}`"
    )]
    Owner { path: PathBuf, owner: u32, process: u32 },
    #[error("the root key file {path} has mode {mode:04o}, so others may use it: `chmod 600 {path}`")]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "the root key file {path} is not one line of `{PREFIX}` and 32 bytes as base64url: restore it from its copy"
    )]
    Malformed { path: PathBuf },
    #[error("the root key file {path} cannot be used: check the path and the disk")]
    Io { path: PathBuf, source: io::Error },
    #[error("no root key was made: the random source failed")]
    Random(#[from] RandomUnavailable),
}

/// Reads the root key. The file must be a regular file of the effective user with mode 0600 or 0400; all of it is
/// checked on the opened file, so that it cannot be exchanged between check and use.
pub fn load(path: &Path) -> Result<RootKey, RootKeyFileError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|source| refuse_open(path, source))?;
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    check(path, &metadata, geteuid().as_raw())?;
    let mut text = Zeroizing::new([0; LONGEST]);
    let length = read_up_to(&mut file, text.as_mut()).map_err(|source| io_error(path, source))?;
    let secret = decode(&text[..length]).ok_or_else(|| RootKeyFileError::Malformed { path: path.to_owned() })?;
    Ok(RootKey::from_secret(&secret))
}

/// Makes a new root key in a new file of mode 0600, durable on return together with its directory entry.
pub fn create(path: &Path, random: &Random) -> Result<RootKey, RootKeyFileError> {
    let secret = random.secret()?;
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    line.extend_from_slice(PREFIX.as_bytes());
    let mut encoded = Zeroizing::new([0; ENCODED]);
    URL_SAFE_NO_PAD.encode_slice(secret.as_ref(), encoded.as_mut()).expect("32 bytes encode to 43 characters");
    line.extend_from_slice(encoded.as_ref());
    line.push(b'\n');
    write_new(path, &line).map_err(|source| match source.kind() {
        // The directory is: advice to make the file with this very command would go round in a circle.
        io::ErrorKind::NotFound => io_error(path, source),
        _ => refuse_open(path, source),
    })?;
    Ok(RootKey::from_secret(&secret))
}

fn write_new(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(line).and_then(|()| file.sync_all()).and_then(|()| sync_directory_of(path));
    if written.is_err() {
        // Ours, and not a key: it would only stand in the way of the next try. The first error is the one to report.
        drop(fs::remove_file(path));
    }
    written
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn check(path: &Path, metadata: &Metadata, process: u32) -> Result<(), RootKeyFileError> {
    let path = || path.to_owned();
    if !metadata.is_file() {
        return Err(RootKeyFileError::NotAFile { path: path() });
    }
    if metadata.uid() != process {
        return Err(RootKeyFileError::Owner { path: path(), owner: metadata.uid(), process });
    }
    match metadata.permissions().mode() & 0o7777 {
        0o600 | 0o400 => Ok(()),
        mode => Err(RootKeyFileError::Mode { path: path(), mode }),
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

fn decode(unverified_text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let line = unverified_text.strip_suffix(b"\n").unwrap_or(unverified_text);
    let encoded = line.strip_prefix(PREFIX.as_bytes())?;
    let mut secret = Zeroizing::new([0; 32]);
    let length = URL_SAFE_NO_PAD.decode_slice(encoded, secret.as_mut()).ok()?;
    (length == secret.len()).then_some(secret)
}

fn refuse_open(path: &Path, source: io::Error) -> RootKeyFileError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => RootKeyFileError::Missing { path },
        io::ErrorKind::AlreadyExists => RootKeyFileError::Exists { path },
        _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            RootKeyFileError::Symlink { path }
        }
        _ => RootKeyFileError::Io { path, source },
    }
}

fn io_error(path: &Path, source: io::Error) -> RootKeyFileError {
    RootKeyFileError::Io { path: path.to_owned(), source }
}
