//! The gRPC server: its services, its layers, its limits, and how it ends.

use std::{convert::Infallible, future::Future, num::NonZeroU32, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    service::Routes,
    transport::{
        self,
        server::{Connected, TcpConnectInfo},
    },
};
use tonic_health::pb::health_server;
use tonic_reflection::{
    pb::{
        v1::server_reflection_server::SERVICE_NAME as REFLECTION,
        v1alpha::server_reflection_server::SERVICE_NAME as REFLECTION_ALPHA,
    },
    server::Builder as Reflection,
};

use super::{
    coalesced::Coalesced,
    health::Readiness,
    layers::{Authentication, Count, Identify, Methods, Rate, RateLimit, Recover, RequestIds},
    service::Rpcs,
    watch_route::WatchRoute,
};
use crate::{
    broker::Broker,
    domain::Clock,
    identity::Authenticator,
    listener::{Connection, Limits, Opening, Protocol, Tls, admit, open},
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{
            connection_service_server::ConnectionServiceServer, operations_service_server::OperationsServiceServer,
            token_broker_service_server::TokenBrokerServiceServer,
        },
    },
};

/// What the server is made of.
pub struct Parts {
    pub broker: Broker,
    pub authenticator: Arc<Authenticator>,
    pub clock: Arc<dyn Clock>,
    pub request_ids: RequestIds,
    pub settings: Settings,
}

#[derive(Clone)]
pub struct Settings {
    pub reflection: ReflectionPolicy,
    /// For each principal; `None`: no limit.
    pub rate: Option<Rate>,
    /// One call in so many gets a span at INFO, for traces; 0: none. At DEBUG every call has one.
    pub one_span_in: u32,
    /// How long open calls may take to end at shutdown before their connections are cut.
    pub drain: Duration,
    pub limits: Limits,
    /// `None`: in the clear.
    pub tls: Option<Arc<Tls>>,
}

/// Who may ask what the server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReflectionPolicy {
    Open,
    /// Whoever may call anything else.
    #[default]
    Authenticated,
    /// It is not there.
    Off,
}

/// The gRPC server, ready to serve.
pub struct Server {
    routes: Routes,
    identify: Identify,
    count: Count,
    authentication: Authentication,
    rate_limit: Option<RateLimit>,
    broker: Broker,
    clock: Arc<dyn Clock>,
    drain: Duration,
    limits: Limits,
    tls: Option<Arc<Tls>>,
}

impl Default for Settings {
    fn default() -> Self {
        let count = |number| NonZeroU32::new(number).expect("not zero");
        Self {
            reflection: ReflectionPolicy::default(),
            rate: Some(Rate { per_second: count(200), burst: count(1000) }),
            one_span_in: 100,
            drain: Duration::from_secs(20),
            limits: Limits::default(),
            tls: None,
        }
    }
}

impl Server {
    pub fn new(parts: Parts) -> Self {
        let Parts { broker, authenticator, clock, request_ids, settings } = parts;
        let mut open = vec![health_server::SERVICE_NAME];
        if settings.reflection == ReflectionPolicy::Open {
            open.extend([REFLECTION, REFLECTION_ALPHA]);
        }
        let longest_message = settings.limits.message;
        let rate_limit = settings.rate.map(|rate| RateLimit::new(rate, Arc::clone(&clock)));
        let rpcs = Rpcs { broker: broker.clone(), clock: Arc::clone(&clock), rate_limit: rate_limit.clone() };
        let health = Readiness::new(broker.clone(), Arc::clone(&clock));
        let token_broker = TokenBrokerServiceServer::new(rpcs.clone()).max_decoding_message_size(longest_message);
        let routes = Routes::new(WatchRoute::before(token_broker, rpcs.clone(), longest_message))
            .add_service(ConnectionServiceServer::new(rpcs.clone()).max_decoding_message_size(longest_message))
            .add_service(OperationsServiceServer::new(rpcs).max_decoding_message_size(longest_message))
            .add_service(health_server::HealthServer::new(health).max_decoding_message_size(longest_message));
        let methods = Arc::new(Methods::of(&DESCRIPTORS));
        Self {
            routes: if settings.reflection == ReflectionPolicy::Off {
                routes
            } else {
                with_reflection(routes, longest_message)
            },
            identify: Identify::new(Arc::new(request_ids), settings.one_span_in, Arc::clone(&methods)),
            count: Count::new(Arc::clone(broker.metrics()), methods),
            authentication: Authentication::new(authenticator, &open),
            rate_limit,
            broker,
            clock,
            drain: settings.drain,
            limits: settings.limits,
            tls: settings.tls,
        }
    }

    /// Serves until `shutdown`, then ends: the watchers are told to drain while everything else is still served, then
    /// there are no new connections and calls, the broker is stopped, and open calls are waited for. What has not ended
    /// in time is cut, and so is what only waits for its peer to read.
    ///
    /// # Errors
    /// The transport failed.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), transport::Error> {
        let Self { routes, identify, count, authentication, rate_limit, broker, clock, drain, limits, tls } = self;
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let opening = Opening { protocol: Protocol::Http2, tls, limits, clock: Arc::clone(&clock), cut: cut.clone() };
        let connections = open(admit(listener, &limits, Arc::clone(&clock)), opening);
        let incoming = connections.map(|connection| Ok::<_, Infallible>(Coalesced::new(connection)));
        let answering = count.answering();
        let serving = transport(&limits)
            .layer(identify)
            .layer(count)
            .layer(Recover)
            .layer(authentication)
            .layer(tower::util::option_layer(rate_limit))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut serving = pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended,
            () = shutdown => {}
        }
        let deadline = clock.sleep_until(clock.now().plus(drain));
        tokio::select! {
            ended = &mut serving => return ended,
            () = broker.drain_watchers(drain.mul_f64(WATCHERS)) => closing.cancel(),
        }
        let mut served = None;
        let draining = async { tokio::join!(async { served = Some((&mut serving).await) }, broker.stop()) };
        tokio::select! {
            _ = draining => {}
            () = deadline => tracing::warn!("open calls did not end in time; their connections are cut"),
            () = nobody_answered(&answering, &*clock) => {
                tracing::info!("connections that do not take their last messages are cut");
            }
        }
        cut.cancel();
        match served {
            Some(served) => served,
            None => serving.await,
        }
    }
}

/// Of the time for open calls, at most so much is given to sending the watchers away.
const WATCHERS: f64 = 0.5;
/// Within this time after the last answer has begun it is read, or never: half-open and stalled peers would keep the
/// process until its deadline, and with it everybody who waits for the next one.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// Returns when for [`LAST_MESSAGES`] nobody has waited for an answer.
async fn nobody_answered(answering: &TaskTracker, clock: &dyn Clock) {
    answering.close();
    loop {
        answering.wait().await;
        clock.sleep_until(clock.now().plus(LAST_MESSAGES)).await;
        if answering.is_empty() {
            return;
        }
    }
}

/// Requests are small, so little may be on its way to us: a connection that floods us holds 256 KiB at most.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Every limit in so many words: the defaults are unlimited, or made for bigger messages. There is no maximal age of a
/// connection, because it ends streams without a GOAWAY; watch streams have their own.
fn transport(limits: &Limits) -> transport::Server {
    transport::Server::builder()
        .max_concurrent_streams(limits.streams)
        .http2_max_header_list_size(limits.header_list)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(limits.keep_alive_interval))
        .http2_keepalive_timeout(Some(limits.keep_alive_timeout))
        .http2_max_pending_accept_reset_streams(Some(limits.reset_streams))
        .http2_max_local_error_reset_streams(Some(limits.error_resets))
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.local_addr(), remote_addr: Some(self.peer_addr()) }
    }
}

/// Of everything that can be called.
const DESCRIPTORS: [&[u8]; 4] = [
    FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// Both versions: many installed clients know only the older one. The error details are described too: clients that
/// live by reflection could show them as bytes only.
fn with_reflection(routes: Routes, longest_message: usize) -> Routes {
    let described = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let embedded = "the embedded descriptor sets are complete";
    routes
        .add_service(described().build_v1().expect(embedded).max_decoding_message_size(longest_message))
        .add_service(described().build_v1alpha().expect(embedded).max_decoding_message_size(longest_message))
}
