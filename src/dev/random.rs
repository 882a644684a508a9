//! Random text, from the source that the server was given.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Fills buffers with random bytes.
#[derive(Clone)]
pub(super) struct Random(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) + Send + Sync;

/// SHA-256 of a secret: what the server remembers in its stead. The secrets have 256 bits, so no salt is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Fingerprint(String);

impl Random {
    pub(super) fn new(fill: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    pub(super) fn bytes(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        (self.0)(bytes.as_mut());
        bytes
    }

    /// 0 to 99.
    pub(super) fn percent(&self) -> u8 {
        let [first, second, ..] = *self.bytes();
        (u16::from_le_bytes([first, second]) % 100) as u8
    }

    /// 256 random bits after `prefix`, which tells a person or a secret scanner what kind of text it is.
    pub(super) fn text(&self, prefix: &str) -> String {
        let mut text = String::with_capacity(prefix.len() + 43);
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(*self.bytes(), &mut text);
        text
    }
}

impl Fingerprint {
    pub(super) fn of(secret: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(digest(&SHA256, secret.as_bytes())))
    }
}
