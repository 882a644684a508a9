//! Forms that somebody else sends.

use claviger::{
    domain::{AuditAction, AuditResult, Reason},
    proto::v1::{AuthorizationState, ErrorReason},
};
use reqwest::StatusCode;

use crate::{
    browser::{Browser, Sent},
    person::{APPROVE, Link, browser_start, nothing_is_stored, refusals, world},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_is_not_ours_does_nothing() {
    let mut world = world().await;
    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let token = consent.field("token");
    let notes = Link::started(&alice, browser_start("notes")).await;
    let others = browser.signed_in(&notes, "alice").await.field("token");
    let form = |token: &str, decision: &str| Sent::post(&link.url, format!("token={token}&decision={decision}"));
    let own = link.url.origin().ascii_serialization();
    for decision in ["approve", "deny"] {
        for sent in [
            form("", decision),
            form("x", decision),
            form(&others, decision),
            form(&token, decision).with("sec-fetch-site", "cross-site"),
            form(&token, decision).with("sec-fetch-site", "same-site"),
            form(&token, decision).with("sec-fetch-site", "none").with("origin", &own),
            form(&token, decision).with("origin", "https://evil.example"),
            form(&token, decision).with("origin", "https://evil.example").with("sec-fetch-site", "same-origin"),
            form(&token, decision).with("origin", &own.replace("http:", "https:")),
        ] {
            let page = browser.send(sent).await;
            assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.body);
        }
    }
    for body in [
        format!("token={token}"),
        format!("token={token}&decision=perhaps"),
        format!("token={token}&decision=approve&decision=deny"),
        format!("token={token}&token=x&decision=approve"),
        format!("token={token}&decision=approve&more=1"),
        "decision=approve".to_owned(),
        String::new(),
    ] {
        let page = browser.send(Sent::post(&link.url, body)).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{}", page.body);
    }
    nothing_is_stored(&world).await;
    assert_eq!(link.state(&alice).await, (AuthorizationState::Pending, ErrorReason::Unspecified));
    let sent = form(&token, "approve").with("origin", &own).with("sec-fetch-site", "same-origin");
    assert!(browser.send(sent).await.shows("Continue to"), "and our own works");
    let stranger = (AuditResult::Refused, Some(Reason::FlowNotFound));
    assert_eq!(refusals(&mut world, AuditAction::ConsentGiven).await, [stranger]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_mints_so_many_attempts_in_a_browser_too() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    for _ in 0..10 {
        assert_eq!(browser.press(&consent, APPROVE.0, APPROVE.1).await.status, StatusCode::OK);
    }
    let refused = browser.press(&consent, APPROVE.0, APPROVE.1).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.body);
}
