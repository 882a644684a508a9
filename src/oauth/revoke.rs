//! Taking access away at the provider: RFC 7009, or the definition's own call.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use url::{
    Url,
    form_urlencoded::{Serializer, byte_serialize},
};
use zeroize::Zeroizing;

use super::{
    classify::{Asked, classify},
    credentials,
    json::Document,
    retry_after::retry_after,
};
use crate::{
    domain::{AccessToken, Clock, Definition, Provider, RefreshToken, RemoteRevocation, ReplyClass},
    outbound::{Outbound, OutboundError, Reply, Request},
};

/// The provider has not answered the question; the tokens must be taken to be valid still (RFC 7009 §2.2.1). Ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationFailure {
    #[error("the provider could not be asked to revoke")]
    Unreachable(#[from] OutboundError),
    #[error("the revocation endpoint is not known now")]
    Undiscovered,
    /// Overloaded, in trouble, or not the provider at all (a firewall's page, a redirect).
    #[error("the revocation was answered with {status}")]
    NoVerdict { status: u16, retry_after: Option<Duration> },
}

impl RevocationFailure {
    /// How long the provider asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NoVerdict { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Undiscovered => None,
        }
    }
}

/// What the provider said of one token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Gone,
    /// `unsupported_token_type` (RFC 7009 §2.2.1).
    NotThisKind,
    Refused,
}

/// RFC 7009 §2.1. The refresh token goes first: with it usually falls the whole grant, and were the access token first,
/// a failure between the two would leave the stronger one.
pub(super) async fn rfc7009(
    outbound: &Outbound,
    clock: &dyn Clock,
    provider: &Provider,
    endpoint: &Url,
    access: Option<&AccessToken>,
    refresh: Option<&RefreshToken>,
) -> Result<RemoteRevocation, RevocationFailure> {
    let mut verdicts = Vec::new();
    let tokens =
        [refresh.map(|token| (token.expose(), "refresh_token")), access.map(|token| (token.expose(), "access_token"))];
    for (token, hint) in tokens.into_iter().flatten() {
        let reply = outbound.send(form(provider, endpoint, token, hint)).await?;
        verdicts.push(judge(&reply, clock)?);
    }
    // Of what was not refused, the first token decides: a refresh token that stays makes new access tokens.
    Ok(match verdicts.first() {
        _ if verdicts.contains(&Verdict::Refused) => RemoteRevocation::Failed,
        None | Some(Verdict::Gone) => RemoteRevocation::Confirmed,
        Some(_) => RemoteRevocation::Unsupported,
    })
}

/// Slack's way. `is_all`: there is no refresh token, so that nothing is left once the access token has gone. With one,
/// nothing tells whether it fell too, and what nobody knows is not confirmed.
pub(super) async fn access_token(
    outbound: &Outbound,
    clock: &dyn Clock,
    definition: &Definition,
    endpoint: &Url,
    gone: &[String],
    access: &AccessToken,
    is_all: bool,
) -> Result<RemoteRevocation, RevocationFailure> {
    let Some(bearer) = credentials::bearer(access) else { return Ok(RemoteRevocation::Failed) };
    let request = Request::post_form(endpoint.clone(), Zeroizing::new(Vec::new())).accept_json().at_most(LARGEST);
    let reply = outbound.send(request.authorization(bearer)).await?;
    let document = Document::parse(&reply.body).ok_or_else(|| no_verdict(&reply, clock))?;
    let is_gone = document.at("/ok") == Some(&Value::Bool(true))
        || document.text("/error").is_some_and(|error| gone.iter().any(|listed| listed == error));
    if reply.status.is_success() && is_gone {
        return Ok(if is_all { RemoteRevocation::Confirmed } else { RemoteRevocation::Unsupported });
    }
    let refresh = Asked::Refresh { narrowed: false, excused: 0 };
    match classify(definition, refresh, reply.status.as_u16(), Some(&document), None).class {
        ReplyClass::Terminal | ReplyClass::Reauthorize | ReplyClass::Configuration => Ok(RemoteRevocation::Failed),
        ReplyClass::Transient | ReplyClass::RateLimited | ReplyClass::Ambiguous | ReplyClass::Unknown => {
            Err(no_verdict(&reply, clock))
        }
    }
}

/// GitHub's way.
pub(super) async fn delete_json(
    outbound: &Outbound,
    clock: &dyn Clock,
    provider: &Provider,
    endpoint: &Url,
    access: Option<&AccessToken>,
) -> Result<RemoteRevocation, RevocationFailure> {
    let Some(access) = access else { return Ok(RemoteRevocation::Confirmed) };
    let client_id = byte_serialize(provider.client_id.as_bytes()).collect::<String>().replace('+', "%20");
    // What an endpoint's `{client_id}` has become on its way through `Url`.
    let url = Url::parse(&endpoint.as_str().replace("%7Bclient_id%7D", &client_id));
    let (Ok(url), Some(secret)) = (url, credentials::secret(provider)) else { return Ok(RemoteRevocation::Failed) };
    let token = Zeroizing::new(Value::from(access.expose()).to_string());
    let body = Zeroizing::new(format!(r#"{{"access_token":{}}}"#, token.as_str()).into_bytes());
    let mut request = Request::get(url).accept_json().at_most(LARGEST);
    request.method = Method::DELETE;
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.body = Some(body);
    let reply = outbound.send(request.authorization(credentials::basic(provider, secret))).await?;
    // A refusal counts only in JSON: a firewall's page says the same of everything. 403 is not among them: GitHub's
    // rate limit answers so.
    match (reply.status, Document::parse(&reply.body)) {
        (status, _) if status.is_success() => Ok(RemoteRevocation::Confirmed),
        // It does not know the token (any more).
        (StatusCode::NOT_FOUND, Some(_)) => Ok(RemoteRevocation::Confirmed),
        (StatusCode::UNAUTHORIZED | StatusCode::UNPROCESSABLE_ENTITY, Some(_)) => Ok(RemoteRevocation::Failed),
        _ => Err(no_verdict(&reply, clock)),
    }
}

fn form(provider: &Provider, endpoint: &Url, token: &str, hint: &str) -> Request {
    let mut form = Serializer::new(String::with_capacity(3 * token.len() + FORM_FRAME));
    form.append_pair("token", token).append_pair("token_type_hint", hint);
    credentials::signed_form(provider, endpoint, form).at_most(LARGEST)
}

/// RFC 7009 §2.2: success also says that the token was unknown. The body of a success is not looked at.
fn judge(reply: &Reply, clock: &dyn Clock) -> Result<Verdict, RevocationFailure> {
    let document = Document::parse(&reply.body);
    match reply.status.as_u16() {
        200..=299 => Ok(Verdict::Gone),
        408 | 425 | 429 => Err(no_verdict(reply, clock)),
        400..=499 => match document.as_ref().and_then(|document| document.text("/error")) {
            Some("unsupported_token_type") => Ok(Verdict::NotThisKind),
            // Against the RFC, some servers answer so for a token that is dead already: the purpose is fulfilled.
            Some("invalid_token" | "invalid_grant") => Ok(Verdict::Gone),
            Some("temporarily_unavailable" | "server_error" | "slow_down") | None => Err(no_verdict(reply, clock)),
            Some(_) => Ok(Verdict::Refused),
        },
        _ => Err(no_verdict(reply, clock)),
    }
}

fn no_verdict(reply: &Reply, clock: &dyn Clock) -> RevocationFailure {
    let retry_after = retry_after(&reply.headers, clock.now());
    RevocationFailure::NoVerdict { status: reply.status.as_u16(), retry_after }
}

const LARGEST: usize = 64 * 1024;
/// Bytes of a form beside its token.
const FORM_FRAME: usize = 1024;
