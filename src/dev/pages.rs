//! The pages that a person sees: escaped by maud, without scripts, under a policy that allows none.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use maud::{DOCTYPE, Markup, html};

use super::{
    authorize::AuthorizationRequest,
    options::{DemoPlugin, PLUGINS, USERS, User},
    session::Session,
    site::Site,
};

pub(super) fn login(site: &Site, request: &AuthorizationRequest, query: &str, session: &Session) -> Response {
    let place = site.realm.manners().name;
    let body = html! {
        h1 { "Log in to " (place) }
        p { strong { (request.client.name) } " sent you here. This is a development server: choose who you are." }
        form id="login" method="post" action=(site.url("/login")) {
            (carried(site, query, session))
            @for user in USERS {
                button type="submit" name="user" value=(user.id) { (user.name) }
            }
        }
    };
    page("Log in", &body, Some(&request.target.origin()))
}

pub(super) fn consent(
    site: &Site,
    request: &AuthorizationRequest,
    query: &str,
    session: &Session,
    user: &User,
) -> Response {
    let body = html! {
        h1 { (request.client.name) " asks for access" }
        p { "You are " strong { (user.name) } ". It wants to:" }
        ul {
            @for scope in request.scopes.iter() {
                li { (in_words(scope.as_str())) " " code { (scope) } }
            }
        }
        form id="consent" method="post" action=(site.url("/consent")) {
            (carried(site, query, session))
            button type="submit" name="decision" value="approve" { "Approve" }
            button type="submit" name="decision" value="deny" { "Deny" }
        }
    };
    page("Consent", &body, Some(&request.target.origin()))
}

pub(super) fn refusal(message: &str) -> Response {
    page("Refused", &html! { h1 { "That did not work" } p { (message) } }, None)
}

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], STYLE)
}

fn carried(site: &Site, query: &str, session: &Session) -> Markup {
    html! {
        input type="hidden" name="csrf" value=(session.csrf_token(site));
        input type="hidden" name="request" value=(query);
    }
}

fn in_words(scope: &str) -> String {
    let name_of = |find: fn(&DemoPlugin, &str) -> bool| PLUGINS.iter().find(|plugin| find(plugin, scope));
    match scope {
        "openid" => "know who you are".to_owned(),
        "profile" => "see your name".to_owned(),
        "email" => "see your e-mail address".to_owned(),
        "offline_access" => "keep access while you are away".to_owned(),
        _ => {
            if let Some(plugin) = name_of(|plugin, scope| plugin.read == scope) {
                format!("read your {}", plugin.name.to_lowercase())
            } else if let Some(plugin) = name_of(|plugin, scope| plugin.write == Some(scope)) {
                format!("change your {}", plugin.name.to_lowercase())
            } else {
                "use".to_owned()
            }
        }
    }
}

/// `goes_on_to`: where the form's answer redirects. Browsers hold `form-action` against redirects too.
fn page(title: &str, body: &Markup, goes_on_to: Option<&str>) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · claviger dev" }
                link rel="stylesheet" href="/dev/style.css";
            }
            body { main { (body) } }
        }
    };
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {}; frame-ancestors 'none'; base-uri 'none'",
        goes_on_to.unwrap_or_default()
    );
    let policy = HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    (headers, markup.into_string()).into_response()
}

const STYLE: &str = "\
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 34rem; margin: 12vh auto; padding: 0 1.5rem }
h1 { font-size: 1.4rem }
button { font: inherit; padding: .5rem 1.25rem; margin: .5rem .5rem 0 0; cursor: pointer }
";
