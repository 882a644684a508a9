//! kill -9 wherever it hurts (fault test 1): nobody has heard what the log does not have, everybody hears what it has, and
//! no revision has two contents. In the middle of a compaction: see `compacted`.

use std::collections::VecDeque;

use claviger::dev::{Endpoint, GrantType, HoldPoint};
use rustix::process::Signal;

use crate::{
    clients::{Watchers, from_snapshot},
    place::{Broker, Person, Place, ask_for_a_new_one},
    relay::Relay,
    strace::{Strace, can_attach},
    watch_validator::{Log, assert_valid},
};

const WATCHERS: usize = 50;
/// The broker commits other things too, each ten seconds at most.
const MOST_AGAIN: u32 = 5;

/// Where in the life of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// Nothing of it is written.
    BeforeWrite,
    /// It is written and not synced.
    BeforeSync,
    /// It is synced, and nobody was told: neither caller nor watcher.
    BeforePublish,
    /// The first watcher has it.
    FanOut,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_an_events_life_loses_and_invents_nothing() {
    if !can_attach() {
        return;
    }
    let place = Place::new("watch = { streams_per_principal = 1000 }").await;
    let mut broker = place.serve();
    let alice = place.person("alice", &broker.connect()).await;
    alice.connect(&alice.client(broker.grpc)).await;
    let way = Relay::to(broker.grpc).await;
    let (mut watchers, client) = (Watchers::default(), alice.client(way.address));
    for _ in 0..WATCHERS {
        watchers.add(client.clone(), &alice.subject, from_snapshot());
    }
    watchers.until("synced", |standing| standing.synced).await;
    let mut points = VecDeque::from([Point::BeforeWrite, Point::BeforeSync, Point::BeforePublish, Point::FanOut]);
    let mut again = MOST_AGAIN;
    while let Some(point) = points.pop_front() {
        let before = watchers.generation();
        kill_at(point, &place, &alice, broker, &mut watchers).await;
        let heard = watchers.generation();
        let log = place.log().await;
        let durable = generations(&log, &alice);
        match point {
            Point::BeforeWrite => assert!(heard == before && durable == before, "{heard}, {durable}"),
            Point::BeforeSync => assert_eq!(heard, before, "what is not durable was published"),
            // Another commit was held, an audit record's.
            Point::BeforePublish if durable == before && again > 0 => {
                assert_eq!(heard, before);
                again -= 1;
                points.push_front(point);
            }
            Point::BeforePublish => assert!(heard == before && durable == before + 1, "{heard}, {durable}"),
            Point::FanOut => assert!(heard == before + 1 && durable == before + 1, "{heard}, {durable}"),
        }
        broker = place.serve();
        way.lead_to(broker.grpc);
        let token = alice.client(broker.grpc).get_plugin_token(ask_for_a_new_one()).await.unwrap();
        watchers.until("up to date", |standing| standing.generation >= token.generation).await;
    }
    broker.process.stop(Signal::KILL);
    assert_valid(&place.log().await, &watchers.record.histories());
}

/// A refresh whose outcome is an event, and the end at `point` of it.
async fn kill_at(point: Point, place: &Place, alice: &Person, mut broker: Broker, watchers: &mut Watchers) {
    let before = watchers.generation();
    let answer = place.provider.faults().hold_if(Endpoint::Token, Some(GrantType::RefreshToken), HoldPoint::Answer);
    let call = tokio::spawn({
        let client = alice.client(broker.grpc);
        async move { client.get_plugin_token(ask_for_a_new_one()).await.is_ok() }
    });
    answer.arrived(1).await;
    let store = place.path("store");
    match point {
        Point::BeforeWrite | Point::BeforeSync => {
            let strace = match point {
                Point::BeforeWrite => Strace::kill_at_next_write(&broker.process, &store),
                _ => Strace::kill_at_next_sync(&broker.process, &store),
            };
            answer.release();
            tokio::task::spawn_blocking(|| strace.wait()).await.unwrap();
            assert!(!broker.process.is_running());
        }
        Point::BeforePublish => {
            let mut strace = Strace::hold_after_next_sync(&broker.process, &store);
            answer.release();
            tokio::task::spawn_blocking(move || strace.synced()).await.unwrap();
            broker.process.stop(Signal::KILL);
        }
        Point::FanOut => {
            answer.release();
            watchers.until_any(|standing| standing.generation > before).await;
            broker.process.stop(Signal::KILL);
        }
    }
    assert!(point == Point::FanOut || !call.await.unwrap(), "it was acknowledged");
}

/// The newest of the person's only credential.
fn generations(log: &Log, person: &Person) -> u64 {
    let statuses = log.revisions.values().flatten().filter_map(|event| event.status.as_ref());
    statuses.filter(|status| status.subject == person.subject).map(|status| status.generation).max().unwrap()
}
