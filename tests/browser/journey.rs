//! The way from the link to the connection, and every other way that it may end.

use std::collections::BTreeMap;

use claviger::{
    dev::{Answer, Endpoint, Fault},
    domain::{AuditAction, AuditResult, Reason},
    proto::v1::{self, AuthorizationState, ErrorReason},
};
use reqwest::StatusCode;

use crate::{
    browser::{Browser, Page, Sent},
    person::{
        APPROVE, DENY, LOGIN_CALLBACK, Link, OAUTH_CALLBACK, browser_start, exchanges, nothing_is_stored, refusals,
        trail, world,
    },
    world::{MINUTE, PLUGIN, World, ask, reason},
};

const DENIED: (AuthorizationState, ErrorReason) = (AuthorizationState::Denied, ErrorReason::FlowDenied);
const EXPIRED: (AuthorizationState, ErrorReason) = (AuthorizationState::Expired, ErrorReason::FlowExpired);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_leads_to_a_connection() {
    let mut world = world().await;
    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    let mut browser = Browser::new();
    let done = browser.connect(&link, "alice").await;
    assert_eq!(done.status, StatusCode::OK);
    assert!(done.shows("Connected") && done.shows("alice"), "{}", done.body);
    assert_eq!(done.url, link.url, "the address holds no code");
    assert_eq!(link.state(&alice).await, (AuthorizationState::Completed, ErrorReason::Unspecified));
    let token = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    assert!(world.accepts(&token));
    assert!(browser.cookie_names().iter().all(|name| !name.starts_with("flow-")), "{:?}", browser.cookie_names());
    assert!(browser.open(&link.url).await.shows("Connected"), "as often as it is looked at");
    assert!(Browser::new().open(&link.url).await.shows("Already used"), "and nobody else learns how it ended");
    let actions: Vec<_> = trail(&mut world).await.iter().map(|record| (record.action, record.result)).collect();
    for action in [AuditAction::SignedIn, AuditAction::ConsentGiven, AuditAction::AuthorizationAnswered] {
        assert!(actions.contains(&(action, AuditResult::Allowed)), "{action:?}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_token_is_given_the_link() {
    let mut world = world().await;
    let alice = world.client("alice");
    let refused = alice.get_plugin_token(ask(PLUGIN)).await.err().unwrap().authentication_required.unwrap();
    let link = Link::of(&alice).await;
    assert_eq!((refused.auth_url.as_str(), &refused.flow_id), (link.url.as_str(), &link.flow));
    assert_eq!(link.url.path(), format!("/connect/{}", link.flow));

    world.reconfigure(|config| config.http.public_url = None).await;
    let alice = world.client("alice");
    assert_eq!(reason(alice.start_authorization(browser_start(PLUGIN)).await), ErrorReason::SignInNotConfigured);
    let refused = alice.get_plugin_token(ask(PLUGIN)).await.err().unwrap().authentication_required.unwrap();
    assert_eq!(refused.auth_url, "");
    let page = Browser::new().open(&link.url).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND, "{}", page.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_who_asks_for_what() {
    let world = world().await;
    let claims = claviger::dev::PlatformClaims { agent: Some("travel-agent".to_owned()), ..crate::world::claims() };
    let alice = world.client_with(&world.token("alice", &claims));
    let link = Link::started(&alice, browser_start("notes")).await;
    let consent = Browser::new().signed_in(&link, "alice").await;
    for part in ["travel-agent", "OpenID provider", "Notes", "read notes", "notes.read", "notes.write"] {
        assert!(consent.shows(part), "{part}: {}", consent.body);
    }
    for part in ["What changes", "How to take it back", "Deny"] {
        assert!(consent.shows(part), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_on_our_page_ends_the_flow() {
    let world = world().await;
    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let denied = browser.press(&consent, DENY.0, DENY.1).await;
    assert!(denied.shows("Denied") && denied.url == link.url, "{}", denied.body);
    assert_eq!(link.state(&alice).await, DENIED);
    let late = browser.press(&consent, APPROVE.0, APPROVE.1).await;
    assert_eq!(late.status, StatusCode::GONE, "the form is still in another tab");
    nothing_is_stored(&world).await;
    assert_ne!(Link::of(&alice).await.flow, link.flow, "asking again is a new question");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_at_the_provider_ends_the_flow() {
    let mut world = world().await;
    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let page = browser.provider_consent(&consent, "alice").await;
    let denied = browser.press(&page, DENY.0, DENY.1).await;
    assert!(denied.shows("Denied") && denied.url == link.url, "{}", denied.body);
    assert!(!denied.shows("the user refused"), "the provider's words are not ours");
    assert_eq!(link.state(&alice).await, DENIED);
    nothing_is_stored(&world).await;
    let failed = (AuditResult::Failed, Some(Reason::FlowDenied));
    assert_eq!(refusals(&mut world, AuditAction::AuthorizationAnswered).await, [failed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_provider_ends_the_flow_with_a_reason() {
    for (error, reason) in [
        ("temporarily_unavailable", ErrorReason::ProviderUnreachable),
        ("invalid_scope", ErrorReason::ProviderSuspended),
        ("out_of_coffee", ErrorReason::ProviderReplyInvalid),
    ] {
        let world = world().await;
        let alice = world.client("alice");
        let link = Link::of(&alice).await;
        let set = BTreeMap::from([("error".to_owned(), error.to_owned())]);
        let fault = Fault::EditRedirect { set, remove: vec!["code".to_owned()] };
        world.provider.faults().arm(Endpoint::Consent, fault, 1);
        let failed = Browser::new().connect(&link, "alice").await;
        assert!(failed.shows("Not connected") && !failed.shows(error), "{}", failed.body);
        assert_eq!(link.state(&alice).await, (AuthorizationState::Failed, reason));
        nothing_is_stored(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_was_not_reached_can_be_tried_again_with_the_same_answer() {
    let mut world = world().await;
    world.provider.faults().arm(Endpoint::Token, Fault::Answer(Answer::new(StatusCode::BAD_GATEWAY, "")), 1);
    let alice = world.client("alice");
    let link = Link::of(&alice).await;
    let failed = Browser::new().connect(&link, "alice").await;
    assert!(failed.shows("Not connected"), "what was sent and not answered is over: {}", failed.body);

    let link = Link::of(&alice).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let answer = browser.answer(&consent, "alice", APPROVE).await;
    world.restart().await;
    assert!(browser.open(&answer).await.shows("Connected"), "a restart forgets neither browser nor answer");
}

// In time.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_late_is_told_so_at_every_step() {
    let late = |page: Page| {
        assert_eq!(page.status, StatusCode::GONE, "{}", page.body);
        assert!(page.shows("Too late"), "{}", page.body);
    };
    for step in ["link", "sign-in", "consent", "answer"] {
        let world = world().await;
        let alice = world.client("alice");
        let link = Link::of(&alice).await;
        let mut browser = Browser::new();
        let too_late = || world.clock.advance(10 * MINUTE);
        match step {
            "link" => {
                too_late();
                late(browser.open(&link.url).await);
            }
            "sign-in" => {
                let login = browser.open(&link.url).await;
                let back = browser.press_up_to(&login, ("user", "alice"), LOGIN_CALLBACK).await;
                too_late();
                late(browser.open(&back).await);
            }
            "consent" => {
                let consent = browser.signed_in(&link, "alice").await;
                too_late();
                late(browser.press(&consent, APPROVE.0, APPROVE.1).await);
                late(browser.open(&link.url).await);
            }
            _ => {
                let consent = browser.signed_in(&link, "alice").await;
                let answer = browser.answer(&consent, "alice", APPROVE).await;
                too_late();
                late(browser.open(&answer).await);
            }
        }
        assert_eq!(link.state(&alice).await, EXPIRED, "{step}");
        nothing_is_stored(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_closed_the_window_opens_the_link_again() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    browser.open(&link.url).await;
    let consent = browser.signed_in(&link, "alice").await;
    assert!(consent.shows("Calendar"));
    let again = browser.open(&link.url).await;
    assert!(again.shows("Calendar"), "without signing in again: {}", again.body);
    // Closed at the provider, and begun anew; the first attempt's page is still open somewhere.
    let abandoned = browser.answer(&again, "alice", APPROVE).await;
    let third = browser.open(&link.url).await;
    let page = browser.provider_consent(&third, "alice").await;
    let old = browser.open(&abandoned).await;
    assert_eq!(old.status, StatusCode::FORBIDDEN, "the browser is at its newest attempt: {}", old.body);
    assert!(browser.press(&page, APPROVE.0, APPROVE.1).await.shows("Connected"));
    assert_eq!(exchanges(&world), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_button_pressed_twice_does_no_harm() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    browser.press(&consent, APPROVE.0, APPROVE.1).await;
    let page = browser.provider_consent(&consent, "alice").await;
    assert!(browser.press(&page, APPROVE.0, APPROVE.1).await.shows("Connected"));
}

// An answer that is posted (OAuth 2.0 Form Post Response Mode).

async fn at_the_provider(world: &World) -> (Link, Browser, url::Url) {
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let consent = browser.signed_in(&link, "alice").await;
    let answer = browser.answer(&consent, "alice", APPROVE).await;
    (link, browser, answer)
}

fn posted(answer: &url::Url) -> Sent {
    let mut target = answer.clone();
    target.set_query(None);
    Sent::post(&target, answer.query().unwrap().to_owned()).with("origin", "http://127.0.0.1:1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posted_answer_waits_for_its_browser() {
    let mut world = world().await;
    let (link, mut browser, answer) = at_the_provider(&world).await;
    // Another site's form brings no cookie.
    let mut bare = browser.fresh();
    let parked = bare.send(posted(&answer)).await;
    assert_eq!(parked.status, StatusCode::SEE_OTHER, "{}", parked.body);
    let onward = parked.url.join(parked.headers["location"].to_str().unwrap()).unwrap();
    assert_eq!(onward.path(), "/oauth/callback/continue");
    assert!(!onward.as_str().contains("code="), "{onward}");
    nothing_is_stored(&world).await;

    let stranger = bare.open(&onward).await;
    assert_eq!(stranger.status, StatusCode::FORBIDDEN, "{}", stranger.body);
    nothing_is_stored(&world).await;
    let done = browser.open(&onward).await;
    assert!(done.shows("Connected") && done.url == link.url, "{}", done.body);
    let again = browser.open(&onward).await;
    assert!(again.status.is_client_error());
    assert_eq!(exchanges(&world), 1);
    let refused = refusals(&mut world, AuditAction::AuthorizationAnswered).await;
    assert_eq!(refused, [(AuditResult::Refused, Some(Reason::FlowNotFound))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_posted_answers_the_first_is_kept() {
    let mut world = world().await;
    let (_, mut browser, answer) = at_the_provider(&world).await;
    let before = trail(&mut world).await.len();
    world.run().await;
    let mut bare = browser.fresh();
    let parked = bare.send(posted(&answer)).await;
    let mut forged = answer.clone();
    let pairs: Vec<_> = answer
        .query_pairs()
        .into_owned()
        .map(|(name, value)| {
            let value = if name == "code" { "forged".to_owned() } else { value };
            (name, value)
        })
        .collect();
    forged.query_pairs_mut().clear().extend_pairs(pairs);
    for _ in 0..5 {
        assert_eq!(bare.send(posted(&forged)).await.headers["location"], parked.headers["location"]);
    }
    assert_eq!(trail(&mut world).await.len(), before);
    world.run().await;
    let onward = parked.url.join(parked.headers["location"].to_str().unwrap()).unwrap();
    assert!(browser.open(&onward).await.shows("Connected"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_posted_without_an_attempt_is_not_kept() {
    let world = world().await;
    let (_, browser, answer) = at_the_provider(&world).await;
    let mut bare = browser.fresh();
    let mut target = answer.clone();
    target.set_query(None);
    for (body, status) in [
        (format!("code=c&state={}", "A".repeat(43)), StatusCode::NOT_FOUND),
        (format!("{}&code=x", answer.query().unwrap()), StatusCode::BAD_REQUEST),
        (String::new(), StatusCode::BAD_REQUEST),
        (format!("{}&x={}", answer.query().unwrap(), "x".repeat(9 << 10)), StatusCode::BAD_REQUEST),
        ("x".repeat(17 << 10), StatusCode::BAD_REQUEST),
    ] {
        let page = bare.send(Sent::post(&target, body)).await;
        assert_eq!(page.status, status, "{}", page.body);
    }
    for query in ["", "state=a&state=b", "state=a&x=y", "code=c"] {
        let onward = target.join(&format!("{OAUTH_CALLBACK}/continue?{query}")).unwrap();
        assert!(bare.open(&onward).await.status.is_client_error(), "{query}");
    }
    nothing_is_stored(&world).await;
}

// The way back to the application.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_page_offers_the_way_back() {
    let mut world = world().await;
    let alice = world.client("alice");
    let with_return = |plugin| v1::StartAuthorizationRequest {
        return_url: "https://app.example/done".to_owned(),
        ..browser_start(plugin)
    };
    let back = |page: &Page| page.link("Return to").map(String::from);
    let link = Link::started(&alice, with_return(PLUGIN)).await;
    let mut browser = Browser::new();
    let done = browser.connect(&link, "alice").await;
    let wanted = format!("https://app.example/done?flow_id={}&outcome=completed", link.flow);
    assert_eq!(back(&done), Some(wanted));

    let denied = Link::started(&alice, with_return("notes")).await;
    let consent = browser.signed_in(&denied, "alice").await;
    let page = browser.press(&consent, DENY.0, DENY.1).await;
    let wanted = format!("https://app.example/done?flow_id={}&outcome=denied", denied.flow);
    assert_eq!(back(&page), Some(wanted));

    world.reconfigure(|config| config.tenants[0].return_urls.clear()).await;
    assert_eq!(back(&browser.open(&link.url).await), None, "the list was changed since");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_led_where_the_tenant_does_not_allow() {
    let world = world().await;
    let alice = world.client("alice");
    for elsewhere in [
        "https://evil.example/done",
        "//evil.example/done",
        "\\\\evil.example",
        "https:\\evil.example",
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "https://app.example@evil.example/done",
        "https://app.example.evil.example/done",
        "https://app.example/done/../evil",
        "https://app.example/done?next=//evil.example",
        "http://app.example/done",
        "https://app.example:444/done",
    ] {
        let request = v1::StartAuthorizationRequest { return_url: elsewhere.to_owned(), ..browser_start(PLUGIN) };
        assert_eq!(reason(alice.start_authorization(request).await), ErrorReason::InvalidArgument, "{elsewhere}");
    }
}
