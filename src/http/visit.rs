//! Who sends a request, as far as it shows.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::refusal::Refusal;
use crate::broker::Broker;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_USER_AGENT: usize = 256;

/// Puts a [`crate::domain::Visit`] beside each request; its id is on the answer, so that a person can name it.
pub(super) async fn name(State(broker): State<Broker>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let visit = match broker.visit(peer, user_agent(request.headers())) {
        Ok(visit) => visit,
        Err(error) => return Refusal::of(error).into_response(),
    };
    let id = HeaderValue::from_str(visit.request_id.as_str()).expect("visible characters make a header value");
    request.extensions_mut().insert(visit);
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// For the audit trail: what is visible of it, cut to a bounded length.
fn user_agent(headers: &HeaderMap) -> Option<String> {
    let unverified = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(unverified.chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect())
}
