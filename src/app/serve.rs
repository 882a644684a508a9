//! Runs an app: listen, drain, stop within a bound.

use std::{future::IntoFuture, io, net::SocketAddr, num::NonZeroU32};

use anyhow::{Context, ensure};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    config::{Config, Reflection},
    grpc::{Parts, Rate, ReflectionPolicy, RequestIds, Server, Settings},
    http,
};

/// Bound sockets, so that whoever starts an app knows its ports.
pub struct Listeners {
    pub grpc: TcpListener,
    pub http: TcpListener,
}

/// An address cannot be served on: taken, not of this machine, or not for this user.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be listened on; stop what listens there, or choose another address")]
pub struct NotListening {
    pub address: SocketAddr,
    source: io::Error,
}

pub async fn listen(address: SocketAddr) -> Result<TcpListener, NotListening> {
    TcpListener::bind(address).await.map_err(|source| NotListening { address, source })
}

impl Listeners {
    pub async fn bind(config: &Config) -> Result<Self, NotListening> {
        Ok(Self { grpc: listen(config.grpc.listen).await?, http: listen(config.http.listen).await? })
    }
}

impl App {
    /// Serves until `shutdown`, then: readiness off, watchers told to drain, what is in the air landed, store closed.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
        let server = Server::new(self.grpc_parts()?);
        if let (Ok(grpc), Ok(http)) = (listeners.grpc.local_addr(), listeners.http.local_addr()) {
            tracing::info!(grpc.address = %grpc, http.address = %http, "serving");
        }
        let ended = CancellationToken::new();
        let mut background = JoinSet::new();
        background.spawn(self.broker.clone().run_scheduler());
        background.spawn(self.hub.clone().run(ended.clone()));
        let authenticator = self.authenticator.clone();
        background.spawn(async move { authenticator.keep_keys_fresh().await });
        let router = http::router(self.broker.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let http =
            axum::serve(listeners.http, router).with_graceful_shutdown(ended.clone().cancelled_owned()).into_future();
        let http = tokio::spawn(http);
        let (stop, fallen) = (shutdown.clone(), CancellationToken::new());
        let serving = server.serve(listeners.grpc, shutdown.cancelled_owned());
        let supervising = async {
            // They run until the end: one that is over has panicked, and a broker without it would only look alive.
            if background.join_next().await.is_some() && !stop.is_cancelled() {
                fallen.cancel();
                stop.cancel();
            }
            std::future::pending::<()>().await;
        };
        let served = tokio::select! {
            served = serving => served.context("the gRPC server failed"),
            () = supervising => Ok(()),
        };
        // The server waits for the broker only as long as for open calls, and not at all when it failed. A token request
        // that is in the air must land before its store is closed.
        self.broker.stop().await;
        ended.cancel();
        background.shutdown().await;
        // Health checks keep their connections open; nobody waits for them.
        http.abort();
        self.store.close().await;
        tracing::info!("stopped");
        ensure!(!fallen.is_cancelled(), "a background task ended by itself");
        served
    }

    fn grpc_parts(&self) -> anyhow::Result<Parts> {
        let rate = NonZeroU32::new(self.config.grpc.rate)
            .map(|per_second| Rate { per_second, burst: per_second.saturating_mul(BURST) });
        let reflection = match self.config.grpc.reflection {
            Reflection::Open => ReflectionPolicy::Open,
            Reflection::Authenticated => ReflectionPolicy::Authenticated,
            Reflection::Off => ReflectionPolicy::Off,
        };
        Ok(Parts {
            broker: self.broker.clone(),
            authenticator: self.authenticator.clone(),
            clock: self.clock.clone(),
            request_ids: RequestIds::new(self.random.bytes()?),
            settings: Settings { reflection, rate, ..Settings::default() },
        })
    }
}

/// Calls that may come at once, in seconds of the long-run rate.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
