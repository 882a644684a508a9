//! SIGTERM with thousands of streams open, some of them stalled and some half-open (fault test 15).

use std::time::Duration;

use claviger::{
    app::SystemClock,
    client::Client,
    domain::Clock as _,
    proto::v1::{
        WatchCredentialStatusRequest as Request, watch_credential_status_request::Start,
        watch_credential_status_response::Body,
    },
};
use rustix::process::Signal;

use crate::{
    clients::{Narrow, Standing, Watchers, all_reach, crowding, from_snapshot},
    place::{Person, Place, ask_for_a_new_one},
    relay::Relay,
    watch_validator::assert_valid,
};

/// Streams on one connection.
const ON_ONE: usize = 200;
const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
/// Of each kind, of those that cannot be told.
const UNREACHABLE: usize = 50;

/// A minute's worth, or as many as the requirement says.
#[expect(clippy::disallowed_methods, reason = "how long to test is not the product's configuration")]
fn readers() -> usize {
    if std::env::var_os("CLAVIGER_SOAK").is_some() { 10_000 } else { 2000 }
}

/// Told one after the other, gone in time, and all back without a snapshot and without a herd. How many come back in a
/// second is judged by when they are told to: what a busy machine makes of that is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_are_told_to_go_and_come_back_where_they_were() {
    let place = Place::new("watch = { streams_per_principal = 100_000 }").await;
    let broker = place.serve();
    let (way, lost_way) = (Relay::to(broker.grpc).await, Relay::to(broker.grpc).await);
    let (mut people, mut clients) = (Vec::new(), Vec::new());
    for name in PEOPLE {
        let person = place.person(name, &broker.connect()).await;
        let client = person.client(way.address);
        person.connect(&client).await;
        people.push(person);
        clients.push(client);
    }

    let mut watchers = readers_of(&people, &way);
    let lost = people[0].client(lost_way.address);
    for _ in 0..UNREACHABLE {
        watchers.add(lost.clone(), &people[0].subject, from_snapshot());
    }
    watchers.until("synced", |standing| standing.synced).await;
    let mut stalled = Narrow::to(way.address);
    stalled.open(UNREACHABLE, true, &people[1], &watchers.record).await;
    lost_way.fall_silent();
    for _ in 0..4 {
        refresh(&clients).await;
    }

    let asked = SystemClock.now();
    broker.process.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(|| broker.process.finish()).await.unwrap();
    ended.expect_code(0);
    println!("{} streams, gone after {:?}", watchers.standings().len() + UNREACHABLE, SystemClock.now() - asked);
    let broker = place.serve();
    way.lead_to(broker.grpc);
    lost_way.lead_to(broker.grpc);
    lost_way.cut();
    all_reach(&watchers.standings()[..readers()], "told", |standing| standing.returns.len() == 1).await;
    stalled.wake();
    stalled.ended().await;
    for standing in stalled.standings() {
        assert!(standing.borrow().returns.is_empty(), "it was not stalled");
        let start = Some(Start::ResumeToken(standing.borrow().token.clone()));
        watchers.add(people[1].client(way.address), &people[1].subject, Request { start, ..from_snapshot() });
    }
    watchers.until("back", |standing| standing.streams > standing.returns.len() as u32).await;
    refresh(&clients).await;
    watchers.until("up to date", |standing| standing.generation == 6).await;
    broker.process.stop(Signal::KILL);
    check(&watchers);
    assert_valid(&place.log().await, &watchers.record.histories());
}

/// Many of each, on as many connections as it takes.
fn readers_of(people: &[Person], way: &Relay) -> Watchers {
    // As the client is by itself.
    let mut watchers = Watchers::who_back_off_for(Duration::MAX);
    for number in 0..readers() / ON_ONE {
        let person = &people[number % people.len()];
        let client = person.client(way.address);
        for _ in 0..ON_ONE {
            watchers.add(client.clone(), &person.subject, from_snapshot());
        }
    }
    watchers
}

async fn refresh(clients: &[Client]) {
    for client in clients {
        client.get_plugin_token(ask_for_a_new_one()).await.unwrap();
    }
}

/// Nobody came in a herd, and nobody began anew.
fn check(watchers: &Watchers) {
    let standings: Vec<Standing> = watchers.standings().iter().map(|standing| standing.borrow().clone()).collect();
    let planned = crowding(standings.iter().flat_map(|standing| standing.returns.clone()).collect());
    let seen = crowding(standings.iter().filter_map(|standing| standing.opened.get(1).copied()).collect());
    println!("most returns in a second over the mean: {planned:.2} as told, {seen:.2} as seen");
    assert!(planned < 3.0, "{planned}");
    let histories = watchers.record.histories();
    for resumed in histories.iter().filter(|history| matches!(history.request.start, Some(Start::ResumeToken(_)))) {
        let anew = |body: &Body| matches!(body, Body::Snapshot(_) | Body::SnapshotEnd(_) | Body::Resync(_));
        assert!(!resumed.messages.iter().flat_map(|message| &message.body).any(anew), "it is resumed as it was");
    }
}
