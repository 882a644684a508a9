//! What was asked of the server: counts, and the token endpoint's log. No secrets.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{Endpoint, GrantId, TokenRefusal, parameters::Parameters};
use crate::domain::Timestamp;

/// Requests counted since the start, refused and faulty ones too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub requests: BTreeMap<Endpoint, u64>,
    pub token_requests: BTreeMap<GrantType, u64>,
}

/// `grant_type` of a token request (RFC 6749 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    AuthorizationCode,
    RefreshToken,
    /// A refresh without a refresh token: it spends nothing, and its answer tells that somebody is there.
    Probe,
    /// Absent, repeated or unknown.
    Other,
}

/// One request to the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    pub grant_type: GrantType,
    pub at: Timestamp,
    pub outcome: TokenOutcome,
}

/// What became of a token request, whether or not its answer arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOutcome {
    Issued(GrantId),
    Refused(TokenRefusal),
    /// Not a good request, or not a known client; the error code that was answered.
    Rejected(&'static str),
    /// A fault answered or cut the connection, and nothing happened.
    Fault,
}

/// Collects; cheap to clone, all clones are one.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    stats: Stats,
    token_requests: VecDeque<TokenRequest>,
}

impl Stats {
    pub fn requests(&self, endpoint: Endpoint) -> u64 {
        self.requests.get(&endpoint).copied().unwrap_or(0)
    }

    pub fn token_requests(&self, grant_type: GrantType) -> u64 {
        self.token_requests.get(&grant_type).copied().unwrap_or(0)
    }
}

impl GrantType {
    pub(super) fn of(request: &Parameters) -> Self {
        match request.single("grant_type") {
            Some("authorization_code") => Self::AuthorizationCode,
            Some("refresh_token") if request.single("refresh_token").is_none() => Self::Probe,
            Some("refresh_token") => Self::RefreshToken,
            _ => Self::Other,
        }
    }
}

impl Journal {
    pub(super) fn count_request(&self, endpoint: Endpoint) {
        *self.entries().stats.requests.entry(endpoint).or_default() += 1;
    }

    pub(super) fn count_token_request(&self, grant_type: GrantType) {
        *self.entries().stats.token_requests.entry(grant_type).or_default() += 1;
    }

    pub(super) fn note_token_request(&self, grant_type: GrantType, at: Timestamp, outcome: TokenOutcome) {
        let mut entries = self.entries();
        if entries.token_requests.len() == LONGEST_LOG {
            entries.token_requests.pop_front();
        }
        entries.token_requests.push_back(TokenRequest { grant_type, at, outcome });
    }

    pub(super) fn stats(&self) -> Stats {
        self.entries().stats.clone()
    }

    pub(super) fn token_requests(&self) -> Vec<TokenRequest> {
        self.entries().token_requests.iter().cloned().collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const LONGEST_LOG: usize = 100_000;
