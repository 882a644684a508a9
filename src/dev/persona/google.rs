//! Google: a refresh token only for `access_type=offline` and renewed consent, none in the answer to a refresh; other
//! names for two scopes; a revocation that asks for no client and ends the whole grant.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Asked, Manners, Objection, Worn, respell, scopes_of};
use crate::{
    dev::{
        Endpoint, TokenRefusal, authorize, login, metadata, oauth_error::OauthError, parameters::Parameters,
        random::Fingerprint, realm::Realm, resources, site::Site, token,
    },
    domain::Rotation,
};

pub(in crate::dev) const MANNERS: Manners = Manners {
    name: "Google (played)",
    path: "/google",
    issuer: "",
    authorize: "/o/oauth2/v2/auth",
    names_issuer: true,
    rotation: Some(Rotation::None),
    lasting: false,
    ask,
    identify: |user, claims| drop(claims.insert("hd".to_owned(), json!(user.email.split_once('@').map(|(_, at)| at)))),
    dress,
    refuse,
    refresh_needs: None,
};

pub(in crate::dev) fn routes(site: &Site) -> Router {
    let at = |endpoint, method| site.intercepted(endpoint, method);
    Router::new()
        .route("/google/.well-known/openid-configuration", at(Endpoint::Metadata, get(document)))
        .route("/google/o/oauth2/v2/auth", at(Endpoint::Authorize, get(authorize::show_login)))
        .route("/google/login", post(login::log_in))
        .route("/google/consent", at(Endpoint::Consent, post(login::decide)).get(login::show_consent))
        .route("/google/token", at(Endpoint::Token, post(token::answer)))
        .route("/google/revoke", at(Endpoint::Revoke, post(revoke)))
        .route("/google/v1/userinfo", at(Endpoint::Userinfo, get(resources::userinfo)))
        .route("/google/certs", at(Endpoint::Jwks, get(metadata::keys)))
        .with_state(site.clone())
}

async fn document(State(site): State<Site>) -> Json<Value> {
    Json(json!({
        "issuer": site.issuer(),
        "authorization_endpoint": site.url(MANNERS.authorize),
        "token_endpoint": site.url("/token"),
        "userinfo_endpoint": site.url("/v1/userinfo"),
        "revocation_endpoint": site.url("/revoke"),
        "jwks_uri": site.url("/certs"),
        "response_types_supported": ["code", "token", "id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "email", "profile"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "code_challenge_methods_supported": ["plain", "S256"],
    }))
}

/// At the first consent of all a refresh token comes without `prompt` too, which is not played.
fn ask(_: &Site, parameters: &Parameters) -> Result<Asked, Objection> {
    let scopes = scopes_of(parameters, "scope", ' ').ok_or(("invalid_request", "Missing required parameter: scope"))?;
    if scopes.iter().any(|scope| scope.as_str() == "offline_access") {
        return Err(("invalid_scope", "Some requested scopes were invalid. {invalid=[offline_access]}"));
    }
    let consents = parameters.single("prompt").is_some_and(|prompt| prompt.split(' ').any(|word| word == "consent"));
    let offline = consents && parameters.single("access_type") == Some("offline");
    Ok(Asked { scopes, offline, as_bot: false })
}

fn dress(body: &mut Map<String, Value>, _: &Worn) {
    respell(body, |scope| {
        Some(match scope {
            "email" | "profile" => format!("https://www.googleapis.com/auth/userinfo.{scope}"),
            _ => scope.to_owned(),
        })
    });
}

fn refuse(error: &OauthError, refusal: Option<TokenRefusal>) -> Response {
    let (status, code, description) = match (refusal, error.code) {
        (Some(TokenRefusal::UnknownCode | TokenRefusal::ExpiredCode | TokenRefusal::ReplayedCode), _) => {
            (StatusCode::BAD_REQUEST, "invalid_grant", "Malformed auth code.")
        }
        (Some(TokenRefusal::WrongRedirectUri), _) => (StatusCode::BAD_REQUEST, "redirect_uri_mismatch", "Bad Request"),
        (Some(TokenRefusal::WrongVerifier), _) => (StatusCode::BAD_REQUEST, "invalid_grant", "Invalid code verifier."),
        (Some(TokenRefusal::WrongClient), _) => (StatusCode::UNAUTHORIZED, "unauthorized_client", "Unauthorized"),
        (Some(TokenRefusal::ScopeExceeded), _) => (StatusCode::BAD_REQUEST, "invalid_scope", "Bad Request"),
        (Some(_), _) => (StatusCode::BAD_REQUEST, "invalid_grant", "Token has been expired or revoked."),
        (None, "invalid_client") => (StatusCode::UNAUTHORIZED, "invalid_client", "Unauthorized"),
        (None, code) => (StatusCode::BAD_REQUEST, code, "Bad Request"),
    };
    (status, Json(json!({ "error": code, "error_description": description }))).into_response()
}

/// Either token takes the whole grant along; whoever has one may ask.
async fn revoke(State(site): State<Site>, body: Bytes) -> Response {
    let parameters = Parameters::parse(&body);
    let fingerprint = Fingerprint::of(parameters.single("token").unwrap_or_default());
    let now = site.now();
    let ended = site.shared.ledger.change(now, move |ledger| {
        let live = ledger.live_access_token(&fingerprint, Realm::Google, now).map(|(token, _)| token.grant.clone());
        let grant = live.or_else(|| {
            let (id, grant) = ledger.grant_of_refresh_token(&fingerprint)?;
            grant.accepts(&fingerprint, Rotation::None, now).then(|| id.clone())
        });
        let grant = grant.ok_or(())?;
        ledger.end_grant(&grant, now);
        Ok::<_, ()>(())
    });
    match ended.await {
        Ok(Ok(())) => Json(json!({})).into_response(),
        Ok(Err(())) => {
            let body = json!({ "error": "invalid_token", "error_description": "Token expired or revoked" });
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
        Err(error) => OauthError::from(error).into_response(),
    }
}
