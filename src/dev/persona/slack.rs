//! Slack, OAuth v2: scopes with commas, in one parameter for the bot and in another for the user, whose token comes
//! nested; errors with status 200; a revocation by the token itself, which leaves the refresh token.

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{Asked, Manners, Objection, Worn, scopes_of};
use crate::dev::{
    Endpoint, TokenRefusal, authorize, ledger::Ledger, login, oauth_error::OauthError, parameters::Parameters,
    random::Fingerprint, realm::Realm, resources::bearer, site::Site, token,
};
use crate::domain::Rotation;

pub(in crate::dev) const MANNERS: Manners = Manners {
    name: "Slack (played)",
    path: "/slack",
    issuer: "",
    authorize: "/oauth/v2/authorize",
    names_issuer: false,
    rotation: Some(Rotation::Strict),
    lasting: true,
    ask,
    identify: |_, _| {},
    dress,
    refuse,
    refresh_needs: None,
};

pub(in crate::dev) fn routes(site: &Site) -> Router {
    let at = |endpoint, method| site.intercepted(endpoint, method);
    Router::new()
        .route("/slack/oauth/v2/authorize", at(Endpoint::Authorize, get(authorize::show_login)))
        .route("/slack/login", post(login::log_in))
        .route("/slack/consent", at(Endpoint::Consent, post(login::decide)).get(login::show_consent))
        .route("/slack/api/oauth.v2.access", at(Endpoint::Token, post(token::answer)))
        .route("/slack/api/auth.revoke", at(Endpoint::Revoke, post(revoke)))
        .route("/slack/api/auth.test", at(Endpoint::Userinfo, get(test).post(test)))
        .with_state(site.clone())
}

/// Asked for both, Slack gives both tokens; only the user's is played then.
fn ask(site: &Site, parameters: &Parameters) -> Result<Asked, Objection> {
    let of_user = scopes_of(parameters, "user_scope", ',');
    let as_bot = of_user.is_none();
    let scopes = of_user.or_else(|| scopes_of(parameters, "scope", ','));
    let scopes = scopes.ok_or(("invalid_scope", "no_scopes"))?;
    Ok(Asked { scopes, offline: site.shared.options.slack_token_rotation, as_bot })
}

/// A code is answered with everything, a refresh with the one token.
fn dress(body: &mut Map<String, Value>, worn: &Worn) {
    let mut token = std::mem::take(body);
    let kind = if worn.as_bot { "bot" } else { "user" };
    token.insert("token_type".to_owned(), json!(kind));
    if let Some(Value::String(scopes)) = token.get_mut("scope") {
        *scopes = scopes.replace(' ', ",");
    }
    if !worn.offline {
        token.remove("expires_in");
    }
    for (name, value) in [
        ("ok", json!(true)),
        ("app_id", json!("A0KRD7HC3")),
        ("team", json!({ "id": TEAM, "name": "Acme" })),
        ("enterprise", Value::Null),
        ("is_enterprise_install", json!(false)),
    ] {
        body.insert(name.to_owned(), value);
    }
    if worn.of_code && !worn.as_bot {
        token.insert("id".to_owned(), json!(user_id(&worn.user)));
        body.insert("authed_user".to_owned(), Value::Object(token));
    } else {
        body.extend(token);
    }
}

fn refuse(error: &OauthError, refusal: Option<TokenRefusal>) -> Response {
    wire(match (refusal, error.code) {
        (Some(TokenRefusal::ReplayedCode), _) => "code_already_used",
        (Some(TokenRefusal::WrongRedirectUri), _) => "bad_redirect_uri",
        (
            Some(TokenRefusal::UnknownCode | TokenRefusal::ExpiredCode | TokenRefusal::WrongVerifier)
            | Some(TokenRefusal::WrongClient),
            _,
        ) => "invalid_code",
        (Some(TokenRefusal::GrantEnded), _) => "token_revoked",
        (Some(_), _) => "invalid_refresh_token",
        (None, "invalid_client") => "bad_client_secret",
        (None, "unsupported_grant_type") => "invalid_grant_type",
        (None, _) => "invalid_arguments",
    })
}

fn wire(error: &str) -> Response {
    Json(json!({ "ok": false, "error": error })).into_response()
}

/// The token ends itself. A bot's takes everything along that acts as this bot: it is deactivated.
async fn revoke(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Some(fingerprint) = bearer(&headers).map(Fingerprint::of) else { return wire("not_authed") };
    let now = site.now();
    let revoked = site.shared.ledger.change(now, move |ledger: &mut Ledger| {
        let (_, grant) = ledger.live_access_token(&fingerprint, Realm::Slack, now).ok_or("invalid_auth")?;
        if grant.as_bot {
            ledger.end_grants(now, |grant| grant.realm == Realm::Slack && grant.as_bot);
        } else {
            ledger.remove_access_token(&fingerprint);
        }
        Ok::<_, &str>(())
    });
    match revoked.await {
        Ok(Ok(())) => Json(json!({ "ok": true, "revoked": true })).into_response(),
        Ok(Err(error)) => wire(error),
        Err(_) => wire("internal_error"),
    }
}

async fn test(State(site): State<Site>, headers: HeaderMap) -> Response {
    let Some(fingerprint) = bearer(&headers).map(Fingerprint::of) else { return wire("not_authed") };
    let holder = site.shared.ledger.read(|ledger| {
        let (_, grant) = ledger.live_access_token(&fingerprint, Realm::Slack, site.now())?;
        Some(if grant.as_bot { BOT.to_owned() } else { user_id(&grant.user) })
    });
    let Some(user_id) = holder else { return wire("invalid_auth") };
    let body = json!({
        "ok": true, "url": "https://acme.slack.com/", "team": "Acme", "user": user_id.to_lowercase(),
        "team_id": TEAM, "user_id": user_id,
    });
    Json(body).into_response()
}

fn user_id(user: &str) -> String {
    format!("U0{}", user.to_uppercase())
}

const TEAM: &str = "T9TK3CUKW";
const BOT: &str = "U0BOT";
