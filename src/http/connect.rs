//! `/connect/{flow}`: what the flow is, and the owner's answer.

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use url::form_urlencoded;

use super::{
    cookies::{Cookies, Kind, SetCookie},
    pages,
    refusal::Refusal,
};
use crate::{
    broker::{Broker, BrokerError, ConnectPage, FormProof, SignInBegun},
    domain::{FlowId, Visit},
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn show(
    State(broker): State<Broker>,
    Path(flow): Path<String>,
    Cookies(cookies): Cookies,
) -> Result<Response, Refusal> {
    let flow = named(&flow)?;
    match broker.connect_page(flow, &cookies).await? {
        ConnectPage::SignIn => sign_in(&broker, flow, false).await,
        ConnectPage::Consent(request) => Ok(pages::consent(flow, &request).into_response()),
        ConnectPage::Settling => Ok(pages::settling(flow).into_response()),
        ConnectPage::Ended(ended) => Ok(pages::ended(&ended).into_response()),
    }
}

/// For whoever signed in as somebody else before.
pub(super) async fn sign_in_as_other(
    State(broker): State<Broker>,
    Path(flow): Path<String>,
) -> Result<Response, Refusal> {
    sign_in(&broker, named(&flow)?, true).await
}

async fn sign_in(broker: &Broker, flow: FlowId, as_other: bool) -> Result<Response, Refusal> {
    let begun = broker.begin_sign_in(flow, as_other).await;
    let SignInBegun { url, cookie } = begun.map_err(|error| Refusal::at(error, flow))?;
    Ok((SetCookie::of(broker, Kind::Session, flow, &cookie), Redirect::to(url.as_str())).into_response())
}

/// Where a refused sign-in ends: an address without its code, that shows nothing of the flow.
pub(super) async fn wrong_user(Path(flow): Path<String>) -> Refusal {
    match named(&flow) {
        Ok(flow) => Refusal::at(BrokerError::OtherUser, flow),
        Err(refusal) => refusal,
    }
}

/// Takes the consent form.
pub(super) async fn decide(
    State(broker): State<Broker>,
    Extension(visit): Extension<Visit>,
    Path(flow): Path<String>,
    Cookies(cookies): Cookies,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let flow = named(&flow)?;
    let refused = |error| Refusal::at(error, flow);
    let form = Form::read(&body.map_err(|_| malformed())?).ok_or_else(malformed)?;
    let proof = FormProof { unverified_token: form.token, from_our_page: from_our_page(&broker, &headers) };
    if !form.agreed {
        broker.decline(&visit, flow, &cookies, &proof).await.map_err(refused)?;
        return Ok(Redirect::to(&page_of(flow)).into_response());
    }
    let sent = broker.consent(&visit, flow, &cookies, &proof).await.map_err(refused)?;
    let cookie = SetCookie::of(&broker, Kind::Flow, flow, &sent.cookie);
    Ok((StatusCode::OK, cookie, pages::leaving(&sent)).into_response())
}

/// The flow's page, without a query.
pub(super) fn page_of(flow: FlowId) -> String {
    format!("/connect/{flow}")
}

fn named(unverified: &str) -> Result<FlowId, Refusal> {
    unverified.parse().map_err(|_| Refusal::of(BrokerError::FlowNotFound))
}

fn malformed() -> Refusal {
    Refusal::of(BrokerError::Invalid { field: "form", problem: "is malformed" })
}

struct Form {
    token: String,
    agreed: bool,
}

impl Form {
    /// Exactly what our page sends: each field once.
    fn read(unverified: &[u8]) -> Option<Self> {
        let (mut token, mut decision) = (None, None);
        for (name, value) in form_urlencoded::parse(unverified) {
            let place = match &*name {
                "token" => &mut token,
                "decision" => &mut decision,
                _ => return None,
            };
            if place.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        let agreed = match decision?.as_str() {
            "approve" => true,
            "deny" => false,
            _ => return None,
        };
        Some(Self { token: token?, agreed })
    }
}

/// What the browser says about who sent the form. Under our referrer policy a form's `Origin` is `null`, even from our own
/// page (Fetch, "append a request `Origin` header"), so that says nothing. Silence is no proof either way: the token is.
fn from_our_page(broker: &Broker, headers: &HeaderMap) -> bool {
    let all_are =
        |name, allowed: &dyn Fn(&[u8]) -> bool| headers.get_all(name).iter().all(|value| allowed(value.as_bytes()));
    let own = broker.public_url().map(crate::domain::PublicUrl::origin).unwrap_or_default();
    all_are(SEC_FETCH_SITE, &|site| site == b"same-origin")
        && all_are(header::ORIGIN, &|origin| origin == b"null" || origin == own.as_bytes())
}
