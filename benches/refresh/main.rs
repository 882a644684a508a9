//! The refresh engine with real sockets and a real store: many connections that become due in one second, and how many
//! one node can keep fresh. `docs/performance.md` says how it is measured and why.
//!
//! `cargo bench --bench refresh -- [PART]...`; the parts are `together` and `most`, and without one both are measured.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails ends the run")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

#[path = "../store/measure.rs"]
#[expect(dead_code, reason = "shared with the bench of the store")]
mod measure;
mod node;
mod provider;

use std::{
    env, fs,
    num::NonZeroU32,
    path::PathBuf,
    time::{Duration, Instant},
};

use claviger::{
    app::SystemClock,
    domain::{Clock, Timestamp},
};
use measure::{Spread, micros, quantile};
use node::{HOUR, Node, ask, call};
use provider::Provider;
use tokio::runtime::Runtime;

/// Like the binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PARTS: [&str; 2] = ["together", "most"];
/// One whose connections become due, and one whose tokens are read.
const PROVIDERS: [&str; 2] = ["due", "fresh"];
const ROUNDS: u32 = 7;
/// Due in one second, in each round.
const TOGETHER: u32 = 10_000;
const RATE: u32 = 400;
/// Connections whose fresh tokens are read.
const READ: u32 = 1_000;
/// Of reads, idle and while refreshes go on.
const WINDOW: Duration = Duration::from_secs(10);
const BETWEEN_READS: Duration = Duration::from_millis(1);
/// As many as an hour of one-hour tokens.
const MANY: u32 = 100_000;
const SUSTAINED: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    if words == [provider::CHILD] {
        return provider::run();
    }
    if let Some(unknown) = words.iter().find(|word| !PARTS.contains(word)) {
        panic!("{unknown} is no part; the parts are {PARTS:?}");
    }
    let wanted = |part: &str| words.is_empty() || words.contains(&part);
    let runtime = Runtime::new().unwrap();
    if wanted("together") {
        runtime.block_on(together());
    }
    if wanted("most") {
        runtime.block_on(most());
    }
}

struct Times {
    p50: f64,
    p99: f64,
}

async fn together() {
    let (place, mut provider) = (place(), Provider::start());
    let node = Node::start(&place, &provider.token_endpoint, NonZeroU32::new(RATE).unwrap()).await;
    let tomorrow = SystemClock.now().plus(24 * HOUR);
    node.connect("fresh", 0..READ, |_| tomorrow).await;
    let (mut idle, mut busy, mut most_in_a_second, mut took) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    read(&node, Duration::from_secs(2)).await;
    for round in 0..ROUNDS {
        let numbers = round * TOGETHER..(round + 1) * TOGETHER;
        // Loaded first, so that only being due is new when they are.
        let due = SystemClock.now().plus(Duration::from_secs(20));
        let within = |number: u32| due.plus(Duration::from_millis(u64::from(number % 1000)));
        node.connect("due", numbers.clone(), within).await;
        idle.push(read(&node, WINDOW.min(due - SystemClock.now())).await);
        sleep_until(due).await;
        provider.asked();
        let begun = Instant::now();
        busy.push(read(&node, WINDOW).await);
        for number in numbers {
            while node.generation("due", number).await < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        took.push(begun.elapsed().as_secs_f64());
        let asked = provider.asked();
        assert_eq!(asked.times, u64::from(TOGETHER), "each is refreshed once");
        most_in_a_second.push(asked.most_in_a_second as f64);
    }
    println!("\n## {TOGETHER} connections due in one second, at most {RATE} refreshes/s\n");
    println!("| what | figure |\n|---|---|");
    println!("| all refreshed after, s | {} |", Spread::of(took));
    println!("| most that the provider saw in any second | {} |", Spread::of(most_in_a_second));
    for (name, of) in [("p50", (|times| times.p50) as fn(&Times) -> f64), ("p99", |times| times.p99)] {
        println!("| fresh token read, idle, {name}, µs | {} |", Spread::of(idle.iter().map(of)));
        println!("| fresh token read meanwhile, {name}, µs | {} |", Spread::of(busy.iter().map(of)));
        let ratios = idle.iter().zip(&busy).map(|(idle, busy)| of(busy) / of(idle));
        println!("| **ratio, {name}** | **{}** |", Spread::of(ratios));
    }
    node.stop().await;
    provider.end();
    fs::remove_dir_all(&place).unwrap();
}

async fn most() {
    let (place, mut provider) = (place(), Provider::start());
    let node = Node::start(&place, &provider.token_endpoint, NonZeroU32::new(1_000_000).unwrap()).await;
    let due = SystemClock.now().plus(Duration::from_secs(60));
    node.connect("due", 0..MANY, |_| due).await;
    sleep_until(due.plus(Duration::from_secs(3))).await;
    provider.asked();
    let (begun, cpu) = (Instant::now(), processor_time());
    tokio::time::sleep(SUSTAINED).await;
    let seconds = begun.elapsed().as_secs_f64();
    let (asked, cpu) = (provider.asked(), processor_time() - cpu);
    let rate = asked.times as f64 / seconds;
    let needed = f64::from(MANY) / HOUR.as_secs_f64();
    println!("\n## {MANY} connections with tokens of an hour\n");
    println!("| what | figure |\n|---|---|");
    println!("| needed, refreshes/s | {needed:.1} |");
    println!("| one node, refreshes/s | {rate:.0} |");
    println!("| **times what is needed** | **{:.1}** |", rate / needed);
    println!("| the broker's processor time for each, ms | {:.2} |", cpu * 1000.0 / asked.times as f64);
    node.stop().await;
    provider.end();
    fs::remove_dir_all(&place).unwrap();
}

/// One read after the other, with a pause between them: how long each takes.
async fn read(node: &Node, window: Duration) -> Times {
    let (end, mut times, mut number) = (Instant::now() + window, Vec::new(), 0);
    while Instant::now() < end {
        let (call, ask) = (call("fresh", number % READ), ask("fresh"));
        let begun = Instant::now();
        node.broker.get_plugin_token(&call, ask).await.unwrap();
        times.push(begun.elapsed());
        number += 1;
        tokio::time::sleep(BETWEEN_READS).await;
    }
    Times { p50: micros(quantile(&mut times, 0.5)), p99: micros(quantile(&mut times, 0.99)) }
}

async fn sleep_until(at: Timestamp) {
    SystemClock.sleep_until(at).await;
}

/// Seconds of this process.
fn processor_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: Vec<f64> = after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse().unwrap()).collect();
    // USER_HZ is 100 on every Linux that is.
    (ticks[0] + ticks[1]) / 100.0
}

fn place() -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-refresh");
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    place
}
