//! What a client asks for.

use claviger::{
    domain::PresentedToken,
    proto::v1::{self, Delivery, watch_credential_status_response::Body},
};

use crate::{
    place::{Place, assert_none_came_twice, bodies, snapshots},
    world::{World, claims},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_state_of_each_is_enough_for_who_says_so() {
    let latest = |_: &[v1::Connection]| vec!["--delivery=DELIVERY_LATEST_PER_CREDENTIAL".to_owned()];
    let Some(mut place) = Place::start_with(&["alice", "bob"], alice, latest).await else { return };
    place.client_knows_all().await;
    place.relay.close();
    for _ in 0..4 {
        place.refresh("alice").await;
        place.refresh("bob").await;
    }
    place.revoke(&place.connection_of("bob").await).await;
    place.relay.lead_to(place.world.grpc());
    place.client_knows_all().await;
    place.refresh("alice").await;
    place.client_knows_all().await;
    let streams = place.judge().await;
    assert_eq!(snapshots(&streams), [true, false]);
    let opened = bodies(&streams).filter_map(|body| if let Body::Opened(opened) = body { Some(opened) } else { None });
    assert!({ opened }.all(|opened| opened.delivery() == Delivery::LatestPerCredential));
    assert_none_came_twice(&streams);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_some_knows_of_no_others() {
    // Twice the same one, by both of its names.
    let first = |connections: &[v1::Connection]| {
        let v1::Connection { connection_id, credential_id, .. } = &connections[0];
        vec![format!("--scope=connection:{connection_id}"), format!("--scope=credential:{credential_id}")]
    };
    let Some(mut place) = Place::start_with(&["alice", "bob"], alice, first).await else { return };
    let named = |connection: &v1::Connection| connection.account == "alice";
    place.client_knows(named).await;
    place.relay.close();
    for account in ["alice", "bob"] {
        place.refresh(account).await;
    }
    place.relay.lead_to(place.world.grpc());
    place.client_knows(named).await;
    assert_eq!(place.program.view().len(), 1);
    let streams = place.judge().await;
    assert_eq!(snapshots(&streams), [true, false]);
    assert!(streams.iter().all(|stream| stream.request.scopes.len() == 2));
    assert_none_came_twice(&streams);
}

fn alice(world: &World) -> PresentedToken {
    world.token("alice", &claims())
}
