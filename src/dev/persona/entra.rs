//! Microsoft Entra, v2.0 endpoints: a metadata document that names a template, does not mention PKCE and knows no
//! revocation; accounts named by `tid` and `oid`; errors by number; scopes spelled otherwise than they were asked for.

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Asked, Manners, Objection, Worn, respell, scopes_of};
use crate::{
    dev::{
        Endpoint, TokenRefusal, authorize, login, metadata, oauth_error::OauthError, options::User,
        parameters::Parameters, site::Site, token,
    },
    domain::{Rotation, ScopeSet},
};

/// The directory of all users, at the Entra that is played.
pub const ENTRA_DIRECTORY: &str = "aaaabbbb-0000-cccc-1111-dddd2222eeee";

pub(in crate::dev) const MANNERS: Manners = Manners {
    name: "Microsoft Entra (played)",
    path: "/entra",
    issuer: "/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0",
    authorize: "/common/oauth2/v2.0/authorize",
    names_issuer: false,
    rotation: Some(Rotation::Reuse),
    lasting: false,
    ask,
    identify,
    dress,
    refuse,
    refresh_needs: Some(("scope", SCOPELESS)),
};

pub(in crate::dev) fn routes(site: &Site) -> Router {
    let at = |endpoint, method| site.intercepted(endpoint, method);
    Router::new()
        .route("/entra/{directory}/v2.0/.well-known/openid-configuration", at(Endpoint::Metadata, get(document)))
        .route("/entra/{directory}/oauth2/v2.0/authorize", at(Endpoint::Authorize, get(authorize::show_login)))
        .route("/entra/login", post(login::log_in))
        .route("/entra/consent", at(Endpoint::Consent, post(login::decide)).get(login::show_consent))
        .route("/entra/{directory}/oauth2/v2.0/token", at(Endpoint::Token, post(token::answer)))
        .route("/entra/{directory}/discovery/v2.0/keys", at(Endpoint::Jwks, get(metadata::keys)))
        .with_state(site.clone())
}

/// Of many directories at once it names none.
async fn document(State(site): State<Site>, Path(directory): Path<String>) -> Response {
    let named = match directory.as_str() {
        "common" | "organizations" => "{tenantid}",
        ENTRA_DIRECTORY => ENTRA_DIRECTORY,
        _ => return wire(StatusCode::BAD_REQUEST, "invalid_tenant", 90002, "Tenant not found.", None),
    };
    let document = json!({
        "issuer": site.url(&format!("/{named}/v2.0")),
        "authorization_endpoint": site.url(&format!("/{directory}/oauth2/v2.0/authorize")),
        "token_endpoint": site.url(&format!("/{directory}/oauth2/v2.0/token")),
        "jwks_uri": site.url(&format!("/{directory}/discovery/v2.0/keys")),
        "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"],
        "tenant_region_scope": null,
        "cloud_instance_name": "microsoftonline.com",
    });
    Json(document).into_response()
}

fn ask(_: &Site, parameters: &Parameters) -> Result<Asked, Objection> {
    if parameters.single("resource").is_some() {
        return Err(("invalid_request", "AADSTS901002: The 'resource' request parameter is not supported."));
    }
    let scopes = scopes_of(parameters, "scope", ' ').ok_or(("invalid_request", "AADSTS900144: scope is missing"))?;
    if resources(&scopes).len() > 1 {
        return Err(("invalid_request", "AADSTS28000: scope has scopes of more than one resource"));
    }
    let offline = scopes.iter().any(|scope| scope.as_str() == "offline_access");
    Ok(Asked { scopes, offline, as_bot: false })
}

/// A scope without a resource is Graph's; those of OpenID Connect are nobody's.
fn resources(scopes: &ScopeSet) -> std::collections::BTreeSet<&str> {
    let apis = scopes.iter().map(crate::domain::Scope::as_str).filter(|scope| !OPENID.contains(scope));
    apis.map(|scope| scope.rsplit_once('/').map_or(GRAPH, |(resource, _)| resource)).collect()
}

fn identify(user: &User, claims: &mut Map<String, Value>) {
    let oid = if user.id == "alice" {
        "00000000-0000-0000-66f3-3332eca7ea81"
    } else {
        "00000000-0000-0000-0b0b-0b0b0b0b0b0b"
    };
    for (name, value) in [
        ("tid", ENTRA_DIRECTORY),
        ("oid", oid),
        ("sub", &format!("pairwise-of-{}", user.id)),
        ("preferred_username", user.email),
        ("ver", "2.0"),
    ] {
        claims.insert(name.to_owned(), json!(value));
    }
}

/// Graph's scopes come back with their resource; `offline_access` does not come back.
fn dress(body: &mut Map<String, Value>, _: &Worn) {
    respell(body, |scope| match scope {
        "offline_access" => None,
        _ if OPENID.contains(&scope) || scope.contains('/') => Some(scope.to_owned()),
        _ => Some(format!("{GRAPH}/{scope}")),
    });
    let lifetime = body.get("expires_in").cloned().unwrap_or_default();
    body.insert("ext_expires_in".to_owned(), lifetime);
}

fn refuse(error: &OauthError, refusal: Option<TokenRefusal>) -> Response {
    use TokenRefusal::{
        ExpiredCode, GrantEnded, ReplayedCode, ReusedRefreshToken, ScopeExceeded, UnknownCode, UnknownRefreshToken,
        WrongClient, WrongRedirectUri, WrongVerifier,
    };
    let bad = StatusCode::BAD_REQUEST;
    match (refusal, error.code) {
        (Some(ReplayedCode), _) => {
            wire(bad, "invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.", None)
        }
        (Some(ExpiredCode), _) => {
            wire(bad, "invalid_grant", 70008, "The provided authorization code has expired due to inactivity.", None)
        }
        (Some(UnknownCode | UnknownRefreshToken), _) => {
            wire(bad, "invalid_grant", 9002313, "Invalid request. Request is malformed or invalid.", Some("bad_token"))
        }
        (Some(WrongVerifier), _) => {
            wire(bad, "invalid_grant", 501481, "The Code_Verifier does not match the code_challenge.", None)
        }
        (Some(WrongRedirectUri), _) => wire(
            bad,
            "invalid_client",
            500112,
            "The reply address does not match the one that was provided when requesting the authorization code.",
            None,
        ),
        (Some(WrongClient), _) => {
            wire(bad, "invalid_grant", 700005, "Provided grant was issued to another client.", None)
        }
        (Some(GrantEnded | ReusedRefreshToken), _) => {
            wire(bad, "invalid_grant", 50173, "The provided grant has expired due to it being revoked.", None)
        }
        (Some(ScopeExceeded), _) => wire(
            bad,
            "invalid_grant",
            65001,
            "The user or administrator has not consented to use the application.",
            Some("consent_required"),
        ),
        (None, "invalid_client") => {
            wire(StatusCode::UNAUTHORIZED, "invalid_client", 7000215, "Invalid client secret provided.", None)
        }
        (None, SCOPELESS) => {
            wire(bad, "invalid_request", 90009, "The application is requesting a token for itself.", None)
        }
        (None, code) => wire(bad, code, 900144, "The request body is missing a parameter.", None),
    }
}

fn wire(status: StatusCode, error: &str, number: u32, text: &str, suberror: Option<&str>) -> Response {
    const TRACE: &str = "0000aaaa-11bb-cccc-dd22-eeeeee333333";
    const TIME: &str = "2026-01-01 00:00:00Z";
    let description = format!("AADSTS{number}: {text} Trace ID: {TRACE} Correlation ID: {TRACE} Timestamp: {TIME}");
    let mut body = json!({
        "error": error,
        "error_description": description,
        "error_codes": [number],
        "timestamp": TIME,
        "trace_id": TRACE,
        "correlation_id": TRACE,
        "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
    });
    if let Some(suberror) = suberror {
        body["suberror"] = json!(suberror);
    }
    (status, Json(body)).into_response()
}

const OPENID: [&str; 4] = ["openid", "profile", "email", "offline_access"];
const GRAPH: &str = "https://graph.microsoft.com";
const SCOPELESS: &str = "scope_missing";
