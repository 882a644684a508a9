//! Who listens: streams over real sockets, a hundred on each connection.

use std::{net::SocketAddr, time::Duration};

use claviger::proto::v1::{
    self, token_broker_service_client::TokenBrokerServiceClient, watch_credential_status_request::Start,
    watch_credential_status_response::Body,
};
use futures_util::stream::{self, StreamExt as _};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinSet,
    time::timeout,
};
use tonic::{
    Request, Streaming,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

use super::node::now;

/// Less than the broker lets one connection have.
pub(super) const ON_ONE_CONNECTION: usize = 100;
/// Streams that are being opened at the same time.
const OPENING: usize = 64;
/// For whatever must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What reads the streams that it opened, until it is dropped.
pub(super) struct Watchers {
    reading: JoinSet<()>,
    heard: UnboundedReceiver<u64>,
    hear: UnboundedSender<u64>,
    /// Kept, and never read.
    stalled: Vec<Streaming<v1::WatchCredentialStatusResponse>>,
}

impl Watchers {
    pub(super) fn none() -> Self {
        let (hear, heard) = mpsc::unbounded_channel();
        Self { reading: JoinSet::new(), heard, hear, stalled: Vec::new() }
    }

    /// Opens as many streams as there are bearers, each by its own.
    pub(super) async fn open(&mut self, address: SocketAddr, bearers: Vec<AsciiMetadataValue>) {
        for mut stream in opened(address, bearers, 64 * 1024).await {
            let hear = self.hear.clone();
            self.reading.spawn(async move {
                while let Some(message) = stream.message().await.unwrap() {
                    for event in events(message) {
                        let at = event.status.unwrap().generation;
                        if hear.send(now().saturating_sub(at)).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    }

    /// Streams that nobody reads any more, and that take so little that this is felt soon.
    pub(super) async fn open_stalled(&mut self, address: SocketAddr, bearers: Vec<AsciiMetadataValue>) {
        self.stalled.extend(opened(address, bearers, 1024).await);
    }

    /// How many microseconds after it began each of so many events was received.
    pub(super) async fn hear(&mut self, events: usize) -> Vec<f64> {
        let mut took = Vec::with_capacity(events);
        for _ in 0..events {
            let heard = timeout(PATIENCE, self.heard.recv()).await;
            took.push(heard.unwrap_or_else(|_| panic!("{} of {events} were heard", took.len())).unwrap() as f64);
        }
        took
    }

    pub(super) async fn close(mut self) {
        self.reading.shutdown().await;
    }
}

async fn opened(
    address: SocketAddr,
    bearers: Vec<AsciiMetadataValue>,
    window: u32,
) -> Vec<Streaming<v1::WatchCredentialStatusResponse>> {
    let mut streams = Vec::with_capacity(bearers.len());
    for together in bearers.chunks(ON_ONE_CONNECTION) {
        let client = TokenBrokerServiceClient::new(channel(address, window).await);
        let opening = together.iter().map(|bearer| open(client.clone(), bearer.clone()));
        streams.extend(stream::iter(opening).buffer_unordered(OPENING).collect::<Vec<_>>().await);
    }
    streams
}

/// With the windows that `docs/watch.md` asks for.
pub(super) async fn channel(address: SocketAddr, window: u32) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.initial_stream_window_size(window).initial_connection_window_size(8 << 20).connect().await.unwrap()
}

async fn open(
    mut client: TokenBrokerServiceClient<Channel>,
    bearer: AsciiMetadataValue,
) -> Streaming<v1::WatchCredentialStatusResponse> {
    let start = Some(Start::Now(true));
    let mut request = Request::new(v1::WatchCredentialStatusRequest { start, ..Default::default() });
    request.metadata_mut().insert("authorization", bearer);
    let mut stream = client.watch_credential_status(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(matches!(first.body, Some(Body::Opened(_))));
    stream
}

fn events(message: v1::WatchCredentialStatusResponse) -> Vec<v1::CredentialEvent> {
    match message.body {
        Some(Body::Batch(batch)) => batch.events,
        _ => Vec::new(),
    }
}
