//! Everything at random, life after life of one broker: refreshes, revocations, connections, cut and silent networks,
//! kill -9, SIGTERM, compaction; and watchers of every sort, of which each must come to the end with nothing missing.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use claviger::{
    app::SystemClock,
    domain::{Clock as _, Revision},
    proto::v1::{
        CredentialEventKind as Kind, Delivery, OnLost, WatchCredentialStatusRequest as Request,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
    store::Purge,
    vault::Vault,
};
use rustix::process::Signal;

use crate::{
    clients::{Dice, Watchers, all_reach, from_snapshot},
    event_log,
    place::{Broker, Person, Place, ask_for_a_new_one, revoke_all},
    relay::Relay,
    watch_validator::{Log, assert_valid},
};

const SEED: u64 = 1;
const LIVES: u32 = 4;
const STEPS: u64 = 20;
const EACH: usize = 12;
const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const SOAK: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens_in_whatever_order() {
    let (seed, is_long) = seed();
    println!("CLAVIGER_SEED={seed}");
    let (begun, mut dice, mut log) = (SystemClock.now(), Dice(seed), Log::default());
    let place = Place::new("watch = { streams_per_principal = 1000 }").await;
    let mut broker = place.serve();
    let ways = [Relay::to(broker.grpc).await, Relay::to(broker.grpc).await];
    let (mut people, mut watchers) = (Vec::new(), Watchers::default());
    for name in PEOPLE {
        let person = place.person(name, &broker.connect()).await;
        let clients = [&ways[0], &ways[1]].map(|way| person.client(way.address));
        for number in 0..EACH {
            watchers.add(clients[number % 2].clone(), &person.subject, request(&mut dice));
        }
        people.push(person);
    }
    let mut lives = 0;
    while lives < LIVES || is_long && SystemClock.now() - begun < SOAK {
        // Half of the lives may be too short for anybody to come back.
        if dice.below(2) == 0 {
            all_hear(&people, &broker, &watchers).await;
        }
        live(&people, &broker, &ways, &mut dice).await;
        let killed = dice.below(4) > 0;
        let end = if killed { Signal::KILL } else { Signal::TERM };
        let process = broker.process;
        tokio::task::spawn_blocking(move || process.stop(end)).await.unwrap();
        let vault = place.vault().await;
        remember(&mut log, event_log::read(&vault).await);
        compact(&vault, &mut dice).await;
        vault.store().close().await;
        broker = place.serve();
        for way in &ways {
            way.lead_to(broker.grpc);
            way.cut();
        }
        lives += 1;
    }
    all_hear(&people, &broker, &watchers).await;
    broker.process.stop(Signal::KILL);
    remember(&mut log, place.log().await);
    let histories = watchers.record.histories();
    println!(
        "{lives} lives, {} streams, {} messages, {} revisions with events, {:?}",
        histories.len(),
        histories.iter().map(|history| history.messages.len()).sum::<usize>(),
        log.revisions.len(),
        SystemClock.now() - begun,
    );
    assert_valid(&log, &histories);
}

/// The same each time; another in a soak. `CLAVIGER_SEED` repeats what a failure printed, as far as the machine does.
#[expect(clippy::disallowed_methods, reason = "what to test is not the product's configuration")]
fn seed() -> (u64, bool) {
    let is_long = std::env::var_os("CLAVIGER_SOAK").is_some();
    let told = std::env::var("CLAVIGER_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let drawn = if is_long { RandomState::new().hash_one(std::process::id()) } else { SEED };
    (told.unwrap_or(drawn), is_long)
}

/// Of any sort that hears refreshes.
fn request(dice: &mut Dice) -> Request {
    let delivery = [Delivery::EveryEvent, Delivery::LatestPerCredential][dice.below(2) as usize];
    let kinds = if dice.below(3) == 0 { vec![Kind::Refreshed.into()] } else { Vec::new() };
    let start = [Start::Snapshot(true), Start::Now(true)][dice.below(2) as usize].clone();
    Request {
        start: Some(start),
        delivery: delivery.into(),
        kinds,
        on_lost: OnLost::Resync.into(),
        ..Request::default()
    }
}

async fn live(people: &[Person], broker: &Broker, ways: &[Relay; 2], dice: &mut Dice) {
    let clients: Vec<_> = people.iter().map(|person| person.client(broker.grpc)).collect();
    for _ in 0..dice.below(STEPS) + STEPS / 2 {
        let number = dice.below(people.len() as u64) as usize;
        let (person, client, way) = (&people[number], &clients[number], &ways[dice.below(2) as usize]);
        match dice.below(16) {
            0 => drop(client.revoke(revoke_all()).await.unwrap()),
            1 => drop(person.try_connect(client).await),
            3 => way.cut(),
            4 => way.fall_silent(),
            5 => way.open(),
            // Nothing may be connected.
            _ => drop(client.get_plugin_token(ask_for_a_new_one()).await),
        }
    }
}

/// What one life has left, beside what was known of those before: no revision has two contents.
fn remember(log: &mut Log, left: Log) {
    for (revision, events) in left.revisions {
        let known = log.revisions.entry(revision).or_insert_with(|| events.clone());
        assert!(*known == events, "revision {revision} has changed");
    }
}

/// Up to somewhere, as the broker would when it is time.
async fn compact(vault: &Vault, dice: &mut Dice) {
    let head = vault.store().head();
    if dice.below(2) == 0 {
        let through = head.compacted.0 + dice.below(head.revision.0 - head.compacted.0 + 1);
        let mut change = vault.change(&"acme".parse().unwrap(), None).await.unwrap();
        change.purge(Purge { events: Revision(through), audit: 0 });
        change.commit().await.unwrap();
    }
}

/// Nobody stays behind.
async fn all_hear(people: &[Person], broker: &Broker, watchers: &Watchers) {
    for (number, person) in people.iter().enumerate() {
        let last = last_event(person, broker).await;
        let theirs = &watchers.standings()[number * EACH..][..EACH];
        all_reach(theirs, "up to date", |standing| standing.revision >= last).await;
        theirs.iter().for_each(|standing| watchers.record.must_reach(standing, last));
    }
}

/// The revision of something that all of a person's watchers hear.
async fn last_event(person: &Person, broker: &Broker) -> u64 {
    let client = person.client(broker.grpc);
    let mut stream =
        client.watch_credential_status(Request { start: Some(Start::Now(true)), ..from_snapshot() }).await.unwrap();
    // Of flows there is a quota, so only where it is needed.
    if client.get_plugin_token(ask_for_a_new_one()).await.is_err() {
        person.connect(&client).await;
    }
    loop {
        let message = stream.message().await.unwrap().unwrap();
        if matches!(message.body, Some(Body::Batch(_))) {
            return message.revision;
        }
    }
}
