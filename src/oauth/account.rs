//! Whose account it is: the provider's stable id, from the ID token or by asking an API.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::{credentials, json::Document};
use crate::{
    domain::{AccessToken, Definition, IdToken, Nonce, Timestamp},
    outbound::{Outbound, OutboundError, Reply, Request},
};

/// Why the account is not known. The tokens themselves are as good as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("the provider sent no ID token")]
    IdTokenMissing,
    /// The definition names a claim of the ID token, but no issuer that the token must be from.
    #[error("no issuer is known to hold the ID token against")]
    IssuerUnknown,
    /// Neither pinned nor discovered just now.
    #[error("the userinfo endpoint is not known")]
    UserinfoUnknown,
    #[error("the ID token is not readable")]
    IdTokenUnreadable,
    /// OpenID Connect Core §3.1.3.7: the claim that is not as it must be.
    #[error("the ID token's `{claim}` is not as expected")]
    IdTokenRefused { claim: &'static str },
    #[error("the account could not be asked for")]
    Unreachable(#[from] OutboundError),
    #[error("asking for the account was answered with {status}")]
    ProbeRefused { status: u16 },
    /// Neither a text of 1 to 255 visible characters nor a whole number; or a part of several with a `/` in it.
    #[error("there is no account id where the definition says")]
    IdMissing,
}

/// What an ID token is held against.
pub(super) struct Expected<'a> {
    pub(super) definition: &'a Definition,
    pub(super) client_id: &'a str,
    /// `None`: the broker sent none (a flow that the caller ran, a refresh).
    pub(super) nonce: Option<&'a Nonce>,
}

/// Reads claims of an ID token that came straight from the token endpoint over TLS. That stands in for its signature
/// (OpenID Connect Core §3.1.3.7, point 6); nothing stands in for the other checks.
pub(super) fn from_id_token(
    id_token: &IdToken,
    wanted: &[String],
    expected: &Expected<'_>,
    received_at: Timestamp,
) -> Result<String, AccountError> {
    if expected.definition.issuer.is_none() {
        return Err(AccountError::IssuerUnknown);
    }
    let claims = claims(id_token).ok_or(AccountError::IdTokenUnreadable)?;
    let refused = |claim| Err(AccountError::IdTokenRefused { claim });
    let Some(issuer) = expected.definition.issuer_of(claims.text("/tid")) else { return refused("tid") };
    if claims.text("/iss") != Some(&*issuer) {
        return refused("iss");
    }
    if !is_audience(claims.at("/aud"), expected.client_id) {
        return refused("aud");
    }
    // Point 5. Also for a single audience: whoever is named there is whom the token is for.
    if claims.at("/azp").is_some_and(|azp| azp != expected.client_id) {
        return refused("azp");
    }
    let nonce = claims.text("/nonce").map(|text| Nonce::new(text.to_owned()));
    if expected.nonce.is_some_and(|expected| nonce.as_ref() != Some(expected)) {
        return refused("nonce");
    }
    let expiry = claims.at("/exp").and_then(Value::as_f64);
    if !expiry.is_some_and(|expiry| expiry + LEEWAY > received_at.as_secs() as f64) {
        return refused("exp");
    }
    account_id(wanted.iter().map(|claim| claims.member(claim)))
}

/// Asks with the access token (OpenID Connect Core §5.3, RFC 6750 §2.1).
pub(super) async fn from_userinfo(
    outbound: &Outbound,
    url: &Url,
    pointers: &[String],
    access: &AccessToken,
) -> Result<String, AccountError> {
    let bearer = credentials::bearer(access).ok_or(AccountError::IdMissing)?;
    let request = Request::get(url.clone()).accept_json().authorization(bearer).at_most(LARGEST);
    let Reply { status, body, .. } = outbound.send(request).await?;
    if !status.is_success() {
        return Err(AccountError::ProbeRefused { status: status.as_u16() });
    }
    let document = Document::parse(&body).ok_or(AccountError::IdMissing)?;
    account_id(pointers.iter().map(|pointer| document.at(pointer)))
}

/// The payload of a signed token in compact form; an encrypted one has five parts.
fn claims(id_token: &IdToken) -> Option<Document> {
    let mut parts = id_token.expose().split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    Document::parse(&Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?))
}

fn is_audience(aud: Option<&Value>, client_id: &str) -> bool {
    match aud {
        Some(Value::String(one)) => one == client_id,
        Some(Value::Array(many)) => many.iter().any(|one| one == client_id),
        _ => false,
    }
}

/// The parts, joined so that no two lists of parts make one id.
fn account_id<'a>(values: impl ExactSizeIterator<Item = Option<&'a Value>>) -> Result<String, AccountError> {
    let several = values.len() > 1;
    let legal = |part: &String| !(several && part.contains('/'));
    let parts: Option<Vec<_>> = values.map(|value| part(value).filter(legal)).collect();
    parts.map(|parts| parts.join("/")).ok_or(AccountError::IdMissing)
}

fn part(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => {
            let legal = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
            legal.then(|| text.clone())
        }
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// Seconds.
const LEEWAY: f64 = 60.0;
const LARGEST: usize = 256 * 1024;
