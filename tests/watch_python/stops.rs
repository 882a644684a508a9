//! A broker that stops, that has forgotten, and that is another one.

use claviger::{
    dev::{Endpoint, Fault},
    proto::v1::{self, CredentialState, DrainCause, watch_credential_status_response::Body},
};

use crate::{
    place::{Place, assert_none_came_twice, bodies, histories, snapshots},
    watch_validator::assert_valid,
    world::MINUTE,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_sends_it_away_and_has_it_back_without_a_snapshot() {
    let Some(mut place) = Place::start(&["alice", "bob"]).await else { return };
    place.client_knows_all().await;
    place.refresh("alice").await;
    place.stop().await;
    place.relay.close();
    place.run().await;
    place.refresh("bob").await;
    place.relay.lead_to(place.world.grpc());
    place.client_knows_all().await;
    let streams = place.judge().await;
    assert_eq!(snapshots(&streams), [true, false]);
    let drained = |body: &Body| matches!(body, Body::Drain(drain) if drain.cause() == DrainCause::Shutdown);
    assert_eq!(bodies(&streams).filter(|body| drained(body)).count(), 1);
    assert_none_came_twice(&streams);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_before_the_log_begins_is_gone_after_the_snapshot() {
    let Some(mut place) = Place::start(&["alice", "bob"]).await else { return };
    place.client_knows_all().await;
    place.relay.close();
    place.revoke(&place.connection_of("alice").await).await;
    // This one is not settled with the provider, so that it is listed.
    place.world.provider.faults().arm(Endpoint::Revoke, Fault::Drop, 1000);
    place.revoke(&place.connection_of("bob").await).await;
    let again = place.world.connect(&place.alice, "alice").await;
    place.world.clock.advance(48 * 60 * MINUTE);
    place.world.broker().retain().await.unwrap();
    place.relay.lead_to(place.world.grpc());
    place.client_knows_all().await;
    let states: Vec<_> = place.connections().await.iter().map(v1::Connection::state).collect();
    assert!(states.contains(&CredentialState::Revoking), "{states:?}");
    assert_eq!(place.program.view().into_keys().collect::<Vec<_>>(), [again.credential_id]);
    let streams = place.judge().await;
    assert_eq!(snapshots(&streams), [true, false]);
    assert_eq!(bodies(&streams).filter(|body| matches!(body, Body::Resync(_))).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_installation_is_forgotten() {
    let Some(mut place) = Place::start(&["alice"]).await else { return };
    place.client_knows_all().await;
    place.relay.close();
    let subject = place.subject().await;
    place.stop().await;
    let log = place.log().await;
    place.world.reconfigure(|config| config.store.directory.push("another")).await;
    place.runs();
    place.world.connect(&place.alice, "bob").await;
    place.relay.lead_to(place.world.grpc());
    place.program.says("INVALID_ARGUMENT").await;
    place.client_knows_all().await;
    place.refresh("bob").await;
    place.client_knows_all().await;

    let other = place.subject().await;
    let streams = place.program.interrupt().await;
    place.stop().await;
    assert_eq!(snapshots(&streams), [true, true]);
    let (last, before) = streams.split_last().unwrap();
    assert_valid(&log, &histories(&subject, before));
    assert_valid(&place.log().await, &histories(&other, std::slice::from_ref(last)));
}
