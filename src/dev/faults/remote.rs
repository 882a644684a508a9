//! Faults over HTTP, for tests in other processes and other languages:
//!
//! - `POST /dev/faults` `{"endpoint": "token", "count": 1, "fault": "commit_then_drop"}` · `DELETE /dev/faults`
//! - `POST /dev/holds` `{"endpoint": "token", "point": "request"}` · `GET /dev/holds` (arrivals) · `DELETE /dev/holds`
//! - `GET /dev/stats`
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

use super::{Fault, Faults, Hold, HoldPoint};
use crate::dev::{Endpoint, journal::Journal};

#[derive(Clone)]
struct Remote {
    faults: Faults,
    journal: Journal,
    holds: Arc<Mutex<Vec<Hold>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArmRequest {
    endpoint: Endpoint,
    #[serde(default = "once")]
    count: u32,
    fault: Fault,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldRequest {
    endpoint: Endpoint,
    point: HoldPoint,
}

pub(in crate::dev) fn routes(faults: Faults, journal: Journal) -> Router {
    Router::new()
        .route("/dev/faults", post(arm).delete(disarm))
        .route("/dev/holds", post(hold).get(arrivals).delete(release))
        .route("/dev/stats", get(stats))
        .with_state(Remote { faults, journal, holds: Arc::default() })
}

async fn arm(State(remote): State<Remote>, Json(request): Json<ArmRequest>) -> StatusCode {
    remote.faults.arm(request.endpoint, request.fault, request.count);
    StatusCode::NO_CONTENT
}

async fn disarm(State(remote): State<Remote>) -> StatusCode {
    remote.faults.clear();
    StatusCode::NO_CONTENT
}

async fn hold(State(remote): State<Remote>, Json(request): Json<HoldRequest>) -> StatusCode {
    let hold = remote.faults.hold(request.endpoint, request.point);
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
    let stats = remote.journal.stats();
    Json(json!({ "requests": stats.requests, "token_requests": stats.token_requests }))
}

fn once() -> u32 {
    1
}
