//! The rules: what a code or refresh token obtains, and what its second use costs.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    TokenRefusal,
    grant::{Grant, GrantId, RefreshTokenRecord},
};
use crate::dev::{random::Fingerprint, realm::Realm};
use crate::domain::{Rotation, ScopeSet, Timestamp};

/// Everything that the server has given out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dev) struct Ledger {
    grants: BTreeMap<GrantId, Grant>,
    codes: BTreeMap<Fingerprint, Code>,
    refresh_tokens: BTreeMap<Fingerprint, GrantId>,
    access_tokens: BTreeMap<Fingerprint, AccessTokenRecord>,
    swept_at: Option<Timestamp>,
}

/// An authorization code and what it is bound to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dev) struct Code {
    pub(in crate::dev) grant: GrantId,
    pub(in crate::dev) redirect_uri: String,
    /// PKCE `code_challenge`, S256.
    pub(in crate::dev) challenge: String,
    pub(in crate::dev) nonce: Option<String>,
    pub(in crate::dev) expires_at: Timestamp,
    pub(in crate::dev) used: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dev) struct AccessTokenRecord {
    pub(in crate::dev) grant: GrantId,
    pub(in crate::dev) scopes: ScopeSet,
    pub(in crate::dev) issued_at: Timestamp,
    pub(in crate::dev) expires_at: Timestamp,
}

/// What a client shows with a code.
pub(in crate::dev) struct CodeProof {
    pub(in crate::dev) realm: Realm,
    pub(in crate::dev) client: &'static str,
    /// OAuth 2.1 clients leave it out; OAuth 2.0 clients must repeat it.
    pub(in crate::dev) redirect_uri: Option<String>,
    /// S256 of the verifier.
    pub(in crate::dev) challenge: String,
}

/// How a refresh token is used.
pub(in crate::dev) struct RefreshUse {
    pub(in crate::dev) realm: Realm,
    pub(in crate::dev) client: &'static str,
    /// Asked for in the request; `None`: everything granted.
    pub(in crate::dev) scopes: Option<ScopeSet>,
    pub(in crate::dev) rotation: Rotation,
    pub(in crate::dev) replacement: Fingerprint,
}

/// A refresh token was accepted.
pub(in crate::dev) struct Renewal {
    pub(in crate::dev) grant: GrantId,
    pub(in crate::dev) scopes: ScopeSet,
    /// The replacement is live and has to be handed out.
    pub(in crate::dev) rotated: bool,
}

impl Ledger {
    pub(in crate::dev) fn approve(&mut self, id: GrantId, grant: Grant, fingerprint: Fingerprint, code: Code) {
        self.grants.insert(id, grant);
        self.codes.insert(fingerprint, code);
    }

    /// Takes a code in exchange for its grant. A code that was taken before ends the grant (RFC 6749 §4.1.2, §10.5).
    pub(in crate::dev) fn exchange(
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
    pub(in crate::dev) fn renew(
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

    pub(in crate::dev) fn add_refresh_token(&mut self, id: &GrantId, fingerprint: Fingerprint) {
        let Some(grant) = self.grants.get_mut(id) else { return };
        self.refresh_tokens.insert(fingerprint.clone(), id.clone());
        if let Some(forgotten) = grant.remember(RefreshTokenRecord { fingerprint, replaced_at: None }) {
            self.refresh_tokens.remove(&forgotten);
        }
    }

    pub(in crate::dev) fn add_access_token(&mut self, fingerprint: Fingerprint, record: AccessTokenRecord) {
        self.access_tokens.insert(fingerprint, record);
    }

    pub(in crate::dev) fn remove_access_token(&mut self, fingerprint: &Fingerprint) {
        self.access_tokens.remove(fingerprint);
    }

    pub(in crate::dev) fn end_grant(&mut self, id: &GrantId, now: Timestamp) {
        if let Some(grant) = self.grants.get_mut(id) {
            grant.end(now);
        }
    }

    pub(in crate::dev) fn end_grants(&mut self, now: Timestamp, of: impl Fn(&Grant) -> bool) {
        self.grants.values_mut().filter(|grant| of(grant)).for_each(|grant| grant.end(now));
    }

    pub(in crate::dev) fn grant(&self, id: &GrantId) -> Option<&Grant> {
        self.grants.get(id)
    }

    pub(in crate::dev) fn grants(&self) -> impl Iterator<Item = (&GrantId, &Grant)> {
        self.grants.iter()
    }

    /// An access token that a resource would accept now, and its grant.
    pub(in crate::dev) fn live_access_token(
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
    pub(in crate::dev) fn grant_of_refresh_token(&self, fingerprint: &Fingerprint) -> Option<(&GrantId, &Grant)> {
        let id = self.refresh_tokens.get(fingerprint)?;
        self.grants.get(id).map(|grant| (id, grant))
    }

    /// Forgets what can never matter again; does its work at most once a minute.
    pub(in crate::dev) fn sweep(&mut self, now: Timestamp) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn id() -> GrantId {
        GrantId::new("grant".to_owned())
    }

    fn token(number: usize) -> Fingerprint {
        Fingerprint::of(&number.to_string())
    }

    /// A ledger with one grant, whose first refresh token is number 0.
    fn granted() -> Ledger {
        let mut ledger = Ledger::default();
        let grant = Grant::new(Realm::Provider, "client", "alice", ScopeSet::default(), NOW);
        let code = Code {
            grant: id(),
            redirect_uri: String::new(),
            challenge: String::new(),
            nonce: None,
            expires_at: NOW.plus(Duration::from_secs(600)),
            used: true,
        };
        ledger.approve(id(), grant, Fingerprint::of("code"), code);
        ledger.add_refresh_token(&id(), token(0));
        ledger
    }

    fn using(rotation: Rotation, replacement: usize) -> RefreshUse {
        RefreshUse { realm: Realm::Provider, client: "client", scopes: None, rotation, replacement: token(replacement) }
    }

    #[test]
    fn a_long_family_forgets_replaced_tokens_and_keeps_the_live_one() {
        let mut ledger = granted();
        for number in 0..250 {
            assert!(ledger.renew(&token(number), using(Rotation::Strict, number + 1), NOW).is_ok());
        }
        assert_eq!(ledger.refresh_tokens.len(), 100);
        assert!(matches!(
            ledger.renew(&token(0), using(Rotation::Strict, 999), NOW),
            Err(TokenRefusal::UnknownRefreshToken)
        ));
        assert!(ledger.renew(&token(250), using(Rotation::Strict, 251), NOW).is_ok());
    }

    #[test]
    fn a_family_without_replaced_tokens_forgets_the_oldest() {
        let mut ledger = granted();
        for number in 1..=100 {
            assert!(ledger.renew(&token(0), using(Rotation::Reuse, number), NOW).is_ok());
        }
        assert!(ledger.renew(&token(1), using(Rotation::None, 0), NOW).is_ok());
        assert!(ledger.grant_of_refresh_token(&token(0)).is_none());
    }

    #[test]
    fn sweeping_forgets_the_dead_and_keeps_what_can_be_refreshed() {
        let mut ledger = granted();
        let access = AccessTokenRecord {
            grant: id(),
            scopes: ScopeSet::default(),
            issued_at: NOW,
            expires_at: NOW.plus(Duration::from_secs(60)),
        };
        ledger.add_access_token(Fingerprint::of("access"), access);
        let later = NOW.plus(Duration::from_secs(86_400 * 365));
        ledger.sweep(later);
        assert!(ledger.codes.is_empty() && ledger.access_tokens.is_empty());
        assert!(ledger.grant_of_refresh_token(&token(0)).is_some());

        ledger.end_grant(&id(), later);
        ledger.sweep(later.plus(Duration::from_secs(3599)));
        assert!(ledger.grant(&id()).is_some(), "an ended grant can be looked at for an hour");
        ledger.sweep(later.plus(Duration::from_secs(3599 + 60)));
        assert!(ledger.grants.is_empty() && ledger.refresh_tokens.is_empty());
    }
}
