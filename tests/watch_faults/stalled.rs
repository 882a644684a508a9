//! Readers that do not read, or a byte at a time (fault test 11). What it costs others in time is measured by
//! `make bench-watch`; here everybody else must get everything while they stand still, and they must get it afterwards.

use std::fs;

use rustix::process::Signal;

use crate::{
    clients::{Narrow, Watchers, all_reach, from_snapshot},
    place::{Person, Place, ask_for_a_new_one},
    relay::Relay,
    watch_validator::assert_valid,
};

/// On the connection of those that stall.
const ON_ONE: usize = 100;
const EVENTS: u64 = 20;
/// KiB. A queue for each of them would show in a soak; a stream's own buffers do not.
const MOST_MEMORY: u64 = 64 << 10;

/// One in a hundred, one in ten, and one in two of those on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_delays_nobody_and_loses_nothing() {
    let place = Place::new("watch = { streams_per_principal = 100_000 }").await;
    let broker = place.serve();
    let mut people: Vec<Person> = Vec::new();
    for name in ["alice", "bob", "carol"] {
        people.push(place.person(name, &broker.connect()).await);
    }
    let mut watchers = Watchers::default();
    for (alice, stalling) in people.iter().zip([1, 10, 50]) {
        let client = alice.client(broker.grpc);
        alice.connect(&client).await;
        let way = Relay::to(broker.grpc).await;
        let (slow, first) = (alice.client(way.address), watchers.standings().len());
        for _ in 0..10 {
            watchers.add(slow.clone(), &alice.subject, from_snapshot());
        }
        watchers.until("synced", |standing| standing.synced).await;
        for _ in 0..20 {
            watchers.add(client.clone(), &alice.subject, from_snapshot());
        }
        watchers.until("synced", |standing| standing.synced).await;
        way.dribble();
        let mut stalled = Narrow::to(broker.grpc);
        stalled.open(stalling, true, alice, &watchers.record).await;
        stalled.open(ON_ONE - stalling, false, alice, &watchers.record).await;

        let before = memory(broker.process.id());
        for _ in 0..events() {
            client.get_plugin_token(ask_for_a_new_one()).await.unwrap();
            way.let_pass(16);
        }
        let newest = 1 + events();
        all_reach(&watchers.standings()[first + 10..], "up to date", |standing| standing.generation == newest).await;
        all_reach(&stalled.standings()[stalling..], "up to date", |standing| standing.generation == newest).await;
        let behind = |standing: &crate::clients::Heard| standing.borrow().generation < newest;
        assert!(watchers.standings()[first..first + 10].iter().all(behind), "they are slow");
        assert!(stalled.standings()[..stalling].iter().all(behind), "they do not read");
        let grown = memory(broker.process.id()).saturating_sub(before);
        println!("{stalling} stalled, 10 slow, {} events: {grown} KiB more", events());
        assert!(grown < MOST_MEMORY, "{grown} KiB");

        stalled.wake();
        way.open();
        all_reach(stalled.standings(), "up to date", |standing| standing.generation == newest).await;
        watchers.until("up to date", |standing| standing.generation == newest).await;
    }
    broker.process.stop(Signal::KILL);
    assert_valid(&place.log().await, &watchers.record.histories());
}

#[expect(clippy::disallowed_methods, reason = "how long to test is not the product's configuration")]
fn events() -> u64 {
    if std::env::var_os("CLAVIGER_SOAK").is_some() { 100 * EVENTS } else { EVENTS }
}

/// KiB that are resident (proc(5)).
fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
