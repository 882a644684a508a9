//! A provider that refuses our client registration: everybody is told, nobody's connection is touched, and it is over for
//! everybody when one refresh succeeds or the registration is another one.

use std::sync::Arc;

use claviger::{
    broker::Catalog,
    config::Config,
    domain::{ClientSecret, ConfigurationDigest, Provider},
    proto::v1::{self, CredentialEventKind as Kind, CredentialState as State, ErrorReason as Reason},
};

use super::{Endpoint, Fault, HoldPoint, IN_MARGIN, MINUTE, SECOND, arm, look, oauth_error, seconds, token};
use crate::{
    backing_up::{operator, with_operators},
    heard::Client,
    observer::{Observer, in_time, kinds},
    world::{PLUGIN, Settings, World, ask, reason},
};

/// Has the provider asked for a new token, if it may be asked at all: no token lives that long.
async fn refresh(client: &Client) -> Result<u64, Reason> {
    let longer = v1::GetPluginTokenRequest { min_remaining: Some(seconds(3600)), ..ask(PLUGIN) };
    match in_time(client.get_plugin_token(longer)).await {
        Ok(token) => Ok(token.generation),
        Err(error) => Err(error.reason.unwrap()),
    }
}

async fn connected(world: &World, user: &str) -> (Client, v1::Connection) {
    let client = world.client(user);
    let connection = world.connect(&client, user).await;
    world.clock.advance(SECOND);
    (client, connection)
}

#[tokio::test]
async fn every_connection_of_the_provider_is_shown_and_told_so_once_though_the_process_is_killed() {
    let mut world = World::start().await;
    let (alice, first) = connected(&world, "alice").await;
    let (bob, second) = connected(&world, "bob").await;
    let mut watchers = [Observer::of(&alice).await, Observer::of(&bob).await];
    arm(&world, &oauth_error(401, "invalid_client"), 1);
    world.clock.advance(MINUTE);
    assert_eq!(refresh(&alice).await, Ok(1), "the old token lives");
    for watcher in &mut watchers {
        let told = watcher.next().await;
        let status = told.status.clone().unwrap();
        assert_eq!((told.kind(), status.state()), (Kind::Suspended, State::Suspended));
        assert_eq!((status.reason(), status.generation), (Reason::ProviderSuspended, 1));
    }
    drop((alice, bob));
    let [of_alice, of_bob] = watchers;
    world.crash().await;
    world.run().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let mut watchers = [Observer::after(of_alice, &alice).await, Observer::after(of_bob, &bob).await];
    for (client, connection) in [(&alice, &first), (&bob, &second)] {
        assert_eq!(look(client, connection).await.state(), State::Suspended);
        let listed = client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap().connections;
        assert_eq!((listed[0].state(), listed[0].badge()), (State::Suspended, v1::ConnectionBadge::Unavailable));
        assert_eq!(token(client).await.unwrap().generation, 1);
    }
    assert_eq!(refresh(&bob).await, Ok(1), "nobody asks before a minute is over");
    assert_eq!(world.refreshes(), 1);

    world.clock.advance(2 * MINUTE);
    assert_eq!(refresh(&bob).await, Ok(2));
    assert_eq!(kinds(&watchers[1].until(Kind::Resumed).await), [Kind::Refreshed, Kind::Resumed]);
    let told = watchers[0].next().await;
    assert_eq!((told.kind(), told.status.unwrap().state()), (Kind::Resumed, State::Connected));
    assert_eq!(look(&alice, &first).await.state(), State::Connected);
    assert_eq!(refresh(&alice).await, Ok(2));
    assert_eq!(kinds(&watchers[0].until(Kind::Refreshed).await), [Kind::Refreshed]);
    world.stop().await;
}

#[tokio::test]
async fn whoever_comes_to_watch_finds_them_suspended() {
    let mut world = World::start().await;
    let (client, connection) = connected(&world, "alice").await;
    arm(&world, &oauth_error(400, "unauthorized_client"), 1);
    assert_eq!(refresh(&client).await, Ok(1));
    let start = Some(v1::watch_credential_status_request::Start::Snapshot(true));
    let request = v1::WatchCredentialStatusRequest { start, ..Default::default() };
    let mut stream = client.watch_credential_status(request).await.unwrap();
    let status = loop {
        let message = in_time(stream.message()).await.unwrap().unwrap();
        if let Some(v1::watch_credential_status_response::Body::Snapshot(snapshot)) = message.body {
            break snapshot.statuses[0].clone();
        }
    };
    assert_eq!((status.connection_id, status.generation), (connection.connection_id, 1));
    assert_eq!(status.state, i32::from(State::Suspended));
    world.stop().await;
}

#[tokio::test]
async fn a_dead_connection_stays_dead_and_is_told_nothing() {
    let mut world = World::start().await;
    let (alice, dead) = connected(&world, "alice").await;
    let (bob, _) = connected(&world, "bob").await;
    arm(&world, &oauth_error(400, "invalid_grant"), 1);
    let _ = refresh(&alice).await;
    assert_eq!(look(&alice, &dead).await.state(), State::ReauthorizationRequired);
    let (mut of_alice, mut of_bob) = (Observer::of(&alice).await, Observer::of(&bob).await);
    arm(&world, &oauth_error(401, "invalid_client"), 1);
    assert_eq!(refresh(&bob).await, Ok(1));
    assert_eq!(of_bob.next().await.kind(), Kind::Suspended);
    assert_eq!(look(&alice, &dead).await.state(), State::ReauthorizationRequired);
    world.clock.advance(2 * MINUTE);
    assert_eq!(refresh(&bob).await, Ok(2));
    of_bob.until(Kind::Resumed).await;
    world.connect(&alice, "alice").await;
    assert_eq!(of_alice.next().await.kind(), Kind::Connected, "nothing came before it");
    world.stop().await;
}

#[tokio::test]
async fn another_registration_is_tried_at_once_after_a_start() {
    let mut world = World::start().await;
    let (client, connection) = connected(&world, "alice").await;
    let right = world.provider.client_secret();
    let mut watcher = Observer::of(&client).await;
    drop(client);
    world.reconfigure(|config: &mut Config| config.providers[0].client_secret = Some(wrong())).await;
    let client = world.client("alice");
    assert_eq!(refresh(&client).await, Ok(1));
    drop(client);
    // The same wrong one is no other one.
    world.restart().await;
    let client = world.client("alice");
    watcher = Observer::after(watcher, &client).await;
    assert_eq!(watcher.next().await.kind(), Kind::Suspended);
    assert_eq!(look(&client, &connection).await.state(), State::Suspended);
    let asked = world.refreshes();
    assert_eq!(refresh(&client).await, Ok(1));
    assert_eq!(world.refreshes(), asked);
    drop(client);

    let right = ClientSecret::new(right.expose().to_owned());
    world.reconfigure(move |config| config.providers[0].client_secret = Some(right.clone())).await;
    let client = world.client("alice");
    watcher = Observer::after(watcher, &client).await;
    assert_eq!(watcher.next().await.kind(), Kind::Resumed);
    assert_eq!(look(&client, &connection).await.state(), State::Connected);
    assert_eq!(refresh(&client).await, Ok(2));
    world.stop().await;
}

#[tokio::test]
async fn another_registration_is_tried_at_once_after_a_reload() {
    let world = World::start_with(Settings {
        configure: Box::new(|config| config.providers[0].client_secret = Some(wrong())),
        ..Settings::default()
    })
    .await;
    let right = world.provider.client_secret();
    let reload = async |secret: ClientSecret| {
        let mut catalog = Catalog::clone(&world.broker().catalog());
        let provider = catalog.providers.values().next().unwrap();
        let other = Provider { client_secret: Some(secret), ..Provider::clone(provider) };
        catalog.providers.insert(other.id.clone(), Arc::new(other));
        world.broker().reconfigure(Arc::new(catalog), ConfigurationDigest([0; 32])).await.unwrap();
    };
    reload(ClientSecret::new(right.expose().to_owned())).await;
    let (client, connection) = connected(&world, "alice").await;
    reload(wrong()).await;
    world.clock.advance(MINUTE);
    assert_eq!(refresh(&client).await, Ok(1));
    assert_eq!(look(&client, &connection).await.state(), State::Suspended);
    reload(wrong()).await;
    assert_eq!(look(&client, &connection).await.state(), State::Suspended, "nothing has changed");
    reload(right).await;
    assert_eq!(look(&client, &connection).await.state(), State::Connected);
    assert_eq!(refresh(&client).await, Ok(2));
}

#[tokio::test]
async fn a_refusal_that_others_contradict_is_the_connections_own() {
    let world = World::start().await;
    let (alice, first) = connected(&world, "alice").await;
    let (bob, second) = connected(&world, "bob").await;
    arm(&world, &oauth_error(400, "unauthorized_client"), 1);
    assert_eq!(refresh(&alice).await, Ok(1));
    assert_eq!(look(&bob, &second).await.state(), State::Suspended);
    world.clock.advance(2 * MINUTE);
    assert_eq!(refresh(&bob).await, Ok(2));
    arm(&world, &oauth_error(400, "unauthorized_client"), 1);
    assert_eq!(refresh(&alice).await, Ok(1));
    let shown = look(&alice, &first).await;
    assert_eq!((shown.state(), shown.reason()), (State::RefreshFailing, Reason::ProviderReplyInvalid));
    assert_eq!(look(&bob, &second).await.state(), State::Connected);
    assert_eq!(refresh(&bob).await, Ok(3), "nobody else waits for it");
}

#[tokio::test]
async fn an_operator_is_alarmed_and_sees_since_when() {
    let world = World::start_with(Settings { configure: Box::new(with_operators), ..Settings::default() }).await;
    let (client, _) = connected(&world, "alice").await;
    let operator = operator(&world);
    let status = async || operator.get_status(v1::GetStatusRequest {}).await.unwrap();
    assert_eq!((status().await.alarms, status().await.suspended_providers.len()), (0, 0));
    let begun_at = world.now();
    arm(&world, &oauth_error(401, "invalid_client"), 1000);
    world.clock.advance(IN_MARGIN);
    assert_eq!(token(&client).await.unwrap().generation, 1);
    let suspended = status().await;
    assert_eq!((suspended.alarms, suspended.suspended_providers.len()), (1, 1));
    let shown = &suspended.suspended_providers[0];
    assert_eq!(shown.provider, "dev");
    assert_eq!(shown.since.unwrap().seconds, begun_at.plus(IN_MARGIN).as_secs());
    world.clock.advance(20 * MINUTE);
    assert_eq!(reason(token(&client).await), Reason::ProviderSuspended);
    assert_eq!(status().await.alarms, 1, "once for each refusal, not for each attempt");
    world.provider.faults().clear();
    world.clock.advance(10 * MINUTE);
    while token(&client).await.is_err() {
        world.clock.advance(MINUTE);
    }
    assert_eq!(status().await.suspended_providers.len(), 0);
}

fn wrong() -> ClientSecret {
    ClientSecret::new("not-the-secret-of-this-client".to_owned())
}

#[tokio::test]
async fn tokens_of_an_unusable_type_spend_the_one_that_was_sent() {
    let world = World::start().await;
    let (client, connection) = connected(&world, "alice").await;
    let bound = serde_json::json!({ "token_type": "DPoP" }).as_object().cloned().unwrap();
    arm(&world, &Fault::Edit { set: bound, remove: Vec::new() }, 1);
    world.clock.advance(MINUTE);
    assert_eq!(refresh(&client).await, Ok(1), "the old token is served while it lives");
    assert_eq!(look(&client, &connection).await.state(), State::Suspended);
    world.clock.advance(2 * MINUTE);
    assert_eq!(refresh(&client).await, Err(Reason::ReauthorizationRequired));
    assert_eq!(look(&client, &connection).await.reason(), Reason::RotationLost);
    assert_eq!(world.refreshes(), 2);
}

#[tokio::test]
async fn a_refusal_of_a_registration_that_was_replaced_meanwhile_says_nothing_of_the_new_one() {
    let world = World::start().await;
    let (client, connection) = connected(&world, "alice").await;
    arm(&world, &oauth_error(401, "invalid_client"), 1);
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    world.clock.advance(MINUTE);
    let asked = tokio::spawn({
        let client = client.clone();
        async move { refresh(&client).await }
    });
    in_time(hold.arrived(1)).await;
    let mut catalog = Catalog::clone(&world.broker().catalog());
    let provider = catalog.providers.values().next().unwrap();
    let mut other = Provider::clone(provider);
    other.definition.display_name.push_str(", again");
    catalog.providers.insert(other.id.clone(), Arc::new(other));
    world.broker().reconfigure(Arc::new(catalog), ConfigurationDigest([0; 32])).await.unwrap();
    hold.release();
    assert_eq!(in_time(asked).await.unwrap(), Ok(1));
    assert_eq!(look(&client, &connection).await.state(), State::Connected);
    assert_eq!(refresh(&client).await, Ok(2));
}
