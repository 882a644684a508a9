//! The HTTP edge: our pages for browsers, and health for orchestrators and load balancers. It parses, calls one use case
//! and shows what came of it.
//!
//! - [`connect`]: the page of a flow, and its form · [`login`]: the sign-in's way back · [`callback`]: the provider's
//! - [`pages`]: what people see · [`refusal`]: what they see when it does not go on
//! - [`cookies`], [`headers`], [`visit`]: what comes and goes with every page · [`health`], [`metrics`]: for machines ·
//!   [`server`]: limits, shutdown

mod callback;
mod connect;
mod cookies;
mod headers;
mod health;
mod login;
mod metrics;
mod pages;
mod refusal;
mod server;
mod visit;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn_with_state, map_response},
    response::Response,
    routing::{MethodRouter, get, post},
};
use http::StatusCode;

pub use server::serve;

use crate::broker::{Broker, LOGIN_CALLBACK, OAUTH_CALLBACK};

/// Bytes of a posted form: an authorization response is the longest.
const LONGEST_FORM: usize = 16 * 1024;

/// What monitoring may ask for, for a listener of its own or beside the pages.
pub fn metrics_router(broker: Broker) -> Router {
    metrics::routes(broker).layer(map_response(headers::secured))
}

/// Everything that the second listener serves.
pub fn router(broker: Broker) -> Router {
    let pages = Router::new()
        .route("/connect/{flow}", get(connect::show).post(connect::decide))
        .route("/connect/{flow}/sign-in", get(connect::sign_in_as_other))
        .route("/connect/{flow}/wrong-user", get(connect::wrong_user))
        .route(LOGIN_CALLBACK, once(get(login::callback)))
        .route(OAUTH_CALLBACK, once(get(callback::answered).merge(post(callback::posted))))
        .route(callback::CONTINUE, once(get(callback::continued)))
        .route(pages::STYLE_SHEET, get(pages::style_sheet))
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(DefaultBodyLimit::max(LONGEST_FORM))
        .layer(from_fn_with_state(broker.clone(), visit::name))
        .with_state(broker.clone());
    health::routes(broker).merge(pages).layer(map_response(headers::secured))
}

/// `HEAD` runs what `GET` does, and a code can be spent but once.
fn once(method: MethodRouter<Broker>) -> MethodRouter<Broker> {
    method.head(no_head)
}

async fn no_head() -> (StatusCode, Response) {
    (StatusCode::METHOD_NOT_ALLOWED, Response::default())
}
