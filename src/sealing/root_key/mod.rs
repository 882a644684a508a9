//! The root key: the one secret that is kept outside the store, and where it comes from.
//!
//! - [`mod@file`]: a file that only its owner can read

pub mod file;

use zeroize::Zeroizing;

use super::{Key, installation::derive};
use crate::domain::KeyId;

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
