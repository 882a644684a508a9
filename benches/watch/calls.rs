//! GetPluginToken on the port that serves the watchers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use claviger::proto::v1::{self, token_broker_service_client::TokenBrokerServiceClient};
use tonic::{Request, metadata::AsciiMetadataValue, transport::Channel};

use super::{
    Platform, ROUNDS, Watchers,
    children::Server,
    measure::{Spread, micros, quantile},
    node::{PLUGIN, READER, flow_user},
    table::{Goal, judged, told},
    watchers::channel,
};

const P50: Goal = Goal { most: 1.2, unit: "times without" };
const P99: Goal = Goal { most: 2.0, unit: "times without" };
/// Users to whom something happens, events a second to all of them, and seconds of one round.
const USERS: u32 = 100;
const RATE: u32 = 100;
const SECONDS: u32 = 3;

struct Caller {
    client: TokenBrokerServiceClient<Channel>,
    bearer: AsciiMetadataValue,
}

/// One caller, one call after the other: `quiet` has no watchers; `watched` has them all, and events while it is called.
pub(super) async fn beside_watchers(quiet: &Server, watched: &mut Server, platform: &Platform) {
    let mut listening = Watchers::none();
    listening.open(watched.address, (0..USERS).map(|user| platform.bearer(&flow_user(user))).collect()).await;
    let (mut of_quiet, mut of_watched) =
        (Caller::of(quiet.address, platform).await, Caller::of(watched.address, platform).await);
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut pair = [(0.0, 0.0); 2];
        for turn in 0..2 {
            let with = (round + turn) % 2;
            pair[with] = if with == 0 {
                of_quiet.call().await
            } else {
                watched.tell(&format!("flow {USERS} {RATE} {SECONDS}"));
                let took = of_watched.call().await;
                watched.has_done();
                listening.hear((RATE * SECONDS) as usize).await;
                took
            };
        }
        // The first pair warms both.
        if round > 0 {
            let [without, with] = pair;
            p50s.push((with.0 / without.0, without.0));
            p99s.push((with.1 / without.1, without.1));
        }
    }
    for (what, pairs, goal) in [("p50", p50s, P50), ("p99", p99s, P99)] {
        told(&format!("GetPluginToken, nobody watches: {what}, µs"), Spread::of(pairs.iter().map(|pair| pair.1)));
        let ratio = Spread::of(pairs.iter().map(|pair| pair.0));
        judged(
            &format!("GetPluginToken beside the watchers and {RATE} events/s: {what}, ratio"),
            &ratio,
            ratio.median,
            &goal,
        );
    }
    listening.close().await;
}

impl Caller {
    async fn of(address: SocketAddr, platform: &Platform) -> Self {
        let client = TokenBrokerServiceClient::new(channel(address, 64 * 1024).await);
        Self { client, bearer: platform.bearer(READER) }
    }

    /// For a round: the median and the 99th percentile of a call, in microseconds.
    async fn call(&mut self) -> (f64, f64) {
        let (begun, mut took) = (Instant::now(), Vec::new());
        while begun.elapsed() < Duration::from_secs(SECONDS.into()) {
            let mut request =
                Request::new(v1::GetPluginTokenRequest { plugin: PLUGIN.to_owned(), ..Default::default() });
            request.metadata_mut().insert("authorization", self.bearer.clone());
            let asked = Instant::now();
            let answer = self.client.get_plugin_token(request).await.unwrap();
            took.push(asked.elapsed());
            assert!(!answer.get_ref().access_token.is_empty());
        }
        (micros(quantile(&mut took, 0.5)), micros(quantile(&mut took, 0.99)))
    }
}
