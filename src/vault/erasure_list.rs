//! The list of erasures: a file outside every copy of the store, by which a restored copy is erased again.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{Vault, VaultError};
use crate::{
    domain::Timestamp,
    sealing::InstallationKeys,
    store::{RecordKey, RecordKind},
};

const PREFIX: &str = "claviger-erasure-v1";

/// One line for each erasure: the keyed hash that names the subject's row, the time, and a MAC over both.
#[derive(Clone, Debug)]
pub struct ErasureList(Place);

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Memory(Arc<Lines>),
}

#[derive(Debug, Default)]
struct Lines(Mutex<String>);

/// What a line says.
pub(super) struct Listed {
    pub(super) row: RecordKey,
    pub(super) at: Timestamp,
}

impl ErasureList {
    pub fn new(path: PathBuf) -> Self {
        Self(Place::File(path))
    }

    /// Lives as long as its clones do: beside a store of which that is true.
    pub fn in_memory() -> Self {
        Self(Place::Memory(Arc::default()))
    }

    /// `None`: it is in memory.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::File(path) => Some(path),
            Place::Memory(_) => None,
        }
    }

    /// Durable when it returns.
    pub(super) async fn add(&self, keys: &InstallationKeys, row: &RecordKey, at: Timestamp) -> Result<(), VaultError> {
        let line = line(keys, row, at);
        match &self.0 {
            Place::File(path) => {
                let path = path.clone();
                off_thread(move || append(&path, &line)).await
            }
            Place::Memory(lines) => {
                lines.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
                Ok(())
            }
        }
    }

    /// Oldest first. A last line without an end was never acknowledged, and is left out.
    pub(super) async fn read(&self, keys: &InstallationKeys) -> Result<Vec<Listed>, VaultError> {
        let text = match &self.0 {
            Place::File(path) => {
                let path = path.clone();
                off_thread(move || match std::fs::read_to_string(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                    other => other,
                })
                .await?
            }
            Place::Memory(lines) => lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let listed =
            (1..).zip(whole).map(|(number, line)| parse(keys, line).ok_or(VaultError::ErasureList { line: number }));
        listed.collect()
    }
}

impl Vault {
    pub(super) async fn listed(&self, list: &ErasureList) -> Result<Vec<Listed>, VaultError> {
        self.watched(list.read(self.keys()).await)
    }
}

fn line(keys: &InstallationKeys, row: &RecordKey, at: Timestamp) -> String {
    let mac = keys.erasures().hash(&[b"listed", row.id(), &at.as_millis().to_be_bytes()]);
    format!("{PREFIX} {} {} {}\n", hex(row.id()), at.as_millis(), hex(&mac))
}

fn parse(keys: &InstallationKeys, line: &str) -> Option<Listed> {
    let mut words = line.split(' ');
    words.next().filter(|word| *word == PREFIX)?;
    let row = RecordKey::new(RecordKind::Subject, unhex(words.next()?)?);
    let at = Timestamp::from_millis(words.next()?.parse().ok()?);
    let mac = unhex(words.next()?)?;
    let authentic = keys.erasures().verify(&[b"listed", row.id(), &at.as_millis().to_be_bytes()], &mac);
    (authentic && words.next().is_none()).then_some(Listed { row, at })
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // Erasures at once write one after the other.
    file.lock()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // What a crash cut off would spoil the line that follows it.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, VaultError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
    done.map_err(|error| VaultError::ErasuresUnwritten { reason: error.kind() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
