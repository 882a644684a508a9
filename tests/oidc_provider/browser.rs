//! Binding `BROWSER`: the user agrees on the broker's pages. Provider and pages stand on different sites.

use claviger::{
    client::Client,
    proto::v1::{self, AuthorizationBinding, AuthorizationState as State, ErrorReason as Reason},
};
use url::Url;

use crate::{
    visitor::{Answer, Browser},
    world::{World, ask, reason, start},
};

async fn begin(client: &Client) -> (String, Url) {
    let begun = client.start_authorization(start(AuthorizationBinding::Browser)).await.unwrap();
    (begun.flow_id, begun.authorization_url.parse().unwrap())
}

async fn state(client: &Client, flow_id: &str) -> (State, Reason) {
    let request = v1::GetAuthorizationRequest { flow_id: flow_id.to_owned(), wait: None };
    let answer = client.get_authorization(request).await.unwrap();
    (answer.state(), answer.reason())
}

#[tokio::test]
async fn an_account_is_connected_whichever_way_the_answer_comes() {
    let Some(world) = World::start().await else { return };
    for (user, answer) in [("alice", Answer::Approve), ("bob", Answer::ApproveByPost)] {
        let client = world.client(user).await;
        let (flow, link) = begin(&client).await;
        let page = Browser::of(user).visit(&link, answer).await;
        assert_eq!(page.url, link, "{}", page.text);
        assert_eq!(state(&client, &flow).await, (State::Completed, Reason::Unspecified));
        let token = client.get_plugin_token(ask()).await.unwrap();
        assert_eq!(world.provider.user_of(&token.access_token).await.as_deref(), Some(user));
    }
}

#[tokio::test]
async fn a_user_who_says_no_at_the_provider_is_believed() {
    let Some(world) = World::start().await else { return };
    let client = world.client("alice").await;
    let (flow, link) = begin(&client).await;
    let page = Browser::of("alice").visit(&link, Answer::Deny).await;
    assert!(page.text.contains("Nothing was connected"), "{}", page.text);
    assert_eq!(state(&client, &flow).await, (State::Denied, Reason::FlowDenied));
    assert_eq!(reason(client.get_plugin_token(ask()).await), Reason::ConsentRequired);
}

#[tokio::test]
async fn a_link_is_worth_nothing_to_somebody_else() {
    let Some(world) = World::start().await else { return };
    let alice = world.client("alice").await;
    let (flow, link) = begin(&alice).await;
    let page = Browser::of("mallory").visit(&link, Answer::Approve).await;
    assert!(page.text.contains("somebody else"), "{}", page.text);
    assert_eq!(state(&alice, &flow).await, (State::Pending, Reason::Unspecified));
    assert!(world.provider.refreshes().await.tokens.is_empty());

    Browser::of("alice").visit(&link, Answer::Approve).await;
    assert_eq!(state(&alice, &flow).await, (State::Completed, Reason::Unspecified));
}
