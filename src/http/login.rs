//! `/login/callback`: the issuer's answer to a sign-in.

use axum::{
    Extension,
    extract::{RawQuery, State},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    connect::page_of,
    cookies::{Cookies, Kind, SetCookie},
    refusal::Refusal,
};
use crate::{
    broker::{Broker, BrokerError, VisitRefused},
    domain::Visit,
};

pub(super) async fn callback(
    State(broker): State<Broker>,
    Extension(visit): Extension<Visit>,
    RawQuery(query): RawQuery,
    Cookies(cookies): Cookies,
) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    match broker.complete_sign_in(&visit, query.as_bytes(), &cookies).await {
        Ok(signed_in) => {
            let cookie = SetCookie::of(&broker, Kind::Session, signed_in.flow, &signed_in.cookie);
            Ok((cookie, Redirect::to(&page_of(signed_in.flow))).into_response())
        }
        // To an address without the code.
        Err(VisitRefused { error: BrokerError::OtherUser, flow: Some(flow) }) => {
            let away = SetCookie::gone(&broker, Kind::Session, flow);
            Ok((away, Redirect::to(&format!("{}/wrong-user", page_of(flow)))).into_response())
        }
        Err(refused) => Err(refused.into()),
    }
}
