//! The gRPC server: its services, its layers, its limits, and how it ends.

use std::{future::Future, num::NonZeroU32, pin::pin, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport};
use tonic_health::pb::health_server;
use tonic_reflection::{
    pb::{
        v1::server_reflection_server::SERVICE_NAME as REFLECTION,
        v1alpha::server_reflection_server::SERVICE_NAME as REFLECTION_ALPHA,
    },
    server::Builder as Reflection,
};

use super::{
    connection::accept,
    health::Readiness,
    layers::{Authentication, Identify, Rate, RateLimit, Recover, RequestIds},
    service::Rpcs,
};
use crate::{
    broker::Broker,
    domain::Clock,
    identity::Authenticator,
    proto::{
        FILE_DESCRIPTOR_SET,
        v1::{
            connection_service_server::ConnectionServiceServer, token_broker_service_server::TokenBrokerServiceServer,
        },
    },
};

/// The longest message that is read. None of ours comes near it.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// More would be queued by the client, silently; a client that needs more streams opens another connection.
const MOST_STREAMS: u32 = 256;
/// Header lists hold a token of up to 8 KiB, the platform's tracing, and its proxies' additions.
const LONGEST_HEADER_LIST: u32 = 24 * 1024;
/// Requests are small, so little may be on its way to us: a connection that floods us holds 256 KiB at most.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Finds peers that are gone without a word within 40 s.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that a client opens and resets at once (CVE-2023-44487), or makes us reset (CVE-2025-8671), before it is
/// sent away.
const MOST_RESET_STREAMS: usize = 20;
const MOST_ERROR_RESETS: usize = 1024;

/// What the server is made of.
pub struct Parts {
    pub broker: Broker,
    pub authenticator: Arc<Authenticator>,
    pub clock: Arc<dyn Clock>,
    pub request_ids: RequestIds,
    pub settings: Settings,
}

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub reflection: ReflectionPolicy,
    /// For each principal; `None`: no limit.
    pub rate: Option<Rate>,
    /// One call in so many gets a span at INFO, for traces; 0: none. At DEBUG every call has one.
    pub one_span_in: u32,
    /// How long open calls may take to end at shutdown before their connections are cut.
    pub drain: Duration,
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
    authentication: Authentication,
    rate_limit: Option<RateLimit>,
    broker: Broker,
    clock: Arc<dyn Clock>,
    drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let count = |number| NonZeroU32::new(number).expect("not zero");
        Self {
            reflection: ReflectionPolicy::default(),
            rate: Some(Rate { per_second: count(200), burst: count(1000) }),
            one_span_in: 100,
            drain: Duration::from_secs(20),
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
        let rpcs = Rpcs { broker: broker.clone(), clock: Arc::clone(&clock) };
        let health = Readiness::new(broker.clone(), Arc::clone(&clock));
        let routes =
            Routes::new(TokenBrokerServiceServer::new(rpcs.clone()).max_decoding_message_size(LONGEST_MESSAGE))
                .add_service(ConnectionServiceServer::new(rpcs).max_decoding_message_size(LONGEST_MESSAGE))
                .add_service(health_server::HealthServer::new(health).max_decoding_message_size(LONGEST_MESSAGE));
        Self {
            routes: if settings.reflection == ReflectionPolicy::Off { routes } else { with_reflection(routes) },
            identify: Identify::new(Arc::new(request_ids), settings.one_span_in),
            authentication: Authentication::new(authenticator, &open),
            rate_limit: settings.rate.map(|rate| RateLimit::new(rate, Arc::clone(&clock))),
            broker,
            clock,
            drain: settings.drain,
        }
    }

    /// Serves until `shutdown`, then ends: no new connections and calls, the broker is stopped, which ends the watch
    /// streams, and open calls are waited for; what has not ended in time is cut.
    ///
    /// # Errors
    /// The transport failed.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), transport::Error> {
        let Self { routes, identify, authentication, rate_limit, broker, clock, drain } = self;
        let (closing, cut) = (CancellationToken::new(), CancellationToken::new());
        let incoming = accept(listener, Arc::clone(&clock), cut.clone());
        let serving = transport()
            .layer(identify)
            .layer(Recover)
            .layer(authentication)
            .layer(tower::util::option_layer(rate_limit))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned());
        let mut serving = pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended,
            () = shutdown => closing.cancel(),
        }
        let deadline = clock.sleep_until(clock.now().plus(drain));
        let draining = async { tokio::join!(&mut serving, broker.stop()).0 };
        tokio::select! {
            ended = draining => return ended,
            () = deadline => tracing::warn!("open calls did not end in time; their connections are cut"),
        }
        cut.cancel();
        serving.await
    }
}

/// Every limit in so many words: the defaults are unlimited, or made for bigger messages. There is no maximal age of a
/// connection, because it ends streams without a GOAWAY; watch streams have their own.
fn transport() -> transport::Server {
    transport::Server::builder()
        .max_concurrent_streams(MOST_STREAMS)
        .http2_max_header_list_size(LONGEST_HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(MOST_RESET_STREAMS))
        .http2_max_local_error_reset_streams(Some(MOST_ERROR_RESETS))
}

/// Both versions: many installed clients know only the older one. The error details are described too: clients that
/// live by reflection could show them as bytes only.
fn with_reflection(routes: Routes) -> Routes {
    let described = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let embedded = "the embedded descriptor sets are complete";
    routes
        .add_service(described().build_v1().expect(embedded).max_decoding_message_size(LONGEST_MESSAGE))
        .add_service(described().build_v1alpha().expect(embedded).max_decoding_message_size(LONGEST_MESSAGE))
}
