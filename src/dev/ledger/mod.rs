//! What was granted: grants, codes and tokens, by fingerprint. Pure rules; [`storage`] keeps them.

mod grant;
mod refusal;
mod storage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{grant::GrantId, refusal::TokenRefusal};
pub(super) use self::{
    grant::{Grant, RefreshTokenRecord},
    storage::LedgerStore,
};
use super::{random::Fingerprint, realm::Realm};
use crate::domain::{Rotation, ScopeSet, Timestamp};
use std::time::Duration;

/// Everything that the server has given out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    grants: BTreeMap<GrantId, Grant>,
    codes: BTreeMap<Fingerprint, Code>,
    refresh_tokens: BTreeMap<Fingerprint, GrantId>,
    access_tokens: BTreeMap<Fingerprint, AccessTokenRecord>,
    swept_at: Option<Timestamp>,
}

/// An authorization code and what it is bound to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Code {
    pub(super) grant: GrantId,
    pub(super) redirect_uri: String,
    /// PKCE `code_challenge`, S256.
    pub(super) challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) expires_at: Timestamp,
    pub(super) used: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccessTokenRecord {
    pub(super) grant: GrantId,
    pub(super) scopes: ScopeSet,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// What a client shows with a code.
pub(super) struct CodeProof {
    pub(super) realm: Realm,
    pub(super) client: &'static str,
    /// OAuth 2.1 clients leave it out; OAuth 2.0 clients must repeat it.
    pub(super) redirect_uri: Option<String>,
    /// S256 of the verifier.
    pub(super) challenge: String,
}

/// How a refresh token is used.
pub(super) struct RefreshUse {
    pub(super) realm: Realm,
    pub(super) client: &'static str,
    /// Asked for in the request; `None`: everything granted.
    pub(super) scopes: Option<ScopeSet>,
    pub(super) rotation: Rotation,
    pub(super) replacement: Fingerprint,
}

/// A refresh token was accepted.
pub(super) struct Renewal {
    pub(super) grant: GrantId,
    pub(super) scopes: ScopeSet,
    /// The replacement is live and has to be handed out.
    pub(super) rotated: bool,
}

impl Ledger {
    pub(super) fn approve(&mut self, id: GrantId, grant: Grant, fingerprint: Fingerprint, code: Code) {
        self.grants.insert(id, grant);
        self.codes.insert(fingerprint, code);
    }

    /// Takes a code in exchange for its grant. A code that was taken before ends the grant (RFC 6749 §4.1.2, §10.5).
    pub(super) fn exchange(
        &mut self,
        fingerprint: &Fingerprint,
        proof: &CodeProof,
        now: Timestamp,
    ) -> Result<Code, TokenRefusal> {
        let code = self.codes.get_mut(fingerprint).ok_or(TokenRefusal::UnknownCode)?;
        let grant = self.grants.get_mut(&code.grant).ok_or(TokenRefusal::UnknownCode)?;
        if !grant.belongs_to(proof.realm, proof.client) {
            return Err(TokenRefusal::WrongClient);
        }
        if code.used {
            grant.end(now);
            return Err(TokenRefusal::ReplayedCode);
        }
        if code.expires_at <= now || grant.ended_at.is_some() {
            return Err(TokenRefusal::ExpiredCode);
        }
        if proof.redirect_uri.as_ref().is_some_and(|uri| *uri != code.redirect_uri) {
            return Err(TokenRefusal::WrongRedirectUri);
        }
        if code.challenge != proof.challenge {
            return Err(TokenRefusal::WrongVerifier);
        }
        code.used = true;
        Ok(code.clone())
    }

    /// Accepts a refresh token and rotates it. One that was replaced before ends the grant (RFC 9700 §4.14.2).
    pub(super) fn renew(
        &mut self,
        presented: &Fingerprint,
        using: RefreshUse,
        now: Timestamp,
    ) -> Result<Renewal, TokenRefusal> {
        let id = self.refresh_tokens.get(presented).ok_or(TokenRefusal::UnknownRefreshToken)?.clone();
        let grant = self.grants.get_mut(&id).ok_or(TokenRefusal::UnknownRefreshToken)?;
        if !grant.belongs_to(using.realm, using.client) {
            return Err(TokenRefusal::WrongClient);
        }
        if grant.ended_at.is_some() {
            return Err(TokenRefusal::GrantEnded);
        }
        if !grant.accepts(presented, using.rotation, now) {
            grant.end(now);
            return Err(TokenRefusal::ReusedRefreshToken);
        }
        let scopes = using.scopes.unwrap_or_else(|| grant.scopes.clone());
        if !grant.scopes.contains_all(&scopes) {
            return Err(TokenRefusal::ScopeExceeded);
        }
        let rotated = using.rotation != Rotation::None;
        if matches!(using.rotation, Rotation::Strict | Rotation::Grace { .. }) {
            grant.replace(presented, now);
        }
        if rotated {
            self.add_refresh_token(&id, using.replacement);
        }
        Ok(Renewal { grant: id, scopes, rotated })
    }

    pub(super) fn add_refresh_token(&mut self, id: &GrantId, fingerprint: Fingerprint) {
        let Some(grant) = self.grants.get_mut(id) else { return };
        self.refresh_tokens.insert(fingerprint.clone(), id.clone());
        if let Some(forgotten) = grant.remember(RefreshTokenRecord { fingerprint, replaced_at: None }) {
            self.refresh_tokens.remove(&forgotten);
        }
    }

    pub(super) fn add_access_token(&mut self, fingerprint: Fingerprint, record: AccessTokenRecord) {
        self.access_tokens.insert(fingerprint, record);
    }

    pub(super) fn remove_access_token(&mut self, fingerprint: &Fingerprint) {
        self.access_tokens.remove(fingerprint);
    }

    pub(super) fn end_grant(&mut self, id: &GrantId, now: Timestamp) {
        if let Some(grant) = self.grants.get_mut(id) {
            grant.end(now);
        }
    }

    pub(super) fn grant(&self, id: &GrantId) -> Option<&Grant> {
        self.grants.get(id)
    }

    pub(super) fn grants(&self) -> impl Iterator<Item = (&GrantId, &Grant)> {
        self.grants.iter()
    }

    /// An access token that a resource would accept now, and its grant.
    pub(super) fn live_access_token(
        &self,
        fingerprint: &Fingerprint,
        realm: Realm,
        now: Timestamp,
    ) -> Option<(&AccessTokenRecord, &Grant)> {
        let record = self.access_tokens.get(fingerprint).filter(|record| record.expires_at > now)?;
        let grant = self.grants.get(&record.grant)?;
        (grant.realm == realm && grant.ended_at.is_none()).then_some((record, grant))
    }

    /// The grant that a refresh token belongs to, live or not.
    pub(super) fn grant_of_refresh_token(&self, fingerprint: &Fingerprint) -> Option<(&GrantId, &Grant)> {
        let id = self.refresh_tokens.get(fingerprint)?;
        self.grants.get(id).map(|grant| (id, grant))
    }

    /// Forgets what can never matter again; does its work at most once a minute.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        if self.swept_at.is_some_and(|at| now.since(at) < SWEEP_PERIOD) {
            return;
        }
        self.swept_at = Some(now);
        self.codes.retain(|_, code| code.expires_at > now);
        self.access_tokens.retain(|_, token| token.expires_at > now);
        let codes = &self.codes;
        let access_tokens = &self.access_tokens;
        self.grants.retain(|id, grant| match grant.ended_at {
            Some(at) => now.since(at) < ENDED_GRANTS_STAY,
            None => {
                grant.has_refresh_tokens()
                    || codes.values().any(|code| code.grant == *id)
                    || access_tokens.values().any(|token| token.grant == *id)
            }
        });
        let grants = &self.grants;
        self.refresh_tokens.retain(|_, id| grants.contains_key(id));
    }
}

const SWEEP_PERIOD: Duration = Duration::from_secs(60);
const ENDED_GRANTS_STAY: Duration = Duration::from_secs(3600);
