//! What tens of thousands of watchers cost, and whom: memory, one event to all of them, stalled readers, and the calls on
//! the same port, over real sockets. `docs/performance.md` says how it is measured and why.
//!
//! Processes: this one, which listens and calls; [`node`], the whole broker, once with the watchers and once without;
//! [`bare`], tonic alone. The servers stand on one core, and this process on the other.
//!
//! `cargo bench --bench watch -- [STREAMS]`; without a number there are 20,000.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails ends the run")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod bare;
mod calls;
mod children;
mod fan_out;
#[path = "../store/measure.rs"]
#[expect(dead_code, reason = "shared with the bench of the store")]
mod measure;
mod node;
mod table;
mod watchers;

use std::{env, path::Path, process::Command, sync::Arc, time::Duration};

use children::Server;
use claviger::{
    app::SystemClock,
    dev::{self, DevProvider, PlatformClaims},
    sealing::Random,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::metadata::AsciiMetadataValue;
use watchers::Watchers;

/// Like the binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SERVERS: &str = "0";
const CLIENTS: &str = "1";
/// Of paired measurements.
const ROUNDS: usize = 9;
const STREAMS: usize = 20_000;
/// In memory: the disk's own time would hide what is measured.
const STORES: &str = "/dev/shm";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve-bare"] => bare::serve(),
        ["serve-broker", directory, issuer] => node::serve(Path::new(directory), issuer),
        [] => measure(STREAMS),
        [streams] => measure(streams.parse().unwrap_or_else(|_| panic!("{streams} is no number of streams"))),
        _ => panic!("there is one argument at most"),
    }
}

fn measure(streams: usize) {
    let processors = std::thread::available_parallelism().unwrap().get();
    assert!(processors >= 2, "servers and clients need a processor each, and there is only one");
    // Before the runtime's threads are there: they inherit it.
    let pinned = Command::new("taskset").args(["-cp", CLIENTS, &std::process::id().to_string()]).output().unwrap();
    assert!(pinned.status.success());
    Runtime::new().unwrap().block_on(measured(streams));
}

async fn measured(streams: usize) {
    let directory = TempDir::with_prefix_in("claviger-bench-", STORES).unwrap();
    let platform = Platform::start().await;
    let broker = |name: &str| {
        let place = directory.path().join(name);
        Server::start(&["serve-broker", place.to_str().unwrap(), &platform.0.platform_issuer()])
    };
    let (mut watched, mut quiet, mut bare) = (broker("watched"), broker("quiet"), Server::start(&["serve-bare"]));
    println!(
        "{streams} streams, {} on each connection; medians of {ROUNDS} paired rounds.\n",
        watchers::ON_ONE_CONNECTION
    );
    table::head();
    let of_bare = fan_out::open("tonic alone", &bare, &platform, streams, None).await;
    let of_watched = fan_out::open("broker", &watched, &platform, streams, Some(&fan_out::IDLE)).await;
    let of_watched = fan_out::to_all((&mut bare, of_bare), (&mut watched, of_watched), streams).await;
    bare.end();
    fan_out::beside_stalled(&mut quiet, &platform).await;
    calls::beside_watchers(&quiet, &mut watched, &platform).await;
    of_watched.close().await;
    watched.end();
    quiet.end();
    platform.0.shutdown().await;
}

/// Who says who calls.
struct Platform(DevProvider);

impl Platform {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fill = move |bytes: &mut [u8]| Random::system().fill(bytes).unwrap();
        Self(DevProvider::start(listener, dev::Options::default(), Arc::new(SystemClock), fill).await.unwrap())
    }

    /// A token of this user's, which lives for another day.
    fn bearer(&self, user: &str) -> AsciiMetadataValue {
        let lifetime = Duration::from_secs(24 * 3600);
        let claims = PlatformClaims { lifetime, ..PlatformClaims::to("claviger") };
        let token = self.0.mint_platform_token(user, &claims).unwrap();
        format!("Bearer {}", token.expose()).parse().unwrap()
    }
}
