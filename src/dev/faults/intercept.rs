//! Stands before every endpoint: counts, holds, and lets armed faults happen.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, future, stream};
use http::{
    StatusCode,
    header::{CONTENT_LENGTH, HeaderValue, LOCATION, RETRY_AFTER},
};
use serde_json::{Map, Value};
use tokio::task;
use url::Url;

use super::{Fault, HoldPoint, RetryAfter};
use crate::{
    dev::{
        Endpoint,
        connection::Cut,
        journal::{GrantType, TokenOutcome},
        parameters::Parameters,
        site::{MAX_BODY, Site},
    },
    domain::Timestamp,
};

/// A request runs to its end even when its client gives up: that is what makes an answer lost rather than unmade.
pub(in crate::dev) async fn intercept(
    State((site, endpoint)): State<(Site, Endpoint)>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    let running = task::spawn(async move { run(&site, endpoint, &cut, request, next).await });
    running.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

async fn run(site: &Site, endpoint: Endpoint, cut: &Cut, request: Request, next: Next) -> Response {
    site.shared.journal.count_request(endpoint);
    let (mut request, grant_type) = match token_request(site, endpoint, request).await {
        Ok(read) => read,
        Err(status) => return status.into_response(),
    };
    wait(site, endpoint, grant_type, HoldPoint::Request).await;
    let fault = site.shared.faults.take(endpoint, grant_type, || site.shared.random.percent());
    pass_time(site, fault.as_deref(), HoldPoint::Request).await;
    if let Some(Fault::Answer(_) | Fault::Busy { .. } | Fault::Drop) = fault.as_deref()
        && let Some(grant_type) = grant_type
    {
        site.shared.journal.note_token_request(grant_type, site.now(), TokenOutcome::Fault);
    }
    let response = match fault.as_deref() {
        Some(Fault::Answer(answer)) => answer.into_response(),
        Some(Fault::Busy { status, retry_after }) => busy(*status, *retry_after, site.now()),
        Some(Fault::Drop) => cut_off(cut),
        _ => {
            if let Some(fault) = &fault {
                request.extensions_mut().insert(fault.clone());
            }
            spoil(site, next.run(request).await, fault.as_deref(), cut).await
        }
    };
    wait(site, endpoint, grant_type, HoldPoint::Answer).await;
    pass_time(site, fault.as_deref(), HoldPoint::Answer).await;
    response
}

/// Reads the body of a token request, so that it is counted by grant type whatever becomes of it.
async fn token_request(
    site: &Site,
    endpoint: Endpoint,
    request: Request,
) -> Result<(Request, Option<GrantType>), StatusCode> {
    if !matches!(endpoint, Endpoint::Token | Endpoint::PlatformToken) {
        return Ok((request, None));
    }
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BODY).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    let grant_type = GrantType::of(&Parameters::parse(&bytes));
    site.shared.journal.count_token_request(grant_type);
    Ok((Request::from_parts(parts, Body::from(bytes)), Some(grant_type)))
}

async fn wait(site: &Site, endpoint: Endpoint, grant_type: Option<GrantType>, point: HoldPoint) {
    // What is held is work that can be lost halfway; nothing comes of a probe.
    if grant_type == Some(GrantType::Probe) {
        return;
    }
    for gate in site.shared.faults.gates(endpoint, grant_type, point) {
        gate.pass().await;
    }
}

async fn pass_time(site: &Site, fault: Option<&Fault>, at: HoldPoint) {
    if let Some(Fault::Slow { seconds, point }) = fault
        && *point == at
    {
        site.shared.clock.sleep_until(site.now().plus(Duration::from_secs(*seconds))).await;
    }
}

/// What a fault does to an answer after the request took effect.
async fn spoil(site: &Site, response: Response, fault: Option<&Fault>, cut: &Cut) -> Response {
    match fault {
        Some(Fault::CommitThenAnswer(answer)) => answer.into_response(),
        Some(Fault::CommitThenDrop) => cut_off(cut),
        Some(Fault::CommitThenTruncate) => truncated(response).await,
        Some(Fault::Edit { set, remove }) => {
            edited(response, |answer| {
                remove.iter().for_each(|name| drop(answer.remove(name)));
                answer.extend(set.clone());
            })
            .await
        }
        Some(Fault::Expiry(expiry)) => {
            let (lifetime, now) = (site.shared.settings.get().access_token_lifetime, site.now());
            edited(response, |answer| expiry.write(answer, lifetime, now)).await
        }
        Some(Fault::EditRedirect { set, remove }) => redirected(response, set, remove),
        _ => response,
    }
}

fn busy(status: StatusCode, retry_after: RetryAfter, now: Timestamp) -> Response {
    let after = match retry_after {
        RetryAfter::Absent => return status.into_response(),
        RetryAfter::Seconds(seconds) => seconds.to_string(),
        RetryAfter::Date(seconds) => {
            let at = now.plus(Duration::from_secs(seconds)).since(Timestamp::EPOCH);
            httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + at)
        }
    };
    (status, [(RETRY_AFTER, after)]).into_response()
}

fn cut_off(cut: &Cut) -> Response {
    cut.now();
    StatusCode::NO_CONTENT.into_response()
}

/// Announces the whole body, sends half of it, and breaks off.
async fn truncated(response: Response) -> Response {
    let (mut parts, bytes) = whole(response).await;
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let broken = stream::once(future::ready(Ok::<_, io::Error>(half))).chain(stream::once(async {
        // The first half has to reach the socket before the connection breaks.
        task::yield_now().await;
        Err(io::ErrorKind::ConnectionAborted.into())
    }));
    Response::from_parts(parts, Body::from_stream(broken))
}

/// Leaves an answer alone that is not a JSON object.
async fn edited(response: Response, edit: impl FnOnce(&mut Map<String, Value>)) -> Response {
    let (mut parts, bytes) = whole(response).await;
    let Ok(mut members) = serde_json::from_slice::<Map<String, Value>>(&bytes) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    edit(&mut members);
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Value::Object(members).to_string()))
}

/// Leaves an answer alone that is not a redirect to an absolute URL.
fn redirected(mut response: Response, set: &BTreeMap<String, String>, remove: &[String]) -> Response {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(mut url) = location.and_then(|text| Url::parse(text).ok()) else { return response };
    let stays = |name: &str| !set.contains_key(name) && !remove.iter().any(|removed| removed == name);
    let kept: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| stays(name)).collect();
    url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(set);
    if let Ok(location) = HeaderValue::try_from(url.as_str()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn whole(response: Response) -> (http::response::Parts, Bytes) {
    let (parts, body) = response.into_parts();
    (parts, to_bytes(body, usize::MAX).await.unwrap_or_default())
}
