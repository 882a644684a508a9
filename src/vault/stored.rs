//! What reads give and writes take.

use std::{ops::Deref, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    domain::{
        AccessToken, Granted, IdToken, KeyId, Nonce, RefreshToken, RefreshTokenEnd, ScopeSet, SubjectId, TenantId,
        Timestamp,
    },
    store::{IndexEntry, RecordKey, Row},
};

/// A value as it was read, with what a later change needs to prove that it is still the newest. Clones share it.
pub struct Stored<T>(Arc<Opened<T>>);

/// What [`Stored`] gives access to.
#[derive(Clone)]
pub struct Opened<T> {
    pub value: T,
    pub(super) key: RecordKey,
    pub(super) row: Arc<Row>,
    pub(super) parked: Option<ParkedRecord>,
}

/// The secrets of one token response. No `Debug`: it holds tokens.
#[derive(Clone)]
pub struct TokenSet {
    pub access: AccessToken,
    pub refresh: Option<RefreshToken>,
    /// Kept only until the account is known.
    pub id_token: Option<IdToken>,
}

/// Tokens that an exchange brought and that wait in their flow to be judged, with what the answer said of them.
#[derive(Clone)]
pub struct FlowTokens {
    pub tokens: TokenSet,
    pub granted: Granted,
    pub obtained_at: Timestamp,
    /// The attempt's, for the ID token's check; `None` where the broker sent none.
    pub nonce: Option<Nonce>,
}

/// What an update does with a connection's tokens.
#[derive(Clone, Copy)]
pub enum Tokens<'a> {
    /// They stay as they are, unopened; the generation must stay too.
    Keep,
    Replace(&'a TokenSet),
    Drop,
}

/// What an update does with a flow's waiting tokens.
#[derive(Clone, Copy)]
pub enum Parked<'a> {
    Keep,
    Replace(&'a FlowTokens),
    Drop,
}

/// What is kept of a subject itself. It outlives an erasure, so it holds no more than this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub tenant: TenantId,
    pub subject: SubjectId,
    /// The key that the subject's records are sealed under.
    pub key: KeyId,
    /// Tokens issued before this no longer open a session.
    pub not_before: Option<Timestamp>,
    /// Set once, and never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<Erased>,
}

/// What stays of an erased subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    pub at: Timestamp,
    /// The tenant's key at that time. As long as it can be had, an older copy of the store opens.
    pub tenant_key: KeyId,
}

/// The sealed form of every record: the value, and what is known of tokens that wait beside it.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) value: T,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parked: Option<ParkedRecord>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ParkedRecord {
    /// The row version that brought the tokens: what their fields are sealed for.
    pub(super) version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) granted: Option<GrantedRecord>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct GrantedRecord {
    scopes: ScopeSet,
    expires_at: Option<Timestamp>,
    refreshable: bool,
    obtained_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token_end: Option<RefreshTokenEnd>,
}

impl Subject {
    pub(super) fn new(tenant: TenantId, subject: SubjectId, key: KeyId) -> Self {
        Self { tenant, subject, key, not_before: None, erased: None }
    }
}

impl<T> Stored<T> {
    pub(super) fn new(opened: Opened<T>) -> Self {
        Self(Arc::new(opened))
    }

    pub fn into_value(self) -> T
    where
        T: Clone,
    {
        Arc::unwrap_or_clone(self.0).value
    }

    /// Rises by one with every write of the record.
    pub fn version(&self) -> u64 {
        self.row.version
    }

    /// When the scheduler looks at the record, as of this read.
    pub fn due(&self) -> Option<Timestamp> {
        self.row.index.iter().find_map(IndexEntry::due_at)
    }
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Stored<T> {
    type Target = Opened<T>;

    fn deref(&self) -> &Opened<T> {
        &self.0
    }
}

impl GrantedRecord {
    pub(super) fn of(tokens: &FlowTokens) -> Self {
        let Granted { scopes, expires_at, refreshable, refresh_token_end } = tokens.granted.clone();
        Self { scopes, expires_at, refreshable, obtained_at: tokens.obtained_at, refresh_token_end }
    }

    pub(super) fn with(self, tokens: TokenSet, nonce: Option<Nonce>) -> FlowTokens {
        let Self { scopes, expires_at, refreshable, obtained_at, refresh_token_end } = self;
        let granted = Granted { scopes, expires_at, refreshable, refresh_token_end };
        FlowTokens { tokens, granted, obtained_at, nonce }
    }
}
