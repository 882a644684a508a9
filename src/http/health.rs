//! `/healthz`: the process lives. `/readyz`: calls can be answered.

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::broker::Broker;

pub(super) fn routes(broker: Broker) -> Router {
    Router::new().route("/healthz", get("ok\n")).route("/readyz", get(readyz)).with_state(broker)
}

async fn readyz(State(broker): State<Broker>) -> (StatusCode, &'static str) {
    match broker.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}
