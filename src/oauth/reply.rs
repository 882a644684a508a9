//! The token endpoint's answer (RFC 6749 §5.1), read as leniently as providers are odd.

use std::time::Duration;

use serde_json::Value;

use super::{
    classify::{Asked, classify},
    failure::{Evidence, TokenFailure},
    json::Document,
    retry_after::retry_after,
};
use crate::{
    domain::{AccessToken, Definition, IdToken, RefreshToken, ReplyClass, Scope, ScopeSet, Timestamp},
    outbound::Reply,
};

/// What a token request brought. Of bearer type, or of none said.
pub struct Tokens {
    pub access: AccessToken,
    /// `None`: absent, null or empty; whoever has an older one keeps it.
    pub refresh: Option<RefreshToken>,
    pub id_token: Option<IdToken>,
    /// From now until the access token lapses, at most ten years. `None`: the provider did not say, said so
    /// illegibly, or said zero or less. No provider issues a token that is dead on arrival; those that write 0 or -1
    /// mean "never".
    pub expires_in: Option<Duration>,
    /// What was granted. `None`: the provider did not say, so it is what was asked for (RFC 6749 §5.1).
    pub scopes: Option<ScopeSet>,
}

/// Judges an answer. Tokens win over an `error` beside them: a fresh refresh token is never thrown away.
pub(super) fn judge(
    definition: &Definition,
    asked: Asked,
    reply: &Reply,
    now: Timestamp,
) -> Result<Tokens, TokenFailure> {
    let status = reply.status.as_u16();
    let mut document = Document::parse(&reply.body);
    let successful = document.as_mut().filter(|_| reply.status.is_success());
    if let Some(tokens) = successful.and_then(|document| read_tokens(document, definition.response_scope_separator)) {
        let refused = TokenFailure::bare(ReplyClass::Configuration, Evidence::Answered { status });
        return tokens.map_err(|UnusableType| refused);
    }
    Err(classify(definition, asked, status, document.as_ref(), retry_after(&reply.headers, now)))
}

/// The token is bound to something other than its possession (RFC 6749 §7.1): it must not be used.
struct UnusableType;

/// `None`: there is no access token.
fn read_tokens(document: &mut Document, scope_separator: char) -> Option<Result<Tokens, UnusableType>> {
    document.text("/access_token").filter(|token| is_access_token(token))?;
    if !is_bearer(document.at("/token_type")) {
        return Some(Err(UnusableType));
    }
    let expires_in = document.at("/expires_in").and_then(lifetime);
    let scopes = document.at("/scope").and_then(|scope| scopes(scope, scope_separator));
    Some(Ok(Tokens {
        access: AccessToken::new(document.take_text("access_token")?),
        refresh: document.take_text("refresh_token").map(RefreshToken::new),
        id_token: document.take_text("id_token").map(IdToken::new),
        expires_in,
        scopes,
    }))
}

/// RFC 6749 appendix A.12. It becomes a header's value: a line break in it would be the start of another header.
fn is_access_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
}

fn is_bearer(token_type: Option<&Value>) -> bool {
    match token_type {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty() || text.eq_ignore_ascii_case("bearer"),
        Some(_) => false,
    }
}

/// A number, or a text that is one, in seconds.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let sane = seconds > 0.0;
    sane.then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST))
}

/// A text, or a list of texts. What is no scope is left out: it cannot have been granted.
fn scopes(value: &Value, separator: char) -> Option<ScopeSet> {
    let words =
        |text: &str| -> Vec<Scope> { text.split([separator, ' ']).filter_map(|word| word.parse().ok()).collect() };
    match value {
        Value::String(text) => Some(words(text).into_iter().collect()),
        Value::Array(texts) => Some(texts.iter().filter_map(Value::as_str).flat_map(words).collect()),
        _ => None,
    }
}

const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
