//! ID tokens (OpenID Connect Core §2).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::{
    ledger::{GrantId, Ledger},
    oauth_error::OauthError,
    options::User,
    site::Site,
};
use crate::domain::{AccessToken, Scope, ScopeSet, Timestamp};

/// Who an ID token is about, and for whom.
pub(super) struct IdTokenClaims {
    client: String,
    user: String,
    scopes: ScopeSet,
    authenticated_at: Timestamp,
    nonce: Option<String>,
}

impl IdTokenClaims {
    /// `None` unless the grant covers `openid`.
    pub(super) fn of(ledger: &Ledger, grant: &GrantId, nonce: Option<String>) -> Option<Self> {
        let grant = ledger.grant(grant)?;
        has(&grant.scopes, "openid").then(|| Self {
            client: grant.client.clone(),
            user: grant.user.clone(),
            scopes: grant.scopes.clone(),
            authenticated_at: grant.granted_at,
            nonce,
        })
    }

    pub(super) fn sign(
        self,
        site: &Site,
        access_token: &AccessToken,
        other_subject: Option<&str>,
    ) -> Result<String, OauthError> {
        let now = site.now();
        let mut claims = self.about_the_user();
        claims.insert("iss".to_owned(), json!(site.issuer()));
        claims.insert("sub".to_owned(), json!(other_subject.unwrap_or(&self.user)));
        claims.insert("aud".to_owned(), json!(self.client));
        claims.insert("iat".to_owned(), json!(now.as_secs()));
        claims.insert("exp".to_owned(), json!(now.plus(LIFETIME).as_secs()));
        claims.insert("auth_time".to_owned(), json!(self.authenticated_at.as_secs()));
        claims.insert("at_hash".to_owned(), json!(at_hash(access_token)));
        if let Some(user) = User::named(&self.user).filter(|_| other_subject.is_none()) {
            (site.realm.manners().identify)(user, &mut claims);
        }
        if let Some(nonce) = self.nonce {
            claims.insert("nonce".to_owned(), json!(nonce));
        }
        let key = site.keys().key(site.shared.options.id_token_algorithm);
        key.sign(&key.header("JWT"), &claims).map_err(|_| OauthError::new("server_error", "signing failed"))
    }

    fn about_the_user(&self) -> Map<String, Value> {
        User::named(&self.user).map(|user| claims_about(user, &self.scopes)).unwrap_or_default()
    }
}

/// What `profile` and `email` disclose (OpenID Connect Core §5.4); `sub` is for the caller to add.
pub(super) fn claims_about(user: &User, scopes: &ScopeSet) -> Map<String, Value> {
    let mut claims = Map::new();
    if has(scopes, "profile") {
        claims.insert("name".to_owned(), json!(user.name));
    }
    if has(scopes, "email") {
        claims.insert("email".to_owned(), json!(user.email));
        claims.insert("email_verified".to_owned(), json!(true));
    }
    claims
}

pub(super) fn has(scopes: &ScopeSet, wanted: &str) -> bool {
    scopes.iter().map(Scope::as_str).any(|scope| scope == wanted)
}

/// The left half of the digest (OpenID Connect Core §3.1.3.6); both algorithms use SHA-256.
fn at_hash(access_token: &AccessToken) -> String {
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, access_token.expose().as_bytes()).as_ref()[..16])
}

const LIFETIME: Duration = Duration::from_secs(3600);
