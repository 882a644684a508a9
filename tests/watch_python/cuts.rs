//! Connections that break.

use claviger::{
    domain::{CredentialState, EventKind, Revision, ScopeSet},
    proto::v1::watch_credential_status_response::Body,
};

use crate::{
    place::{Place, assert_none_came_twice, bodies, snapshots},
    records::Records,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_followed_by_what_happens() {
    let Some(mut place) = Place::start(&["alice"]).await else { return };
    place.client_knows_all().await;
    place.refresh("alice").await;
    place.client_knows_all().await;
    place.world.connect(&place.alice, "bob").await;
    place.client_knows_all().await;
    assert_eq!(place.program.view().len(), 2);
    place.revoke(&place.connection_of("alice").await).await;
    place.client_knows_all().await;
    assert_eq!(place.program.view().len(), 1);
    let streams = place.judge().await;
    assert_eq!(snapshots(&streams), [true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_anywhere_loses_and_doubles_nothing() {
    let Some(mut place) = Place::start(&["alice", "bob"]).await else { return };
    place.client_knows_all().await;
    // Before the answer, and further and further into it. (Few, because each wait of the client's is twice the last one.)
    for bytes in [60, 250, 450] {
        place.relay.close();
        place.refresh("alice").await;
        place.refresh("bob").await;
        place.relay.lead_to_for(place.world.grpc(), bytes);
        place.relay.is_stuck().await;
    }
    place.relay.lead_to(place.world.grpc());
    place.client_knows_all().await;
    // Also behind what came on a stream that was resumed.
    place.relay.close();
    place.refresh("alice").await;
    place.relay.lead_to(place.world.grpc());
    place.client_knows_all().await;
    let streams = place.judge().await;
    let snapshots = snapshots(&streams);
    assert!(snapshots.len() >= 3 && snapshots[0] && !snapshots[1..].contains(&true), "{snapshots:?}");
    assert_none_came_twice(&streams);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_breaks_off_was_never_there() {
    let Some(mut place) = Place::start(&["alice", "bob"]).await else { return };
    place.client_knows_all().await;
    place.relay.close();
    place.stop().await;
    write_a_long_batch(&place).await;
    place.run().await;
    // The first fragment, and not the second.
    place.relay.lead_to_for(place.world.grpc(), 300 << 10);
    place.program.receives(|body| matches!(body, Body::Batch(batch) if batch.more_follows)).await;
    place.relay.close();
    // Meanwhile a client that takes a half for a whole has shown it.
    place.relay.refuses().await;
    place.relay.refuses().await;
    place.relay.lead_to(place.world.grpc());
    // What is behind the batch has come when the batch has.
    place.refresh("alice").await;
    place.client_knows_all().await;
    let shown = place.program.shown.iter().filter(|line| line.contains("CREDENTIAL_STATE_EXPIRED")).count();
    assert_eq!(shown, 0, "nothing was expired when the batch had come whole");
    let streams = place.judge().await;
    let halves = bodies(&streams).filter(|body| matches!(body, Body::Batch(batch) if batch.more_follows)).count();
    assert!(halves >= 3, "one of them broke off: {halves}");
    assert_none_came_twice(&streams);
}

/// In one revision the credential of before lapses many times, each time with many scopes, and is as before in the end.
async fn write_a_long_batch(place: &Place) {
    let records = Records::open(&place.world).await;
    let (_, events) = records.vault.events(Revision(0), usize::MAX).await.unwrap().pop().unwrap();
    let [.., last] = events.as_slice() else { panic!("something is connected") };
    let mut change = records.vault.change(&last.tenant, None).await.unwrap();
    for time in 0..14 {
        let mut lapsed = last.clone();
        (lapsed.kind, lapsed.status.state) = (EventKind::Expired, CredentialState::Expired);
        let scopes: Vec<_> = (0..100).map(|scope| format!("{time}-{scope}-{}", "x".repeat(400))).collect();
        lapsed.status.scopes = ScopeSet::parse(&scopes.join(" "), ' ').unwrap();
        change.event(&lapsed);
    }
    change.event(&claviger::domain::CredentialEvent { kind: EventKind::Recovered, ..last.clone() });
    change.commit().await.unwrap();
    records.close().await;
}
