//! HMAC-SHA256 over canonical parts: look-up keys, fingerprints and authenticators.

use std::sync::Arc;

use aws_lc_rs::hmac;

use crate::domain::canonical;

/// A key for one purpose. Hashes of different part lists never collide by construction of the input. Clones share the
/// key: its prepared state is more than a kilobyte.
#[derive(Clone)]
pub struct KeyedHash(Arc<hmac::Key>);

impl KeyedHash {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    pub fn hash(&self, parts: &[&[u8]]) -> [u8; 32] {
        let tag = hmac::sign(&self.0, &canonical(parts));
        tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// Whether `unverified_mac` is the hash of `parts`, in time that does not depend on where they differ.
    pub fn verify(&self, parts: &[&[u8]], unverified_mac: &[u8]) -> bool {
        hmac::verify(&self.0, &canonical(parts), unverified_mac).is_ok()
    }
}
