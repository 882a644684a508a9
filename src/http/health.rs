//! `/healthz`: the process lives. `/readyz`: calls can be answered.

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::Response,
    routing::get,
};

use crate::broker::Broker;

/// Nothing here is to be kept, framed, sniffed or run.
const SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

pub(super) fn routes(broker: Broker) -> Router {
    Router::new()
        .route("/healthz", get("ok\n"))
        .route("/readyz", get(readyz))
        .with_state(broker)
        .layer(map_response(secured))
}

async fn readyz(State(broker): State<Broker>) -> (StatusCode, &'static str) {
    match broker.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn secured(mut response: Response) -> Response {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}
