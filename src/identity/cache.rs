//! Tokens already verified. Found by a keyed digest of the whole token: the cache holds no token, and nobody outside
//! can compute which entry a token would have.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::{judge::Lifetime, jwk::Fingerprint};
use crate::domain::{Caller, SubjectId};

pub(super) struct VerifiedTokens {
    key: hmac::Key,
    entries: Cache<Digest, Arc<Verified>>,
    /// Counts [`Self::forget`]; an entry that was being made meanwhile is not kept.
    forgotten: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; 32]);

/// How often subjects had been forgotten when a verification began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// What stays true of a token while its key stays and its time lasts.
pub(super) struct Verified {
    pub(super) caller: Arc<Caller>,
    pub(super) lifetime: Lifetime,
    /// Place of the issuer among the configured ones.
    pub(super) issuer: usize,
    pub(super) signed_with: Fingerprint,
}

impl VerifiedTokens {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            entries: Cache::new(MOST_ENTRIES),
            forgotten: AtomicU64::new(0),
        }
    }

    pub(super) fn digest(&self, token: &str) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.key, token.as_bytes()).as_ref());
        Digest(bytes)
    }

    pub(super) fn entry(&self, digest: &Digest) -> Option<Arc<Verified>> {
        self.entries.get(digest)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.forgotten.load(Ordering::SeqCst))
    }

    /// Keeps the entry unless a subject was forgotten since `mark`.
    pub(super) fn keep(&self, digest: Digest, verified: Verified, mark: Mark) {
        self.entries.insert(digest, Arc::new(verified));
        // Looked at after the insertion: a forgetting that begins later finds the entry itself.
        if self.mark() != mark {
            self.entries.remove(&digest);
        }
    }

    pub(super) fn drop_entry(&self, digest: &Digest) {
        self.entries.remove(digest);
    }

    pub(super) fn forget(&self, subject: &SubjectId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.entries.retain(|_, verified| verified.caller.subject != *subject);
    }
}

const MOST_ENTRIES: usize = 50_000;
