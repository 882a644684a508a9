//! One node with many connections: how soon it is ready, how much memory it takes, what a read costs.

use std::{fs, path::Path, time::Duration};

use claviger::store::sled::files;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{
    child::{Running, ask_one},
    measure::{Spread, disk, live, mib, micros, quantile, resident, timed},
    place, population,
    population::{EACH, ask, call, connection_id, provider, scattered, subject, tenant},
    product::{Product, make_place, options, store_of},
};

const FEW: u64 = 10_000;
const ROUNDS: usize = 9;
const OPENINGS: usize = 7;
/// Connections that are asked for again and again.
const HOT: u64 = 1_000;
/// Calls of one round.
const CALLS: u64 = 20_000;
/// Reads all over.
const COLD: u64 = 20_000;
/// Before memory is looked at.
const SPREAD: u64 = 100_000;

pub(super) fn measure(connections: u64) {
    let (few, many) = (loaded(FEW), loaded(connections));
    println!("\n## {connections} connections\n");
    let store = store_of(&many);
    println!("| what | figure |\n|---|---|");
    println!("| live data, MiB | {:.0} |", mib(live(&store)));
    println!("| on the disk after loading, MiB | {:.0} |", mib(disk(&store)));
    let loading: Value = serde_json::from_slice(&fs::read(many.join(LOADED)).unwrap()).unwrap();
    println!("| loaded, connections/s | {:.0} |", connections as f64 / number(&loading, "seconds"));
    println!("| in memory after loading, MiB (most) | {} |", memory(&loading));
    compare_opening(&many);
    let (mut few, mut many) = (Running::start("read", &few, FEW), Running::start("read", &many, connections));
    compare_hot(&mut few, &mut many);
    let cold = many.ask("cold");
    for (name, p50, p99) in [
        ("a record and its token, cold", "record_p50", "record_p99"),
        ("GetPluginToken, cold, with its durable audit record", "call_p50", "call_p99"),
    ] {
        println!("| {name}, p50 and p99, µs | {:.0}, {:.0} |", number(&cold, p50), number(&cold, p99));
    }
    println!("| in memory after {SPREAD} reads all over, MiB (most) | {} |", memory(&many.ask("memory")));
    few.end();
    many.end();
}

fn compare_opening(directory: &Path) {
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..OPENINGS {
        raw.push(number(&ask_one("open-raw", directory, 0), "seconds"));
        ours.push(number(&ask_one("open", directory, 0), "seconds"));
    }
    let more = Spread::of(raw.iter().zip(&ours).map(|(raw, ours)| ours - raw));
    println!("| raw sled's open, s | {} |", Spread::of(raw));
    println!("| ready, s | {} |", Spread::of(ours));
    println!("| **ready after raw sled's open by, s** | **{more}** |");
}

fn compare_hot(few: &mut Running, many: &mut Running) {
    let rounds: Vec<_> = (0..=ROUNDS)
        .map(|round| {
            let hot = |child: &mut Running| number(&child.ask("hot"), "p50");
            if round % 2 == 0 {
                let few = hot(few);
                (few, hot(many))
            } else {
                let many = hot(many);
                (hot(few), many)
            }
        })
        .skip(1)
        .collect();
    println!("| GetPluginToken, hot, p50 at {FEW}, µs | {} |", Spread::of(rounds.iter().map(|(few, _)| *few)));
    println!("| GetPluginToken, hot, p50 here, µs | {} |", Spread::of(rounds.iter().map(|(_, many)| *many)));
    println!("| **ratio** | **{}** |", Spread::of(rounds.iter().map(|(few, many)| many / few)));
}

/// Says that a place is loaded, and how it went.
const LOADED: &str = "loaded";

/// The place with so many connections, loaded now unless an earlier run did it.
fn loaded(connections: u64) -> std::path::PathBuf {
    let place = place(&format!("scale-{connections}"));
    if !place.join(LOADED).exists() {
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        make_place(&place);
        let went = ask_one("load", &place, connections);
        fs::write(place.join(LOADED), went.to_string()).unwrap();
    }
    place
}

/// In the child.
pub(super) fn load(directory: &Path, count: u64) -> Value {
    Runtime::new().unwrap().block_on(async {
        let product = Product::open(directory).await;
        let begun = std::time::Instant::now();
        population::load(&product.vault, count).await;
        let seconds = begun.elapsed().as_secs_f64();
        let (now, most) = resident();
        product.close().await;
        json!({ "seconds": seconds, "resident": now, "most": most })
    })
}

/// In the child.
pub(super) fn open_raw(directory: &Path) -> Value {
    let options = options(directory);
    let config = files(&options.directory).cache_capacity(options.page_cache);
    let (database, time) = timed(|| config.open().unwrap());
    drop(database);
    json!({ "seconds": time.as_secs_f64() })
}

/// In the child: until a token can be had.
pub(super) fn open(directory: &Path) -> Value {
    let runtime = Runtime::new().unwrap();
    let (product, time) = timed(|| {
        runtime.block_on(async {
            let product = Product::open(directory).await;
            product.broker.get_plugin_token(&call(0), ask(0)).await.unwrap();
            product
        })
    });
    runtime.block_on(product.close());
    json!({ "seconds": time.as_secs_f64() })
}

/// In the child: an open product that is asked.
pub(super) struct Reader {
    product: Product,
    runtime: Runtime,
    connections: u64,
}

impl Reader {
    pub(super) fn open(directory: &Path, connections: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        Self { product: runtime.block_on(Product::open(directory)), runtime, connections }
    }

    pub(super) fn close(self) {
        self.runtime.block_on(self.product.close());
    }

    pub(super) fn answer(&self, question: &str) -> Value {
        match question {
            "hot" => {
                let mut times = self.calls(CALLS, |call| call % HOT);
                json!({ "p50": micros(quantile(&mut times, 0.5)) })
            }
            "cold" => {
                // far from what the calls below read
                let mut records = self.records(COLD);
                let mut calls = self.calls(COLD, |call| scattered(call) % self.connections);
                json!({
                    "record_p50": micros(quantile(&mut records, 0.5)),
                    "record_p99": micros(quantile(&mut records, 0.99)),
                    "call_p50": micros(quantile(&mut calls, 0.5)),
                    "call_p99": micros(quantile(&mut calls, 0.99)),
                })
            }
            _ => {
                self.records(SPREAD);
                let (now, most) = resident();
                json!({ "resident": now, "most": most })
            }
        }
    }

    /// Reads and opens connections all over; not what every call reads besides, a subject and its session.
    fn records(&self, count: u64) -> Vec<Duration> {
        self.runtime.block_on(async {
            let mut times = Vec::new();
            for read in 0..count {
                let number = scattered(u64::MAX / 2 + read) % self.connections;
                let begun = std::time::Instant::now();
                let provider = provider(number).parse().unwrap();
                let vault = &self.product.vault;
                let found = vault.connections(&tenant(), subject(number / EACH), Some(&provider)).await.unwrap();
                vault.access_token(&found[0]).await.unwrap();
                times.push(begun.elapsed());
                assert_eq!(found[0].value.id, connection_id(number));
            }
            times
        })
    }

    fn calls(&self, count: u64, number: impl Fn(u64) -> u64) -> Vec<Duration> {
        self.runtime.block_on(async {
            let mut times = Vec::new();
            for made in 0..count {
                let number = number(made);
                let (call, ask) = (call(number / EACH), ask(number));
                let begun = std::time::Instant::now();
                let token = self.product.broker.get_plugin_token(&call, ask).await.unwrap();
                times.push(begun.elapsed());
                assert_eq!(token.connection.value.id, connection_id(number));
            }
            times
        })
    }
}

fn memory(answer: &Value) -> String {
    format!("{:.0} ({:.0})", number(answer, "resident") / MIB, number(answer, "most") / MIB)
}

pub(super) fn number(answer: &Value, name: &str) -> f64 {
    answer[name].as_f64().unwrap()
}

const MIB: f64 = 1024.0 * 1024.0;
