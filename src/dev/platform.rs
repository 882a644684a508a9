//! Tokens that the platform's issuer signs for calls to the broker (RFC 9068).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    DevError, SigningAlgorithm,
    keys::SigningKey,
    site::{Shared, Site},
};
use crate::domain::{PresentedToken, ScopeSet};

/// What a platform token says beyond issuer, subject, times and `jti`.
#[derive(Clone, Debug)]
pub struct PlatformClaims {
    pub audience: String,
    pub lifetime: Duration,
    /// The agent, as `azp`.
    pub agent: Option<String>,
    pub roles: Vec<String>,
    pub scopes: ScopeSet,
    pub algorithm: SigningAlgorithm,
    pub signer: Signer,
    /// Claims that replace or join the others, for odd tokens; `null` removes one.
    pub claim_overrides: Map<String, Value>,
    /// Likewise for the header: `typ`, `kid`, `alg`.
    pub header_overrides: Map<String, Value>,
}

/// Whose key signs a platform token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The platform's.
    Platform,
    /// The demo provider's: a real key of the wrong issuer, under that key's id.
    Provider,
    /// One that nobody publishes, under the platform's key id: a forgery.
    Forger,
}

impl PlatformClaims {
    /// An ordinary token of ten minutes.
    pub fn to(audience: &str) -> Self {
        Self {
            audience: audience.to_owned(),
            lifetime: Duration::from_secs(600),
            agent: None,
            roles: Vec::new(),
            scopes: ScopeSet::default(),
            algorithm: SigningAlgorithm::Es256,
            signer: Signer::Platform,
            claim_overrides: Map::new(),
            header_overrides: Map::new(),
        }
    }
}

pub(super) fn mint(platform: &Site, user: &str, claims: &PlatformClaims) -> Result<PresentedToken, DevError> {
    let shared: &Shared = &platform.shared;
    let now = platform.now();
    let mut payload = Map::new();
    let mut claim = |name: &str, value: Value| payload.insert(name.to_owned(), value);
    claim("iss", json!(platform.issuer()));
    claim("sub", json!(user));
    claim("aud", json!(claims.audience));
    claim("client_id", json!(claims.agent.as_deref().unwrap_or("claviger-dev-platform")));
    claim("iat", json!(now.as_secs()));
    claim("exp", json!(now.plus(claims.lifetime).as_secs()));
    claim("jti", json!(shared.random.text("")));
    claim("scope", json!(claims.scopes.join(' ')));
    claim("roles", json!(claims.roles));
    if let Some(agent) = &claims.agent {
        claim("azp", json!(agent));
    }
    overlay(&mut payload, &claims.claim_overrides);

    let published = platform.keys().key(claims.algorithm);
    let mut header = published.header("at+jwt");
    let forged;
    let key = match claims.signer {
        Signer::Platform => published,
        Signer::Provider => {
            let key = shared.identity.keys(super::Realm::Provider).key(claims.algorithm);
            header = key.header("at+jwt");
            key
        }
        Signer::Forger => {
            forged = SigningKey::generate(claims.algorithm).map_err(|_| DevError::KeyGeneration)?;
            &forged
        }
    };
    overlay(&mut header, &claims.header_overrides);
    key.sign(&header, &payload).map(PresentedToken::new).map_err(|_| DevError::Signing)
}

fn overlay(members: &mut Map<String, Value>, overrides: &Map<String, Value>) {
    for (name, value) in overrides {
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
}
