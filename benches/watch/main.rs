//! What tens of thousands of watchers cost, and whom: memory, one event to all of them, stalled readers, and the calls on
//! the same port, over real sockets. `docs/performance.md` says how it is measured and why.
//!
//! Three processes: this one, which listens; [`node`], the whole broker; [`bare`], tonic alone. The two servers stand on one
//! core, and this process on the other.
//!
//! `cargo bench --bench watch -- [PART]...`; the parts are `idle`, `broadcast`, `stalled` and `calls`, and without one all are
//! measured.

#![expect(clippy::unwrap_used, clippy::panic, reason = "set-up that fails ends the run")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod bare;
mod children;
mod node;
mod watchers;

use std::{env, path::Path, time::{Duration, Instant}};

use children::Server;
use claviger::{app::SystemClock, dev::{self, DevProvider, PlatformClaims}, sealing::Random};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::metadata::AsciiMetadataValue;
use watchers::Watchers;

/// Like the binary's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SERVERS: &str = "0";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve-bare"] => bare::serve(),
        ["serve-broker", directory, issuer] => node::serve(Path::new(directory), issuer),
        ref parts => {
            let n: usize = parts[0].parse().unwrap();
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async move {
                let directory = TempDir::with_prefix("claviger-bench-").unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let fill = move |bytes: &mut [u8]| Random::system().fill(bytes).unwrap();
                let platform = DevProvider::start(listener, dev::Options::default(), std::sync::Arc::new(SystemClock), fill).await.unwrap();
                let bearer = |user: &str| {
                    let claims = PlatformClaims { lifetime: Duration::from_secs(24 * 3600), ..PlatformClaims::to("claviger") };
                    let token = platform.mint_platform_token(user, &claims).unwrap();
                    AsciiMetadataValue::try_from(format!("Bearer {}", token.expose())).unwrap()
                };
                for mut server in [Server::start(&["serve-broker", directory.path().to_str().unwrap(), &platform.platform_issuer()]), Server::start(&["serve-bare"])] {
                let mut watchers = Watchers::none();
                let token = bearer("everybody");
                watchers.open(server.address, vec![token.clone(); 200]).await;
                let before = server.resident();
                let at = Instant::now();
                watchers.open(server.address, vec![token; n]).await;
                println!("open: {:.0}/s", n as f64 / at.elapsed().as_secs_f64());
                for _ in 0..3 {
                println!("resident: {:.2} KiB each", (server.resident() - before) / n as f64 / 1024.0);
                server.tell("event everybody");
                server.has_done();
                let took = watchers.hear(n + 200).await;
                println!("last: {} us", took.iter().copied().fold(0.0, f64::max));
                tokio::time::sleep(Duration::from_secs(2)).await;
                }
                let before = server.resident();
                watchers.close().await;
                println!("freed: {:.2} KiB each", (before - server.resident()) / n as f64 / 1024.0);
                server.end();
                }
            });
        }
    }
}
