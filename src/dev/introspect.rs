//! Token introspection (RFC 7662), for confidential clients.

use axum::{Json, body::Bytes, extract::State};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{
    client_authentication::authenticate, ledger::Ledger, oauth_error::OauthError, parameters::Parameters,
    random::Fingerprint, site::Site,
};

pub(super) async fn answer(
    State(site): State<Site>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, OauthError> {
    let parameters = Parameters::parse(&body);
    if !authenticate(&site, &headers, &parameters)?.confidential {
        return Err(OauthError::invalid_client("public clients may not introspect"));
    }
    let token = parameters.single("token").ok_or_else(|| OauthError::new("invalid_request", "token is missing"))?;
    let fingerprint = Fingerprint::of(token);
    let description = site.shared.ledger.read(|ledger| describe(&site, ledger, &fingerprint));
    Ok(Json(description.unwrap_or_else(|| json!({ "active": false }))))
}

/// `None`: not a live token of this issuer.
fn describe(site: &Site, ledger: &Ledger, fingerprint: &Fingerprint) -> Option<Value> {
    let now = site.now();
    if let Some((token, grant)) = ledger.live_access_token(fingerprint, site.realm, now) {
        return Some(json!({
            "active": true,
            "token_type": "Bearer",
            "iss": site.issuer(),
            "sub": grant.user,
            "client_id": grant.client,
            "scope": token.scopes.join(' '),
            "iat": token.issued_at.as_secs(),
            "exp": token.expires_at.as_secs(),
        }));
    }
    let (_, grant) = ledger.grant_of_refresh_token(fingerprint)?;
    let is_live = grant.realm == site.realm && grant.accepts(fingerprint, site.rotation(), now);
    is_live.then(|| {
        json!({
            "active": true,
            "iss": site.issuer(),
            "sub": grant.user,
            "client_id": grant.client,
            "scope": grant.scopes.join(' '),
        })
    })
}
