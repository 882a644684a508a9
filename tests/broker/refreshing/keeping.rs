//! What a failure says nothing about outlives it, and what is not known is not invented.

use claviger::{
    dev::{Endpoint, Fault, GrantType, HoldPoint},
    proto::v1::{CredentialState as State, ErrorReason as Reason, NextAction},
};
use serde_json::{Map, json};

use super::{IN_MARGIN, LIFETIME, MINUTE, arm, look, oauth_error, token};
use crate::{
    observer::in_time,
    support::records::Records,
    world::{World, reason},
};

#[tokio::test]
async fn a_verdict_over_a_token_that_a_reconnect_replaced_kills_nothing() {
    let world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    let hold = world.provider.faults().hold_if(Endpoint::Token, Some(GrantType::RefreshToken), HoldPoint::Request);
    world.clock.advance(61 * MINUTE);
    in_time(hold.arrived(1)).await;
    assert_eq!(world.connect(&client, "alice").await.generation, 2);
    arm(&world, &oauth_error(400, "invalid_grant"), 1);
    hold.release();
    let served = token(&client).await.unwrap();
    assert!(served.generation == 2 && world.accepts(&served));
    world.clock.advance(LIFETIME);
    let served = token(&client).await.unwrap();
    assert!(served.generation == 3 && world.accepts(&served));
    assert_eq!(look(&client, &connection).await.state(), State::Connected);
}

#[tokio::test]
async fn the_tokens_of_a_dead_connection_are_kept_apart_and_not_deleted() {
    let mut world = World::start().await;
    let client = world.client("alice");
    world.connect(&client, "alice").await;
    arm(&world, &oauth_error(400, "invalid_grant"), 1);
    world.clock.advance(IN_MARGIN);
    assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
    let connection = client.list_connections(Default::default()).await.unwrap().connections.remove(0);
    drop(client);
    world.stop().await;
    let records = Records::open(&world).await;
    let id = connection.connection_id.parse().unwrap();
    let stored = records.vault.any_connection(id).await.unwrap().unwrap();
    let tokens = records.vault.connection_tokens(&stored).await.unwrap().unwrap();
    assert!(tokens.refresh.is_some());
    records.close().await;
}

#[tokio::test]
async fn an_expiry_that_nobody_said_is_not_invented() {
    let world = World::start().await;
    let silent = Fault::Edit { set: Map::new(), remove: vec!["expires_in".to_owned()] };
    world.provider.faults().arm(Endpoint::Token, silent, 1);
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    assert_eq!(connection.expires_at, None);
    assert_eq!((connection.next_action(), connection.next_action_at), (NextAction::Refresh, None));
    let first = token(&client).await.unwrap();
    assert_eq!((first.expires_at, first.expires_in), (None, None));
    for _ in 0..24 {
        world.clock.advance(24 * 60 * MINUTE);
        assert_eq!(token(&client).await.unwrap().access_token, first.access_token);
    }
    assert_eq!(world.refreshes(), 0);
    assert_eq!(look(&client, &connection).await.state(), State::Connected);
}

#[tokio::test]
async fn scopes_that_a_refresh_takes_away_are_missed_and_not_pretended() {
    let world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    let fewer = Map::from_iter([("scope".to_owned(), json!("openid"))]);
    arm(&world, &Fault::Edit { set: fewer, remove: Vec::new() }, 1);
    world.clock.advance(IN_MARGIN);
    let error = token(&client).await.err().unwrap();
    assert_eq!(error.reason, Some(Reason::ScopesMissing));
    let missing = error.authentication_required.unwrap().missing_scopes;
    let granted = look(&client, &connection).await;
    assert_eq!((granted.generation, granted.state()), (2, State::Connected));
    assert_eq!(granted.scopes, ["openid"]);
    assert!(!missing.is_empty() && missing.iter().all(|scope| connection.scopes.contains(scope)), "{missing:?}");
}
