//! Who is there: what our pages believe of the issuer that people sign in at.

use claviger::{
    dev::{Answer, Endpoint, Fault},
    domain::AuditAction,
    proto::v1::{AuthorizationState, ErrorReason},
};
use reqwest::StatusCode;
use serde_json::json;
use url::Url;

use crate::{
    browser::{Browser, Page},
    person::{LOGIN_CALLBACK, Link, nothing_is_stored, refusals, world},
    world::World,
};

async fn is_not_in(world: &World, link: &Link, page: &Page) {
    assert!(page.status.is_client_error() || page.status.is_server_error(), "{}", page.body);
    assert!(!page.shows("Calendar"), "{}", page.body);
    nothing_is_stored(world).await;
    let open = (AuthorizationState::Pending, ErrorReason::Unspecified);
    assert_eq!(link.state(&world.client("alice")).await, open);
}

fn edited(url: &Url, edit: impl Fn(&str, String) -> Option<String>) -> Url {
    let pairs = url.query_pairs().map(|(name, value)| (name.clone().into_owned(), edit(&name, value.into())));
    let kept: Vec<_> = pairs.filter_map(|(name, value)| Some((name, value?))).collect();
    let mut other = url.clone();
    other.query_pairs_mut().clear().extend_pairs(kept);
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_is_finished_in_the_browser_that_began_it() {
    let mut world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let login = browser.open(&link.url).await;
    let back = browser.press_up_to(&login, ("user", "alice"), LOGIN_CALLBACK).await;
    // An attacker who makes a victim open his own answer would be signed in there.
    let mut victim = Browser::new();
    is_not_in(&world, &link, &victim.open(&back).await).await;
    victim.open(&link.url).await;
    is_not_in(&world, &link, &victim.open(&back).await).await;
    for bad in [
        edited(&back, |name, value| Some(if name == "state" { format!("{}.x", link.flow) } else { value })),
        edited(&back, |name, value| Some(if name == "state" { "x".to_owned() } else { value })),
        edited(&back, |name, value| Some(if name == "iss" { "https://evil.example".to_owned() } else { value })),
        edited(&back, |name, value| (name != "iss").then_some(value)),
        edited(&back, |name, value| (name != "code").then_some(value)),
        edited(&back, |name, value| (name != "state").then_some(value)),
    ] {
        is_not_in(&world, &link, &browser.open(&bad).await).await;
    }
    let mut doubled = back.clone();
    doubled.query_pairs_mut().append_pair("code", "x");
    is_not_in(&world, &link, &browser.open(&doubled).await).await;
    assert!(browser.open(&back).await.shows("Calendar"), "none of it has spent the right answer");
    let spent = browser.open(&back).await;
    assert_eq!(spent.status, StatusCode::FORBIDDEN, "{}", spent.body);
    assert_eq!(refusals(&mut world, AuditAction::SignedIn).await, [], "nobody was known to be there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_planted_before_the_sign_in_is_worth_nothing_after_it() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut attacker = Browser::new();
    attacker.open(&link.url).await;
    let mut victim = attacker.clone();
    victim.signed_in(&link, "alice").await;
    assert!(attacker.open(&link.url).await.shows("Log in"), "the cookie was replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_the_issuer_does_not_vouch_for_is_not_signed_in() {
    let unsigned = json!({ "access_token": "a", "token_type": "Bearer", "id_token": "e30.e30." });
    for fault in [
        Fault::IdTokenSubject("mallory".to_owned()),
        Fault::Edit { set: serde_json::Map::new(), remove: vec!["id_token".to_owned()] },
        Fault::Answer(Answer::json(StatusCode::OK, &unsigned)),
        Fault::Answer(Answer::new(StatusCode::SERVICE_UNAVAILABLE, "")),
        Fault::Drop,
    ] {
        let world = world().await;
        let link = Link::of(&world.client("alice")).await;
        let mut browser = Browser::new();
        world.provider.faults().arm(Endpoint::PlatformToken, fault, 1);
        let page = browser.signed_in(&link, "alice").await;
        is_not_in(&world, &link, &page).await;
        assert!(browser.signed_in(&link, "alice").await.shows("Calendar"), "trying again helps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_is_declined_leaves_the_flow_open() {
    let world = world().await;
    let link = Link::of(&world.client("alice")).await;
    let mut browser = Browser::new();
    let login = browser.open(&link.url).await;
    let back = browser.press_up_to(&login, ("user", "alice"), LOGIN_CALLBACK).await;
    let declined = edited(&back, |name, value| (name != "code").then_some(value));
    let declined = Url::parse(&format!("{declined}&error=access_denied&error_description=no+thanks")).unwrap();
    let page = browser.open(&declined).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.shows("Not signed in") && !page.shows("no thanks"), "{}", page.body);
    is_not_in(&world, &link, &page).await;
    let login = browser.open(&page.link("Begin again").unwrap()).await;
    assert!(browser.press(&login, "user", "alice").await.shows("Calendar"));
}
