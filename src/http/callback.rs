//! `/oauth/callback`: the provider's answer, in the query or posted.

use axum::{
    Extension,
    body::Bytes,
    extract::{RawQuery, State, rejection::BytesRejection},
    response::{IntoResponse, Redirect, Response},
};
use url::form_urlencoded;

use super::{
    connect::page_of,
    cookies::{Cookies, Kind, SetCookie},
    refusal::Refusal,
};
use crate::{
    broker::{Broker, BrokerError},
    domain::{FlowId, FlowSecret, Visit},
};

/// Where a posted answer is gone on with, by a request that carries cookies.
pub(super) const CONTINUE: &str = "/oauth/callback/continue";

pub(super) async fn answered(
    State(broker): State<Broker>,
    Extension(visit): Extension<Visit>,
    RawQuery(query): RawQuery,
    Cookies(cookies): Cookies,
) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let flow = broker.answer_authorization(&visit, query.as_bytes(), &cookies).await?;
    Ok(taken(&broker, flow))
}

pub(super) async fn posted(
    State(broker): State<Broker>,
    Extension(visit): Extension<Visit>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|_| malformed())?;
    let state = broker.park_answer(&visit, &body).await?;
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("state", state.expose()).finish();
    Ok(Redirect::to(&format!("{CONTINUE}?{query}")).into_response())
}

pub(super) async fn continued(
    State(broker): State<Broker>,
    Extension(visit): Extension<Visit>,
    RawQuery(query): RawQuery,
    Cookies(cookies): Cookies,
) -> Result<Response, Refusal> {
    let state = only_state(&query.unwrap_or_default()).ok_or_else(malformed)?;
    let flow = broker.continue_authorization(&visit, state, &cookies).await?;
    Ok(taken(&broker, flow))
}

/// On to the flow's page, whose address holds no code and no state.
fn taken(broker: &Broker, flow: FlowId) -> Response {
    (SetCookie::gone(broker, Kind::Flow, flow), Redirect::to(&page_of(flow))).into_response()
}

fn only_state(unverified_query: &str) -> Option<FlowSecret> {
    let mut pairs = form_urlencoded::parse(unverified_query.as_bytes());
    match (pairs.next()?, pairs.next()) {
        ((name, value), None) if name == "state" => Some(FlowSecret::new(value.into_owned())),
        _ => None,
    }
}

fn malformed() -> Refusal {
    Refusal::of(BrokerError::Invalid { field: "response", problem: "is malformed" })
}
