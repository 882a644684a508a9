//! Binding `CALLER`: the application takes the code, and hands it in.

use std::collections::BTreeSet;

use claviger::{
    client::{Client, ClientError},
    proto::v1::{self, CredentialState, ErrorReason, LocalOutcome, RemoteOutcome},
};

use crate::world::{PLUGIN, World, ask, reason};

/// So much that no token has it left, so that the call must bring a newer one.
fn ask_for_a_newer_one() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { min_remaining: Some(prost_types::Duration { seconds: 24 * 3600, nanos: 0 }), ..ask() }
}

async fn revoke(client: &Client) -> v1::RevokeResult {
    let target = v1::revoke_request::Target::Plugin(PLUGIN.to_owned());
    let answer = client.revoke(v1::RevokeRequest { target: Some(target), ..Default::default() }).await.unwrap();
    let [result] = answer.results.try_into().expect("there is one connection");
    result
}

#[tokio::test]
async fn a_connected_account_has_tokens_that_its_provider_takes() {
    let Some(world) = World::start().await else { return };
    let client = world.client("alice").await;
    assert_eq!(reason(client.get_plugin_token(ask()).await), ErrorReason::ConsentRequired);

    let connection = world.connect(&client, "alice").await;
    assert_eq!(connection.account, "alice");
    let token = client.get_plugin_token(ask()).await.unwrap();
    assert_eq!((token.connection_id, token.generation), (connection.connection_id, 1));
    assert_eq!(token.scopes, ["calendar.read", "offline_access", "openid"]);
    assert_eq!(world.provider.user_of(&token.access_token).await.as_deref(), Some("alice"));

    let bob = world.client("bob").await;
    assert_eq!(reason(bob.get_plugin_token(ask()).await), ErrorReason::ConsentRequired);
}

#[tokio::test]
async fn every_refresh_replaces_the_refresh_token() {
    let Some(world) = World::start().await else { return };
    let client = world.client("alice").await;
    world.connect(&client, "alice").await;
    for generation in 2..5 {
        let before = world.provider.refreshes().await;
        assert!(world.provider.is_active(before.newest()).await);
        let token = client.get_plugin_token(ask_for_a_newer_one()).await.unwrap();
        assert_eq!(token.generation, generation);
        assert_eq!(world.provider.user_of(&token.access_token).await.as_deref(), Some("alice"));

        let after = world.provider.refreshes().await;
        assert_eq!(after.tokens.len(), before.tokens.len() + 1);
        assert!(!world.provider.is_active(before.newest()).await, "the used one is dead");
        assert!(world.provider.is_active(after.newest()).await);
    }
    assert_eq!(world.provider.refreshes().await.refused, 0);
}

#[tokio::test]
async fn fifty_callers_of_an_expired_token_cause_one_refresh() {
    let Some(mut world) = World::start().await else { return };
    world.provider.set_lifetime(1).await;
    let client = world.client("alice").await;
    world.connect(&client, "alice").await;
    let expiring = client.get_plugin_token(ask()).await.unwrap();
    // A broker that is not there cannot refresh in advance; the next token lasts longer than this test.
    world.stop();
    world.provider.set_lifetime(3600).await;
    world.provider.outlasts(1).await;
    assert_eq!(world.provider.user_of(&expiring.access_token).await, None);
    let before = world.provider.refreshes().await;
    world.run();

    let client = world.client("alice").await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get_plugin_token(ask()).await })
        })
        .collect();
    let mut tokens = BTreeSet::new();
    for call in calls {
        let token = call.await.unwrap().unwrap();
        assert!(token.generation > expiring.generation);
        tokens.insert(token.access_token);
    }
    assert_eq!(tokens.len(), 1);
    assert_eq!(world.provider.user_of(tokens.first().unwrap()).await.as_deref(), Some("alice"));
    let after = world.provider.refreshes().await;
    assert_eq!((after.tokens.len(), after.refused), (before.tokens.len() + 1, 0));
}

#[tokio::test]
async fn what_is_revoked_is_dead_at_the_provider() {
    let Some(world) = World::start().await else { return };
    let client = world.client("alice").await;
    world.connect(&client, "alice").await;
    let token = client.get_plugin_token(ask_for_a_newer_one()).await.unwrap();
    let refresh_token = world.provider.refreshes().await.newest().to_owned();
    assert!(world.provider.is_active(&refresh_token).await);

    let revoked = revoke(&client).await;
    assert_eq!(revoked.local_outcome(), LocalOutcome::Stopped);
    assert_eq!(revoked.remote_outcome(), RemoteOutcome::Confirmed);
    assert_eq!(world.provider.refresh_error(&refresh_token).await.as_deref(), Some("invalid_grant"));
    assert_eq!(world.provider.user_of(&token.access_token).await, None);
    assert_eq!(reason(client.get_plugin_token(ask()).await), ErrorReason::ConsentRequired);

    world.connect(&client, "alice").await;
    assert!(client.get_plugin_token(ask()).await.is_ok());
}

#[tokio::test]
async fn a_used_refresh_token_in_other_hands_ends_the_connection() {
    let Some(world) = World::start().await else { return };
    let client = world.client("alice").await;
    let connection = world.connect(&client, "alice").await;
    let stolen = world.provider.refreshes().await.newest().to_owned();
    client.get_plugin_token(ask_for_a_newer_one()).await.unwrap();
    assert_eq!(world.provider.refresh_error(&stolen).await.as_deref(), Some("invalid_grant"));

    let refused: Result<_, ClientError> = client.get_plugin_token(ask_for_a_newer_one()).await;
    assert_eq!(reason(refused), ErrorReason::ReauthorizationRequired);
    let request = v1::GetConnectionRequest { connection_id: connection.connection_id };
    let dead = client.get_connection(request).await.unwrap().connection.unwrap();
    assert_eq!(dead.state(), CredentialState::ReauthorizationRequired);
}
