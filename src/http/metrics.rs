//! `/metrics`: what Prometheus is told.

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};

use crate::{broker::Broker, metrics::MEDIA_TYPE};

pub(super) fn routes(broker: Broker) -> Router {
    Router::new().route("/metrics", get(text)).with_state(broker)
}

async fn text(State(broker): State<Broker>) -> impl IntoResponse {
    ([(CONTENT_TYPE, MEDIA_TYPE)], broker.metrics_text())
}
