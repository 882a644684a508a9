//! `claviger dev`: the whole product on one machine, with an authorization server to connect to.
//!
//! - [`world`]: what runs · [`quick_start`]: what is printed to paste · [`tour`]: the main job, walked through

mod quick_start;
mod tour;
mod world;

use std::{
    net::{AddrParseError, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::Args;

pub(super) use world::RootKeyGone;
use world::World;

use super::signals::Signals;
use crate::{
    dev::Arm,
    domain::Rotation,
    sealing::hardening,
    telemetry::{LogFormat, Telemetry, TelemetryGuard},
};

/// Run the broker with a development authorization server, on this machine alone
#[derive(Debug, Args)]
pub struct Dev {
    /// Walk through the main job with real calls, print each step, and exit
    #[arg(long)]
    tour: bool,
    /// Keys, store and state
    #[arg(long, value_name = "DIRECTORY", default_value = "claviger-dev")]
    directory: PathBuf,
    /// Where the broker listens for gRPC; port 0 takes any
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051", value_parser = loopback)]
    grpc: SocketAddr,
    /// Where the broker listens for HTTP; port 0 takes any
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = loopback)]
    http: SocketAddr,
    /// Where the development authorization server listens; connections are bound to this address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", value_parser = loopback)]
    provider: SocketAddr,
    /// How long the provider's access tokens live, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    access_token_lifetime: u64,
    /// What becomes of a used refresh token: strict, reuse, none, or grace:SECONDS
    #[arg(long, value_name = "ROTATION", default_value = "strict", value_parser = rotation, conflicts_with = "tour")]
    provider_rotation: Rotation,
    /// Lets the provider fail: a fault of docs/testing.md, for the next refresh; with :N for the next N, with :always
    /// for all, with :N% for so many of them; or the JSON that POST /dev/faults takes. Can be repeated
    #[arg(long, value_name = "FAULT", conflicts_with = "tour")]
    provider_fault: Vec<Arm>,
    /// What to log on standard error, such as `claviger=debug,info` [default: info, on the tour warn]
    #[arg(long, value_name = "FILTER", env = "CLAVIGER_LOG")]
    log: Option<String>,
}

impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        hardening::disable_core_dumps()?;
        let _telemetry = self.telemetry()?;
        // From here on a signal waits for a good end, also one that comes while things start.
        let signals = Signals::listen().context("signals cannot be listened for")?;
        if self.tour { tour::walk(signals).await } else { self.serve(signals).await }
    }

    fn telemetry(&self) -> anyhow::Result<TelemetryGuard> {
        let usual = if self.tour { "warn" } else { "info" };
        let filter = self.log.as_deref().unwrap_or(usual);
        let telemetry = Telemetry { format: LogFormat::Text, filter, otlp_endpoint: None };
        telemetry.start().with_context(|| format!("--log {filter}"))
    }

    async fn serve(self, mut signals: Signals) -> anyhow::Result<()> {
        let directory = std::path::absolute(&self.directory)?;
        let world = World::start(world::Settings { directory: directory.clone(), ..self.into() }).await?;
        let result = async {
            let token_file = quick_start::write_token(&directory, &world.token("alice")?)
                .with_context(|| format!("the token could not be written to {}", directory.display()))?;
            quick_start::print(&world, &token_file).await?;
            tokio::select! {
                () = signals.received() => {}
                () = world.ended() => {}
            }
            Ok(())
        };
        let result = result.await;
        let stopped = signals.unless_received(world.stop()).await?;
        result.and(stopped)
    }
}

impl From<Dev> for world::Settings {
    fn from(dev: Dev) -> Self {
        Self {
            directory: dev.directory,
            grpc: dev.grpc,
            http: dev.http,
            provider: dev.provider,
            rotation: dev.provider_rotation,
            faults: dev.provider_fault,
            access_token_lifetime: Duration::from_secs(dev.access_token_lifetime.max(1)),
        }
    }
}

/// Why an address is not one to serve on.
#[derive(Debug, thiserror::Error)]
enum NotServed {
    #[error("an address with a port is needed, such as 127.0.0.1:50051")]
    Malformed(#[from] AddrParseError),
    #[error(
        "users log in without passwords here, so `dev` serves this machine alone: give a loopback address, such as 127.0.0.1:{port}"
    )]
    NotLoopback { port: u16 },
}

/// Why a text is no rotation policy.
#[derive(Debug, thiserror::Error)]
#[error("a rotation is strict, reuse, none, or grace:SECONDS, such as grace:30")]
struct NoRotation;

fn rotation(text: &str) -> Result<Rotation, NoRotation> {
    match text {
        "none" => Ok(Rotation::None),
        "reuse" => Ok(Rotation::Reuse),
        "strict" => Ok(Rotation::Strict),
        _ => {
            let seconds = text.strip_prefix("grace:").and_then(|seconds| seconds.parse().ok());
            seconds.map(|seconds| Rotation::Grace { seconds }).ok_or(NoRotation)
        }
    }
}

fn loopback(text: &str) -> Result<SocketAddr, NotServed> {
    let address: SocketAddr = text.parse()?;
    if address.ip().is_loopback() { Ok(address) } else { Err(NotServed::NotLoopback { port: address.port() }) }
}
