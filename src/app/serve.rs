//! Runs an app: listen, drain, stop within a bound.

use std::{io, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    config::{Config, Reflection},
    grpc::{Parts, Rate, ReflectionPolicy, RequestIds, Server, Settings},
    http,
    listener::{Opening, Protocol},
};

/// Bound sockets, so that whoever starts an app knows its ports.
pub struct Listeners {
    pub grpc: TcpListener,
    pub http: TcpListener,
    /// `None`: metrics are served beside the pages, or not at all.
    pub metrics: Option<TcpListener>,
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
        let metrics = match config.metrics.listen.filter(|address| *address != config.http.listen) {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self { grpc: listen(config.grpc.listen).await?, http: listen(config.http.listen).await?, metrics })
    }
}

/// Something hangs, and is given up so that the process ends.
#[derive(Debug, thiserror::Error)]
#[error("what was under way did not end within {} s and was given up; refreshes that were cut off are settled at the next start", grace.as_secs())]
pub struct NotStopped {
    grace: Duration,
}

impl App {
    /// Serves until `shutdown`, then: readiness off, watchers told to drain, what is in the air landed, store closed.
    /// Ends within `limits.shutdown_grace` whatever hangs.
    ///
    /// # Errors
    /// A listener failed, a background task ended by itself, or something did not end in time.
    pub async fn serve(self, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
        let (grace, clock) = (self.grace(), Arc::clone(&self.clock));
        let given_up = async {
            shutdown.cancelled().await;
            clock.sleep_until(clock.now().plus(grace)).await;
        };
        tokio::select! {
            served = Box::pin(self.run(listeners, shutdown.clone())) => served,
            // Nothing durable is at stake: what is acknowledged is on disk, and an open refresh intent is on record.
            () = given_up => Err(NotStopped { grace }.into()),
        }
    }

    async fn run(self, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
        let server = Server::new(self.grpc_parts()?);
        if let (Ok(grpc), Ok(http)) = (listeners.grpc.local_addr(), listeners.http.local_addr()) {
            tracing::info!(grpc.address = %grpc, http.address = %http, "serving");
        }
        let (ended, cut) = (CancellationToken::new(), CancellationToken::new());
        let mut background = JoinSet::new();
        background.spawn(self.broker.clone().run_scheduler());
        background.spawn(self.broker.clone().run_retention());
        background.spawn(self.broker.clone().run_key_rotation());
        background.spawn(self.hub.clone().run(ended.clone()));
        let authenticator = self.authenticator.clone();
        background.spawn(async move { authenticator.keep_keys_fresh().await });
        let mut http = JoinSet::new();
        http.spawn(http::serve(listeners.http, self.router(), self.http_opening(&cut), ended.clone()));
        if let Some(listener) = listeners.metrics {
            let opening = Opening { tls: None, ..self.http_opening(&cut) };
            http.spawn(http::serve(listener, http::metrics_router(self.broker.clone()), opening, ended.clone()));
        }
        let fallen = CancellationToken::new();
        let serving = server.serve(listeners.grpc, shutdown.clone().cancelled_owned());
        let supervising = async {
            // They run until the end: one that is over has panicked, and a broker without it would only look alive.
            let over = tokio::select! {
                over = background.join_next() => over,
                over = http.join_next() => over,
            };
            if over.is_some() && !shutdown.is_cancelled() {
                fallen.cancel();
                shutdown.cancel();
            }
            std::future::pending::<()>().await;
        };
        let served = tokio::select! {
            served = serving => served.context("the gRPC server failed"),
            () = supervising => Ok(()),
        };
        // The grace begins to run when the server has failed by itself, too.
        shutdown.cancel();
        // The server waits for the broker only as long as for open calls, and not at all when it failed. A token request
        // that is in the air must land before its store is closed.
        self.broker.stop().await;
        ended.cancel();
        self.end_http(&mut http, &cut).await;
        background.shutdown().await;
        self.store.close().await;
        tracing::info!("stopped");
        ensure!(!fallen.is_cancelled(), "a background task ended by itself");
        served
    }

    /// Readiness is told until here. What the answers told of has ended, so they need little time to leave.
    async fn end_http(&self, http: &mut JoinSet<()>, cut: &CancellationToken) {
        let last = self.clock.sleep_until(self.clock.now().plus(self.grace() / 5));
        tokio::select! {
            () = async { while http.join_next().await.is_some() {} } => {}
            () = last => tracing::warn!("open requests did not end in time; their connections are cut"),
        }
        cut.cancel();
        http.shutdown().await;
    }

    fn router(&self) -> Router {
        let router = http::router(self.broker.clone());
        match self.config.metrics.listen {
            Some(address) if address == self.config.http.listen => {
                router.merge(http::metrics_router(self.broker.clone()))
            }
            _ => router,
        }
    }

    fn grace(&self) -> Duration {
        self.config.limits.shutdown_grace.0
    }

    fn http_opening(&self, cut: &CancellationToken) -> Opening {
        Opening {
            protocol: Protocol::Http1,
            tls: self.certificates.http.clone(),
            limits: self.config.limits.limits(),
            clock: Arc::clone(&self.clock),
            cut: cut.clone(),
        }
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
            settings: Settings {
                reflection,
                rate,
                limits: self.config.limits.limits(),
                tls: self.certificates.grpc.clone(),
                // Leaves time for the token requests that are in the air, and for the last answers.
                drain: self.grace() * 3 / 5,
                ..Settings::default()
            },
        })
    }
}

/// Calls that may come at once, in seconds of the long-run rate.
const BURST: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
