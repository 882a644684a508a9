//! Bytes that only `sealing` can make and read; all that a store ever sees of a record's content.

use bytes::Bytes;

/// Sealed bytes: format, key id, nonce, ciphertext and tag. Opaque outside `sealing`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Bytes);

impl Sealed {
    /// Takes bytes that `sealing` made, or that a store kept. They are authenticated when opened, not here.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}
