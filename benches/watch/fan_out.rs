//! Streams that wait, one event to all of them, and many events while some do not read.

use std::time::{Duration, Instant};

use super::{
    Platform, ROUNDS, Watchers,
    children::Server,
    measure::Spread,
    node::flow_user,
    table::{Goal, judged, told},
    watchers::ON_ONE_CONNECTION,
};

/// Whose events all the idle streams wait for.
const EVERYBODY: &str = "everybody";
/// Resident, for each idle stream.
pub(super) const IDLE: Goal = Goal { most: 6.0, unit: "KiB" };
const TO_ALL: Goal = Goal { most: 1.5, unit: "times tonic alone" };
/// "About 0": of one processor.
const AT_REST: Goal = Goal { most: 2.0, unit: "% of a processor" };
const P50: Goal = Goal { most: 1.2, unit: "times without" };
const P99: Goal = Goal { most: 2.0, unit: "times without" };
/// For what opening has left behind to be given back, and for processor time at rest.
const REST: Duration = Duration::from_secs(20);

/// Before the streams that are counted: what a process has only once is there then.
const FIRST: usize = 200;

/// Users, events a second, and seconds of one round; streams of each user, and those that stand still.
const USERS: u32 = 100;
const RATE: u32 = 1000;
const SECONDS: u32 = 4;
const EACH: usize = 10;
const STALLED: u32 = 10;

/// Opens streams that nothing happens on, and says what they cost.
pub(super) async fn open(
    what: &str,
    server: &Server,
    platform: &Platform,
    streams: usize,
    goal: Option<&Goal>,
) -> Watchers {
    // A token for each connection, as for each client.
    let bearers = |count: usize| -> Vec<_> {
        let tokens: Vec<_> = (0..count.div_ceil(ON_ONE_CONNECTION)).map(|_| platform.bearer(EVERYBODY)).collect();
        (0..count).map(|number| tokens[number / ON_ONE_CONNECTION].clone()).collect()
    };
    let mut watchers = Watchers::none();
    watchers.open(server.address, bearers(FIRST)).await;
    let (before, bearers) = (server.resident(), bearers(streams - FIRST));
    let (begun, opening) = (Instant::now(), bearers.len() as f64);
    watchers.open(server.address, bearers).await;
    let rate = opening / begun.elapsed().as_secs_f64();
    told(&format!("{what}: opened in a second"), format_args!("{rate:.0}"));
    let before_rest = server.processor();
    tokio::time::sleep(REST).await;
    let at_rest = (server.processor() - before_rest) / REST.as_secs_f64() * 100.0;
    let resident = (server.resident() - before) / opening / 1024.0;
    let (memory, rest) = (format!("{what}: resident each, KiB"), format!("{what}: at rest, % of a processor"));
    match goal {
        Some(goal) => {
            judged(&memory, format_args!("{resident:.2}"), resident, goal);
            judged(&rest, format_args!("{at_rest:.2}"), at_rest, &AT_REST);
        }
        None => {
            told(&memory, format_args!("{resident:.2}"));
            told(&rest, format_args!("{at_rest:.2}"));
        }
    }
    watchers
}

/// Until the last stream has received one event, from when its commit (or broadcast) began.
pub(super) async fn to_all(
    mut bare: (&mut Server, Watchers),
    mut broker: (&mut Server, Watchers),
    streams: usize,
) -> Watchers {
    let (mut bares, mut brokers) = (Vec::new(), Vec::new());
    // One more, which warms both.
    for round in 0..=ROUNDS {
        let pair = if round % 2 == 0 {
            let bare = last(&mut bare, streams).await;
            (bare, last(&mut broker, streams).await)
        } else {
            let broker = last(&mut broker, streams).await;
            (last(&mut bare, streams).await, broker)
        };
        if round > 0 {
            bares.push(pair.0);
            brokers.push(pair.1);
        }
    }
    let ratio =
        |of: fn(&Received) -> f64| Spread::of(bares.iter().zip(&brokers).map(|(bare, broker)| of(broker) / of(bare)));
    let millis = |all: &[Received]| Spread::of(all.iter().map(|received| received.last / 1000.0));
    told("one event to all, tonic alone: the last one has it, ms", millis(&bares));
    told("one event to all, broker: the last one has it, ms", millis(&brokers));
    let until_last = ratio(|received| received.last);
    judged("one event to all: ratio", &until_last, until_last.median, &TO_ALL);
    told("one event to all: ratio of the servers' processor time", ratio(|received| received.processor));
    bare.1.close().await;
    broker.1
}

struct Received {
    /// Microseconds.
    last: f64,
    /// Seconds, of the server.
    processor: f64,
}

async fn last((server, watchers): &mut (&mut Server, Watchers), streams: usize) -> Received {
    let before = server.processor();
    server.tell(&format!("event {EVERYBODY}"));
    let took = watchers.hear(streams).await;
    server.has_done();
    Received { last: took.into_iter().fold(0.0, f64::max), processor: server.processor() - before }
}

/// A thousand events a second to a thousand streams, with and without others that nobody reads.
pub(super) async fn beside_stalled(server: &mut Server, platform: &Platform) {
    let bearers: Vec<_> = (0..USERS).map(|user| platform.bearer(&flow_user(user))).collect();
    let mut watchers = Watchers::none();
    watchers.open(server.address, bearers.iter().cycle().take(bearers.len() * EACH).cloned().collect()).await;
    flow(server, &mut watchers).await;
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut pair = [None, None];
        for turn in 0..2 {
            let with = (round + turn) % 2;
            let mut stalled = Watchers::none();
            if with == 1 {
                stalled.open_stalled(server.address, bearers[..STALLED as usize].to_vec()).await;
                // So that they have stopped taking anything when it counts.
                flow(server, &mut watchers).await;
            }
            pair[with] = Some(flow(server, &mut watchers).await);
            stalled.close().await;
        }
        let [without, with] = pair.map(Option::unwrap);
        p50s.push((with.0 / without.0, without.0));
        p99s.push((with.1 / without.1, without.1));
    }
    for (what, pairs, goal) in [("p50", p50s, P50), ("p99", p99s, P99)] {
        let without = Spread::of(pairs.iter().map(|pair| pair.1 / 1000.0));
        told(&format!("{RATE} events/s, all read: {what}, ms"), without);
        let ratio = Spread::of(pairs.iter().map(|pair| pair.0));
        judged(&format!("{RATE} events/s, 1 % stalled: the others' {what}, ratio"), &ratio, ratio.median, &goal);
    }
    watchers.close().await;
}

/// The median and the 99th percentile of how long an event took, in microseconds.
async fn flow(server: &mut Server, watchers: &mut Watchers) -> (f64, f64) {
    server.tell(&format!("flow {USERS} {RATE} {SECONDS}"));
    let mut took = watchers.hear((RATE * SECONDS) as usize * EACH).await;
    server.has_done();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    (at(0.5), at(0.99))
}
