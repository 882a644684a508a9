//! What every page is sent with, and what no text from elsewhere can do to it.

use claviger::dev::PlatformClaims;
use reqwest::{Method, StatusCode};
use url::Url;

use crate::{
    browser::{Browser, Page, Sent},
    person::{APPROVE, DENY, Link, OAUTH_CALLBACK, exchanges, nothing_is_stored, world, world_with},
    world::claims,
};

const CORPUS: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img/src=x/onerror=alert(1)>",
    "'onmouseover='alert(1)",
    "</title><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "{{7*7}}${7*7}",
];

fn is_secured(page: &Page) {
    let header = |name: &str| page.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    let policy = header("content-security-policy");
    for directive in
        ["default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
    {
        assert!(policy.split("; ").any(|part| part == directive), "{directive}: {policy} at {}", page.url);
    }
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(header(name), value, "{name} at {}", page.url);
    }
    assert!(!page.body.contains("<script") && !page.body.contains("<style"), "{}", page.body);
    assert!(!page.body.contains(" style=") && !page.body.contains(" onclick="), "{}", page.body);
    if page.body.starts_with("<!DOCTYPE html>") {
        for part in ["<html lang=\"en\">", "<main>", "<h1>", "<title>", "name=\"viewport\""] {
            assert!(page.body.contains(part), "{part}: {}", page.body);
        }
        assert_eq!(page.body.matches("<h1>").count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_the_headers() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let at = |path: &str| link.url.join(path).unwrap();
    let unknown = "/connect/flw_00000000000000000000000000000000";
    let long = format!("/{}", "x".repeat(4000));
    for (method, path) in [
        (Method::GET, "/healthz"),
        (Method::GET, "/readyz"),
        (Method::GET, "/style.css"),
        (Method::GET, "/"),
        (Method::GET, "/favicon.ico"),
        (Method::GET, long.as_str()),
        (Method::GET, link.url.path()),
        (Method::HEAD, link.url.path()),
        (Method::PUT, link.url.path()),
        (Method::OPTIONS, link.url.path()),
        (Method::POST, link.url.path()),
        (Method::GET, unknown),
        (Method::GET, "/connect/%ff"),
        (Method::GET, "/connect/..%2f..%2fetc"),
        (Method::GET, "/login/callback"),
        (Method::GET, OAUTH_CALLBACK),
        (Method::POST, OAUTH_CALLBACK),
        (Method::DELETE, OAUTH_CALLBACK),
        (Method::GET, "/oauth/callback/continue"),
    ] {
        let url = at(path);
        let sent = Sent { method: method.clone(), ..Sent::get(&url) };
        let page = browser.send(sent).await;
        is_secured(&page);
        assert!(page.status != StatusCode::INTERNAL_SERVER_ERROR, "{method} {path}");
    }
    let consent = browser.signed_in(&link, "alice").await;
    let leaving = browser.press(&consent, APPROVE.0, APPROVE.1).await;
    let denied = browser.press(&consent, DENY.0, DENY.1).await;
    [consent, leaving, denied].iter().for_each(is_secured);
    let oversized = Sent::post(&link.url, format!("token={}&decision=approve", "x".repeat(17 << 10)));
    let refused = browser.send(oversized).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    is_secured(&refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_only_looks_spends_nothing() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let answer = browser.answer(&consent, "alice", APPROVE).await;
    for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let page = browser.send(Sent { method: method.clone(), ..Sent::get(&answer) }).await;
        assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    nothing_is_stored(&world).await;
    assert!(browser.open(&answer).await.shows("Connected"));
    assert_eq!(exchanges(&world), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_shown_as_text() {
    let name = CORPUS.concat();
    let planted = name.clone();
    let world = world_with(move |config| config.plugins[0].display_name = planted.clone()).await;
    for text in CORPUS {
        let agent = PlatformClaims { agent: Some((*text).to_owned()), ..claims() };
        let link = Link::of(&world.client_with(&world.token("alice", &agent))).await;
        let consent = Browser::new().signed_in(&link, "alice").await;
        is_secured(&consent);
        let escaped =
            |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        assert!(consent.shows(&escaped(text)), "{text}: {}", consent.body);
        assert!(consent.shows(&escaped(&name)), "{}", consent.body);
        assert!(!consent.shows("<img") && !consent.shows("<svg"), "{}", consent.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_request_is_shown() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let answer = browser.answer(&consent, "alice", APPROVE).await;
    let state = answer.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    for text in CORPUS.iter().map(|text| format!("Xq7{text}")) {
        let with = |path: &str, pairs: &[(&str, &str)]| -> Url {
            let mut url = link.url.join(path).unwrap();
            url.query_pairs_mut().clear().extend_pairs(pairs);
            url
        };
        let text = text.as_str();
        for url in [
            with(OAUTH_CALLBACK, &[("error", text), ("error_description", text), ("state", text)]),
            with(OAUTH_CALLBACK, &[("error", text), ("error_description", text), ("state", &state), ("iss", text)]),
            with(OAUTH_CALLBACK, &[("code", text), ("state", &state), ("iss", text)]),
            with("/login/callback", &[("error", text), ("error_description", text), ("state", text)]),
            with("/oauth/callback/continue", &[("state", text)]),
            with(&format!("/connect/{}", text.replace(['/', '?', '#'], "")), &[("error", text)]),
        ] {
            let page = browser.open(&url).await;
            is_secured(&page);
            assert!(!page.shows("Xq7"), "{url}: {}", page.body);
        }
        let page = browser.send(Sent::post(&link.url, format!("token={text}&decision={text}"))).await;
        assert!(!page.shows("Xq7"), "{}", page.body);
    }
    nothing_is_stored(&world).await;
}
