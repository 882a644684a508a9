//! Faults over HTTP, for tests in other processes and other languages:
//!
//! - `POST /dev/faults` `{"fault": "commit_then_drop", "count": 1}` · `GET /dev/faults` (how many are armed) ·
//!   `DELETE /dev/faults`
//! - `POST /dev/holds` `{"endpoint": "token", "point": "request"}` · `GET /dev/holds` (arrivals) · `DELETE /dev/holds`
//! - `GET /dev/stats` · `GET /dev/settings` · `PATCH /dev/settings` `{"rotation": "reuse"}`
//!
//! A web page cannot reach them: a JSON body and `DELETE` need a CORS permission that is never given, and the server
//! answers to no name but its own.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Arm, Hold, HoldPoint};
use crate::dev::{Endpoint, GrantType, Settings, settings::SettingsChange, site::Shared};

#[derive(Clone)]
struct Remote {
    shared: Arc<Shared>,
    holds: Arc<Mutex<Vec<Hold>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldRequest {
    #[serde(default = "token")]
    endpoint: Endpoint,
    #[serde(default)]
    grant_type: Option<GrantType>,
    point: HoldPoint,
}

pub(in crate::dev) fn routes(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/dev/faults", post(arm).get(armed).delete(disarm))
        .route("/dev/holds", post(hold).get(arrivals).delete(release))
        .route("/dev/stats", get(stats))
        .route("/dev/settings", get(settings).patch(change_settings))
        .with_state(Remote { shared: shared.clone(), holds: Arc::default() })
}

async fn arm(State(remote): State<Remote>, Json(request): Json<Arm>) -> StatusCode {
    remote.shared.faults.add(request);
    StatusCode::NO_CONTENT
}

async fn armed(State(remote): State<Remote>) -> Json<Value> {
    Json(json!({ "armed": remote.shared.faults.armed() }))
}

async fn disarm(State(remote): State<Remote>) -> StatusCode {
    remote.shared.faults.clear();
    StatusCode::NO_CONTENT
}

async fn hold(State(remote): State<Remote>, Json(request): Json<HoldRequest>) -> StatusCode {
    let hold = remote.shared.faults.hold_if(request.endpoint, request.grant_type, request.point);
    remote.holds.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
    StatusCode::NO_CONTENT
}

async fn arrivals(State(remote): State<Remote>) -> Json<Vec<usize>> {
    Json(remote.holds.lock().unwrap_or_else(PoisonError::into_inner).iter().map(Hold::arrivals).collect())
}

async fn release(State(remote): State<Remote>) -> StatusCode {
    remote.holds.lock().unwrap_or_else(PoisonError::into_inner).clear();
    StatusCode::NO_CONTENT
}

async fn stats(State(remote): State<Remote>) -> Json<Value> {
    let stats = remote.shared.journal.stats();
    Json(json!({ "requests": stats.requests, "token_requests": stats.token_requests }))
}

async fn settings(State(remote): State<Remote>) -> Json<Settings> {
    Json(remote.shared.settings.get())
}

async fn change_settings(State(remote): State<Remote>, Json(change): Json<SettingsChange>) -> Json<Settings> {
    remote.shared.settings.set(change.of(remote.shared.settings.get()));
    settings(State(remote)).await
}

fn token() -> Endpoint {
    Endpoint::Token
}
