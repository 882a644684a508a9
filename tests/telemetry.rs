//! Traces reach a collector, the last ones too.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use claviger::telemetry::{LogFormat, Telemetry};
use http_body_util::{BodyExt as _, Full};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{service::Routes, transport::Server};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_traced_before_the_end_is_exported() {
    let (endpoint, mut exports) = collector().await;
    let telemetry = Telemetry { format: LogFormat::Text, filter: "info", otlp_endpoint: Some(&endpoint) };
    let guard = telemetry.start().unwrap();

    tracing::info_span!("weigh_anchor", ship.name = "Argo").in_scope(|| {});
    tokio::task::spawn_blocking(move || drop(guard)).await.unwrap();

    let (path, export) = exports.try_recv().expect("dropping the guard exports");
    assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    for sent in ["weigh_anchor", "ship.name", "Argo", "service.name", "claviger"] {
        assert!(export.windows(sent.len()).any(|window| window == sent.as_bytes()), "{sent} was not exported");
    }
}

type Export = (String, Bytes);

async fn collector() -> (String, mpsc::UnboundedReceiver<Export>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let routes = Routes::from(Router::new().fallback(accept).with_state(sender));
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, receiver)
}

/// Answers every call with an empty message.
async fn accept(State(exports): State<mpsc::UnboundedSender<Export>>, uri: Uri, body: Bytes) -> Response {
    exports.send((uri.path().to_owned(), body)).expect("the test is listening");
    let trailers = async {
        Some(Ok(HeaderMap::from_iter([("grpc-status".parse().expect("legal"), "0".parse().expect("legal"))])))
    };
    let empty_message = Full::new(Bytes::from_static(&[0; 5])).with_trailers(trailers);
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(empty_message))
        .expect("the header is legal")
}
