//! The way from the link to the connection, and every other way that it may end.

use claviger::proto::v1::{AuthorizationState, ErrorReason};
use reqwest::StatusCode;

use crate::{
    browser::Browser,
    person::{Link, world},
    world::{PLUGIN, ask},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_leads_to_a_connection() {
    let world = world().await;
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
}
