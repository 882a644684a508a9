//! One user's approval for one client, and the family of refresh tokens that descends from it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dev::{random::Fingerprint, realm::Realm};
use crate::domain::{Rotation, ScopeSet, Timestamp};

/// Names a grant; says nothing about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GrantId(String);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dev) struct Grant {
    pub(in crate::dev) realm: Realm,
    pub(in crate::dev) client: String,
    pub(in crate::dev) user: String,
    pub(in crate::dev) scopes: ScopeSet,
    pub(in crate::dev) granted_at: Timestamp,
    /// With refresh tokens.
    #[serde(default = "always")]
    pub(in crate::dev) offline: bool,
    /// Its tokens act as the client's bot, not as the user.
    #[serde(default)]
    pub(in crate::dev) as_bot: bool,
    /// Revoked, by the client or because a code or refresh token came twice.
    pub(in crate::dev) ended_at: Option<Timestamp>,
    /// Oldest first.
    refresh_tokens: Vec<RefreshTokenRecord>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dev) struct RefreshTokenRecord {
    pub(in crate::dev) fingerprint: Fingerprint,
    /// Another one was handed out in its place.
    pub(in crate::dev) replaced_at: Option<Timestamp>,
}

impl GrantId {
    pub(in crate::dev) fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Grant {
    pub(in crate::dev) fn new(realm: Realm, client: &str, user: &str, scopes: ScopeSet, granted_at: Timestamp) -> Self {
        Self {
            realm,
            client: client.to_owned(),
            user: user.to_owned(),
            scopes,
            granted_at,
            offline: true,
            as_bot: false,
            ended_at: None,
            refresh_tokens: Vec::new(),
        }
    }

    pub(in crate::dev) fn belongs_to(&self, realm: Realm, client: &str) -> bool {
        self.realm == realm && self.client == client
    }

    pub(in crate::dev) fn end(&mut self, now: Timestamp) {
        self.ended_at.get_or_insert(now);
    }

    /// Whether the token endpoint takes this refresh token now.
    pub(in crate::dev) fn accepts(&self, fingerprint: &Fingerprint, rotation: Rotation, now: Timestamp) -> bool {
        let Some(record) = self.refresh_tokens.iter().find(|record| record.fingerprint == *fingerprint) else {
            return false;
        };
        self.ended_at.is_none()
            && match (record.replaced_at, rotation) {
                (None, _) => true,
                (Some(at), Rotation::Grace { seconds }) => now.since(at).as_secs() < seconds,
                (Some(_), Rotation::None | Rotation::Reuse | Rotation::Strict) => false,
            }
    }

    pub(in crate::dev) fn live_refresh_tokens(&self, rotation: Rotation, now: Timestamp) -> usize {
        self.refresh_tokens.iter().filter(|record| self.accepts(&record.fingerprint, rotation, now)).count()
    }

    pub(super) fn has_refresh_tokens(&self) -> bool {
        !self.refresh_tokens.is_empty()
    }

    /// Starts the old token's grace, unless it runs already.
    pub(super) fn replace(&mut self, fingerprint: &Fingerprint, now: Timestamp) {
        if let Some(record) = self.refresh_tokens.iter_mut().find(|record| record.fingerprint == *fingerprint) {
            record.replaced_at.get_or_insert(now);
        }
    }

    /// Adds a token to the family; gives back the one that is forgotten for it, a replaced one first.
    pub(super) fn remember(&mut self, record: RefreshTokenRecord) -> Option<Fingerprint> {
        self.refresh_tokens.push(record);
        if self.refresh_tokens.len() <= LONGEST_FAMILY {
            return None;
        }
        let oldest = self.refresh_tokens.iter().position(|record| record.replaced_at.is_some()).unwrap_or(0);
        Some(self.refresh_tokens.remove(oldest).fingerprint)
    }
}

fn always() -> bool {
    true
}

/// Refresh tokens remembered for a grant; a replaced one beyond that is unknown rather than reused.
const LONGEST_FAMILY: usize = 100;
