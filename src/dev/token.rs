//! The token endpoint (RFC 6749 §3.2, RFC 7636 §4.6, OpenID Connect Core §3.1.3 and §12).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Extension, Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{
    Fault, GrantType, MissingRefreshToken, TokenOutcome, TokenRefusal,
    client_authentication::authenticate,
    id_token::IdTokenClaims,
    ledger::{AccessTokenRecord, CodeProof, GrantId, Ledger, RefreshUse},
    oauth_error::OauthError,
    parameters::Parameters,
    persona::Worn,
    random::Fingerprint,
    realm::Client,
    site::Site,
};
use crate::domain::{AccessToken, RefreshToken, Rotation, ScopeSet, Timestamp};

pub(super) async fn answer(
    State(site): State<Site>,
    fault: Option<Extension<Arc<Fault>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let parameters = Parameters::parse(&body);
    let grant_type = GrantType::of(&parameters);
    let fault = fault.as_ref().map(|Extension(fault)| &**fault);
    let issued = match authenticate(&site, &headers, &parameters) {
        Err(error) => Err(Failure::Rejected(error)),
        Ok(client) => match grant_type {
            GrantType::AuthorizationCode => exchange(&site, &client, &parameters, fault).await,
            GrantType::RefreshToken | GrantType::Probe if site.realm.grants_offline_access() => {
                refresh(&site, &client, &parameters, fault).await
            }
            GrantType::RefreshToken | GrantType::Probe | GrantType::Other => {
                Err(OauthError::new("unsupported_grant_type", "grant_type must be authorization_code or refresh_token")
                    .into())
            }
        },
    };
    let (outcome, response) = match issued {
        Ok(issued) => {
            let outcome = TokenOutcome::Issued(issued.grant.clone());
            (outcome, issued.into_response(&site, fault))
        }
        Err(Failure::Refused(refusal)) => {
            (TokenOutcome::Refused(refusal), (site.realm.manners().refuse)(&refusal.into(), Some(refusal)))
        }
        Err(Failure::Rejected(error)) => {
            (TokenOutcome::Rejected(error.code), (site.realm.manners().refuse)(&error, None))
        }
    };
    site.shared.journal.note_token_request(grant_type, site.now(), outcome);
    response
}

enum Failure {
    Refused(TokenRefusal),
    Rejected(OauthError),
}

/// What a token request obtained.
struct Issued {
    grant: GrantId,
    access_token: AccessToken,
    refresh_token: Option<RefreshToken>,
    scopes: ScopeSet,
    identity: Option<IdTokenClaims>,
    worn: Worn,
}

async fn exchange(
    site: &Site,
    client: &Client,
    parameters: &Parameters,
    fault: Option<&Fault>,
) -> Result<Issued, Failure> {
    let required = |name| parameters.single(name).ok_or_else(|| missing(name));
    let code = Fingerprint::of(required("code")?);
    let proof = CodeProof {
        realm: site.realm,
        client: client.id,
        redirect_uri: parameters.single("redirect_uri").map(ToOwned::to_owned),
        challenge: challenge_of(required("code_verifier")?)?,
    };
    let access_token = AccessToken::new(site.shared.random.text("dev_at_"));
    let refresh_token = RefreshToken::new(site.shared.random.text("dev_rt_"));
    let fresh = FreshAccessToken::new(site, &access_token, fault);
    let refresh = Fingerprint::of(refresh_token.expose());
    let now = site.now();
    let recorded = site.shared.ledger.change(now, move |ledger| {
        let code = ledger.exchange(&code, &proof, now)?;
        let worn = worn(ledger, &code.grant, true);
        if worn.offline {
            ledger.add_refresh_token(&code.grant, refresh);
        }
        let granted = ledger.grant(&code.grant).map(|grant| grant.scopes.clone()).unwrap_or_default();
        let scopes = fresh.record(ledger, &code.grant, &granted);
        let identity = IdTokenClaims::of(ledger, &code.grant, code.nonce);
        Ok((code.grant, scopes, identity, worn))
    });
    let (grant, scopes, identity, worn) = recorded.await?.map_err(Failure::Refused)?;
    let refresh_token = worn.offline.then_some(refresh_token);
    Ok(Issued { grant, access_token, refresh_token, scopes, identity, worn })
}

async fn refresh(
    site: &Site,
    client: &Client,
    parameters: &Parameters,
    fault: Option<&Fault>,
) -> Result<Issued, Failure> {
    if let Some((parameter, code)) = site.realm.manners().refresh_needs
        && parameters.single(parameter).is_none()
    {
        return Err(OauthError::new(code, "a parameter is missing that this provider wants").into());
    }
    let presented = Fingerprint::of(parameters.single("refresh_token").ok_or_else(|| missing("refresh_token"))?);
    let scopes = parameters.single("scope").map(|text| ScopeSet::parse(text, ' ')).transpose();
    let stays = matches!(fault, Some(Fault::RefreshToken(_)));
    let access_token = AccessToken::new(site.shared.random.text("dev_at_"));
    let replacement = RefreshToken::new(site.shared.random.text("dev_rt_"));
    let using = RefreshUse {
        realm: site.realm,
        client: client.id,
        scopes: scopes.map_err(|_| OauthError::new("invalid_scope", "scope is malformed"))?,
        rotation: if stays { Rotation::None } else { site.rotation() },
        replacement: Fingerprint::of(replacement.expose()),
    };
    let fresh = FreshAccessToken::new(site, &access_token, fault);
    let now = site.now();
    let recorded = site.shared.ledger.change(now, move |ledger| {
        let renewal = ledger.renew(&presented, using, now)?;
        let scopes = fresh.record(ledger, &renewal.grant, &renewal.scopes);
        // No nonce: the ID token of a refresh answers no authorization request (OpenID Connect Core §12.2).
        let identity = IdTokenClaims::of(ledger, &renewal.grant, None);
        let worn = worn(ledger, &renewal.grant, false);
        Ok((renewal.grant, scopes, identity, worn, renewal.rotated))
    });
    let (grant, scopes, identity, worn, rotated) = recorded.await?.map_err(Failure::Refused)?;
    Ok(Issued { grant, access_token, refresh_token: rotated.then_some(replacement), scopes, identity, worn })
}

fn worn(ledger: &Ledger, grant: &GrantId, of_code: bool) -> Worn {
    let grant = ledger.grant(grant);
    Worn {
        user: grant.map(|grant| grant.user.clone()).unwrap_or_default(),
        of_code,
        offline: grant.is_some_and(|grant| grant.offline),
        as_bot: grant.is_some_and(|grant| grant.as_bot),
    }
}

/// An access token before it is recorded.
struct FreshAccessToken {
    fingerprint: Fingerprint,
    issued_at: Timestamp,
    expires_at: Timestamp,
    at_most: Option<ScopeSet>,
}

impl FreshAccessToken {
    fn new(site: &Site, token: &AccessToken, fault: Option<&Fault>) -> Self {
        let at_most = if let Some(Fault::Scope(scopes)) = fault { Some(scopes.clone()) } else { None };
        let issued_at = site.now();
        let expires_at = issued_at.plus(site.shared.settings.get().access_token_lifetime);
        Self { fingerprint: Fingerprint::of(token.expose()), issued_at, expires_at, at_most }
    }

    /// The scopes that the token really has.
    fn record(self, ledger: &mut Ledger, grant: &GrantId, granted: &ScopeSet) -> ScopeSet {
        let excess = self.at_most.map(|at_most| granted.minus(&at_most)).unwrap_or_default();
        let scopes = granted.minus(&excess);
        let lasts = ledger.grant(grant).is_some_and(|grant| grant.realm.manners().lasting && !grant.offline);
        ledger.add_access_token(
            self.fingerprint,
            AccessTokenRecord {
                grant: grant.clone(),
                scopes: scopes.clone(),
                issued_at: self.issued_at,
                expires_at: if lasts { Timestamp::NEVER } else { self.expires_at },
            },
        );
        scopes
    }
}

impl Issued {
    fn into_response(self, site: &Site, fault: Option<&Fault>) -> Response {
        let mut body = Map::new();
        if let Some(identity) = self.identity {
            let subject = if let Some(Fault::IdTokenSubject(subject)) = fault { Some(subject.as_str()) } else { None };
            match identity.sign(site, &self.access_token, subject) {
                Ok(token) => body.insert("id_token".to_owned(), json!(token)),
                Err(error) => return error.into_response(),
            };
        }
        let lifetime = site.shared.settings.get().access_token_lifetime.as_secs();
        body.insert("access_token".to_owned(), json!(self.access_token.expose()));
        body.insert("token_type".to_owned(), json!("Bearer"));
        body.insert("expires_in".to_owned(), json!(lifetime));
        body.insert("scope".to_owned(), json!(self.scopes.join(' ')));
        if let Some(token) = self.refresh_token {
            body.insert("refresh_token".to_owned(), json!(token.expose()));
        }
        (site.realm.manners().dress)(&mut body, &self.worn);
        match fault {
            Some(Fault::RefreshToken(MissingRefreshToken::Omit)) => body.remove("refresh_token"),
            Some(Fault::RefreshToken(MissingRefreshToken::Empty)) => body.insert("refresh_token".to_owned(), json!("")),
            Some(Fault::RefreshToken(MissingRefreshToken::Null)) => {
                body.insert("refresh_token".to_owned(), Value::Null)
            }
            _ => None,
        };
        Json(body).into_response()
    }
}

impl From<OauthError> for Failure {
    fn from(error: OauthError) -> Self {
        Self::Rejected(error)
    }
}

impl From<super::StateError> for Failure {
    fn from(error: super::StateError) -> Self {
        Self::Rejected(error.into())
    }
}

/// S256 (RFC 7636 §4.2), of a verifier of legal form (§4.1).
fn challenge_of(unverified_verifier: &str) -> Result<String, OauthError> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if (43..=128).contains(&unverified_verifier.len()) && unverified_verifier.bytes().all(unreserved) {
        Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, unverified_verifier.as_bytes())))
    } else {
        Err(OauthError::new("invalid_request", "code_verifier must be 43 to 128 unreserved characters"))
    }
}

fn missing(name: &str) -> OauthError {
    OauthError::new("invalid_request", &format!("{name} is missing"))
}
