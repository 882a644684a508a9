//! What access tokens open: userinfo (OpenID Connect Core §5.3) and the demo plugins' APIs, by RFC 6750.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    id_token::{claims_about, has},
    options::{DemoPlugin, User},
    random::Fingerprint,
    site::Site,
};
use crate::domain::ScopeSet;

/// Why a resource is withheld (RFC 6750 §3.1).
pub(super) enum Withheld {
    NoToken,
    InvalidToken,
    InsufficientScope(&'static str),
    NotFound,
    ReadOnly,
}

pub(super) async fn userinfo(State(site): State<Site>, headers: HeaderMap) -> Result<Json<Value>, Withheld> {
    let (user, scopes) = holder(&site, &headers)?;
    if !has(&scopes, "openid") {
        return Err(Withheld::InsufficientScope("openid"));
    }
    let mut claims = claims_about(user, &scopes);
    claims.insert("sub".to_owned(), json!(user.id));
    // `name` is given without `profile` too: the server's users have nothing to hide, and demos want a name.
    claims.insert("name".to_owned(), json!(user.name));
    Ok(Json(Value::Object(claims)))
}

pub(super) async fn read(
    State(site): State<Site>,
    Path(unverified_plugin): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Withheld> {
    let plugin = DemoPlugin::named(&unverified_plugin).ok_or(Withheld::NotFound)?;
    let user = admitted(&site, &headers, plugin.read)?;
    let entries = match plugin.id {
        "calendar" => json!([{ "at": "09:00", "what": "Stand-up" }, { "at": "12:30", "what": "Lunch" }]),
        _ => json!([{ "title": "Groceries" }, { "title": "Ideas" }]),
    };
    Ok(Json(json!({ "plugin": plugin.id, "user": user.id, "entries": entries })))
}

pub(super) async fn write(
    State(site): State<Site>,
    Path(unverified_plugin): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Withheld> {
    let plugin = DemoPlugin::named(&unverified_plugin).ok_or(Withheld::NotFound)?;
    let user = admitted(&site, &headers, plugin.write.ok_or(Withheld::ReadOnly)?)?;
    Ok(Json(json!({ "plugin": plugin.id, "user": user.id, "written": true })))
}

fn admitted(site: &Site, headers: &HeaderMap, scope: &'static str) -> Result<&'static User, Withheld> {
    let (user, scopes) = holder(site, headers)?;
    if has(&scopes, scope) { Ok(user) } else { Err(Withheld::InsufficientScope(scope)) }
}

/// The user on whose behalf the bearer token was issued, and what it allows.
fn holder(site: &Site, headers: &HeaderMap) -> Result<(&'static User, ScopeSet), Withheld> {
    let fingerprint = Fingerprint::of(bearer(headers).ok_or(Withheld::NoToken)?);
    site.shared.ledger.read(|ledger| {
        let (token, grant) =
            ledger.live_access_token(&fingerprint, site.realm, site.now()).ok_or(Withheld::InvalidToken)?;
        let user = User::named(&grant.user).ok_or(Withheld::InvalidToken)?;
        Ok((user, token.scopes.clone()))
    })
}

/// The bearer token (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

impl IntoResponse for Withheld {
    fn into_response(self) -> Response {
        let (status, challenge) = match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, "Bearer".to_owned()),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, r#"Bearer error="invalid_token""#.to_owned()),
            Self::InsufficientScope(scope) => {
                (StatusCode::FORBIDDEN, format!(r#"Bearer error="insufficient_scope", scope="{scope}""#))
            }
            Self::NotFound => return StatusCode::NOT_FOUND.into_response(),
            Self::ReadOnly => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
        };
        let challenge = HeaderValue::try_from(challenge).expect("built from constants of visible ASCII");
        (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}
