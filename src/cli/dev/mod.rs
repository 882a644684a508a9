//! `claviger dev`: the whole product on one machine, with an authorization server to connect to.
//!
//! - [`world`]: what runs · [`quick_start`]: what is printed to paste · [`tour`]: the main job, walked through

mod quick_start;
mod tour;
mod world;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;

use world::World;

/// Run the broker with a development authorization server, on this machine alone
#[derive(Debug, Args)]
pub struct Dev {
    /// Walk through the main job with real calls, print each step, and exit
    #[arg(long)]
    tour: bool,
    /// Keys, store and state
    #[arg(long, value_name = "DIRECTORY", default_value = "claviger-dev")]
    directory: PathBuf,
    /// Where the broker listens for gRPC
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    grpc: SocketAddr,
    /// Where the broker listens for HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Where the development authorization server listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    provider: SocketAddr,
    /// How long the provider's access tokens live, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    access_token_lifetime: u64,
}

impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        for address in [self.grpc, self.http, self.provider] {
            if !address.ip().is_loopback() {
                bail!(
                    "{address} is not a loopback address: users log in without passwords here, so `dev` serves this machine alone"
                );
            }
        }
        if self.tour {
            return tour::walk().await;
        }
        let directory = self.directory.clone();
        let world = World::start(self.into()).await?;
        let token_file = quick_start::write_token(&directory, &world.token("alice")?)
            .with_context(|| format!("the token could not be written to {}", directory.display()))?;
        quick_start::print(&world, &token_file).await?;
        tokio::select! {
            () = interrupted() => {}
            () = world.ended() => {}
        }
        world.stop().await
    }
}

impl From<Dev> for world::Settings {
    fn from(dev: Dev) -> Self {
        Self {
            directory: dev.directory,
            grpc: dev.grpc,
            http: dev.http,
            provider: dev.provider,
            access_token_lifetime: Duration::from_secs(dev.access_token_lifetime.max(1)),
        }
    }
}

/// SIGINT or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
