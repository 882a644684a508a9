//! A root key in a file of one line: `claviger-root-key-v1:` and 32 bytes as base64url without padding.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{
    super::{
        Random, RandomUnavailable,
        private_file::{self, PrivateFileError},
    },
    RootKey,
};

const PREFIX: &str = "claviger-root-key-v1:";
/// Base64url of 32 bytes.
const ENCODED: usize = 43;
/// With the end of the line.
const LONGEST: usize = PREFIX.len() + ENCODED + 1;

/// Why a root key file is not used, and what cures it.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyFileError {
    #[error("there is no root key file {path}: create it with `claviger generate-key {path}`")]
    Missing { path: PathBuf },
    #[error("the root key file {path} exists already: a root key is never overwritten; choose another path")]
    Exists { path: PathBuf },
    #[error("no root key is named: put the path of one into `sealing.root_keys`")]
    NoneNamed,
    #[error(transparent)]
    Refused(PrivateFileError),
    #[error(
        "the root key file {path} is not one line of `{PREFIX}` and 32 bytes as base64url: restore it from its copy"
    )]
    Malformed { path: PathBuf },
    #[error("the root key file {path} cannot be made: check the path and the disk")]
    Io { path: PathBuf, source: io::Error },
    #[error("no root key was made: the random source failed")]
    Random(#[from] RandomUnavailable),
}

/// Reads the root key from a file that [`private_file`] accepts.
pub fn load(path: &Path) -> Result<RootKey, RootKeyFileError> {
    let malformed = || RootKeyFileError::Malformed { path: path.to_owned() };
    let text = private_file::read(path, LONGEST).map_err(|error| match error {
        PrivateFileError::Missing { path } => RootKeyFileError::Missing { path },
        PrivateFileError::TooLong { .. } => malformed(),
        other => RootKeyFileError::Refused(other),
    })?;
    let secret = decode(&text).ok_or_else(malformed)?;
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
        io::ErrorKind::AlreadyExists => RootKeyFileError::Exists { path: path.to_owned() },
        _ => RootKeyFileError::Io { path: path.to_owned(), source },
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

fn decode(unverified_text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let line = unverified_text.strip_suffix(b"\n").unwrap_or(unverified_text);
    let encoded = line.strip_prefix(PREFIX.as_bytes())?;
    let mut secret = Zeroizing::new([0; 32]);
    let length = URL_SAFE_NO_PAD.decode_slice(encoded, secret.as_mut()).ok()?;
    (length == secret.len()).then_some(secret)
}
