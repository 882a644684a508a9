//! The root key: the one secret that is kept outside the store, and where it comes from.
//!
//! - [`mod@file`]: a file that only its owner can read

pub mod file;

use std::{iter, path::PathBuf, vec};

use zeroize::Zeroizing;

use super::{Key, installation::derive};
use crate::domain::KeyId;
use file::RootKeyFileError;

/// The root keys that this process was given, newest first. Which of them is in force, the store says.
pub struct RootKeys {
    newest: RootKey,
    older: Vec<RootKey>,
}

/// Wraps tenant keys and the installation's secret. Its id is derived from the secret, so that a wrong key is known by
/// its name and not by a failed decryption.
pub struct RootKey(Key);

impl RootKey {
    pub fn from_secret(secret: &Zeroizing<[u8; 32]>) -> Self {
        let id = KeyId::from_bytes(*derive(secret, b"claviger v1 root key id"));
        Self(Key::from_bytes(id, None, derive(secret, b"claviger v1 root sealing key")))
    }

    pub fn id(&self) -> KeyId {
        self.0.id()
    }

    pub fn key(&self) -> &Key {
        &self.0
    }

    pub fn into_key(self) -> Key {
        self.0
    }
}

impl RootKeys {
    pub fn new(newest: RootKey, older: Vec<RootKey>) -> Self {
        Self { newest, older }
    }

    /// Reads the files, newest first.
    pub fn load(paths: &[PathBuf]) -> Result<Self, RootKeyFileError> {
        let (newest, older) = paths.split_first().ok_or(RootKeyFileError::NoneNamed)?;
        let older = older.iter().map(|path| file::load(path)).collect::<Result<_, _>>()?;
        Ok(Self { newest: file::load(newest)?, older })
    }

    pub fn newest(&self) -> &RootKey {
        &self.newest
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &RootKey> {
        iter::once(&self.newest).chain(&self.older)
    }
}

impl IntoIterator for RootKeys {
    type Item = RootKey;
    type IntoIter = iter::Chain<iter::Once<RootKey>, vec::IntoIter<RootKey>>;

    /// Newest first.
    fn into_iter(self) -> Self::IntoIter {
        iter::once(self.newest).chain(self.older)
    }
}

impl From<RootKey> for RootKeys {
    fn from(only: RootKey) -> Self {
        Self::new(only, Vec::new())
    }
}
