//! Runs an app: listen, drain, stop within a bound.

use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{config, grpc, http};

/// Bound sockets, so that whoever starts an app knows its ports.
pub struct Listeners {
    pub grpc: TcpListener,
    pub http: TcpListener,
}

/// After this the process goes, whatever still hangs; the other end of a graceful stop.
const STOP_WITHIN: Duration = Duration::from_secs(25);

impl Listeners {
    pub async fn bind(config: &config::Config) -> anyhow::Result<Self> {
        let bind = async |address| {
            TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened on; is it taken?"))
        };
        Ok(Self { grpc: bind(config.grpc.listen).await?, http: bind(config.http.listen).await? })
    }
}

impl App {
    /// Serves until `shutdown`, then: readiness off, watchers told to drain, what is in the air landed, store closed.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
        let stopping = CancellationToken::new();
        let background = [
            tokio::spawn(self.broker.clone().run_scheduler()),
            tokio::spawn(self.hub.clone().run(stopping.clone())),
            tokio::spawn({
                let authenticator = self.authenticator.clone();
                async move { authenticator.keep_keys_fresh().await }
            }),
        ];
        let grpc = grpc::serve(self.grpc_parts(), listeners.grpc, stopping.clone());
        let http = http::serve(self.broker.clone(), listeners.http, stopping.clone());
        let stop = async {
            shutdown.cancelled().await;
            tracing::info!("stopping");
            // The broker first: it ends the streams that the server would wait for.
            let landed = self.broker.stop();
            let late = self.clock.sleep_until(self.clock.now().plus(STOP_WITHIN));
            tokio::select! {
                () = landed => {}
                () = late => tracing::error!("some work did not land in time"),
            }
            stopping.cancel();
        };
        let (grpc, http, ()) = tokio::join!(grpc, http, stop);
        background.iter().for_each(tokio::task::JoinHandle::abort);
        self.store.close().await;
        grpc.context("the gRPC server failed")?;
        http.context("the HTTP server failed")
    }

    fn grpc_parts(&self) -> grpc::Parts {
        grpc::Parts {
            broker: self.broker.clone(),
            authenticator: self.authenticator.clone(),
            clock: self.clock.clone(),
            random: {
                let random = self.random.clone();
                Box::new(move || random.bytes().ok())
            },
            reflection: match self.config.grpc.reflection {
                config::Reflection::Open => grpc::ReflectionPolicy::Open,
                config::Reflection::Authenticated => grpc::ReflectionPolicy::Authenticated,
                config::Reflection::Off => grpc::ReflectionPolicy::Off,
            },
            rate: self.config.grpc.rate,
        }
    }
}
