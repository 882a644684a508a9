//! What an answer without tokens means: the definition's rules first, then the standard table.

use std::time::Duration;

use serde_json::Value;

use super::{
    failure::{ErrorCode, Evidence, Hints, TokenFailure},
    json::Document,
};
use crate::domain::{Definition, ErrorRule, ReplyClass};

/// What was asked for; some errors blame the request alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Exchange,
    /// `narrowed`: fewer scopes than granted were asked for.
    Refresh {
        narrowed: bool,
    },
}

/// Judges an answer that brought no tokens. `document` is its body, where that is a JSON object.
pub(super) fn classify(
    definition: &Definition,
    asked: Asked,
    status: u16,
    document: Option<&Document>,
    retry_after: Option<Duration>,
) -> TokenFailure {
    let unverified_code = document.and_then(|document| document.text("/error"));
    let standard = unverified_code.and_then(|code| STANDARD.iter().find(|(known, _)| *known == code));
    let rule =
        document.and_then(|document| definition.error_rules.iter().find_map(|rule| apply(rule, status, document)));
    let class = match &rule {
        Some((class, _)) => *class,
        None => by_standard(asked, status, document, standard.map(|(_, meaning)| *meaning), retry_after.is_some()),
    };
    let code = standard
        .map(|(code, _)| ErrorCode::standard(code))
        .or_else(|| ErrorCode::of_rules(definition, unverified_code?))
        .or_else(|| ErrorCode::of_rules(definition, rule?.1?));
    let hints = document.filter(|_| class == ReplyClass::Reauthorize).and_then(Hints::read);
    TokenFailure { class, evidence: Evidence::Answered { status }, code, retry_after, hints }
}

/// The class, and the listed value that matched.
fn apply<'a>(rule: &'a ErrorRule, status: u16, document: &Document) -> Option<(ReplyClass, Option<&'a str>)> {
    if rule.status.is_some_and(|wanted| wanted != status) {
        return None;
    }
    let found = document.at(&rule.pointer)?;
    let text = match found {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if rule.contains.as_ref().is_some_and(|part| !text.contains(part)) {
        return None;
    }
    if rule.values.is_empty() {
        return (!matches!(found, Value::Null | Value::Bool(false))).then_some((rule.class, None));
    }
    rule.values.iter().find(|value| **value == text).map(|value| (rule.class, Some(value.as_str())))
}

/// The status decides first: a gateway in trouble may send any body. Only a structured OAuth error, with a status that
/// RFC 6749 §5.2 or common practice gives it, is terminal.
fn by_standard(
    asked: Asked,
    status: u16,
    document: Option<&Document>,
    meaning: Option<Meaning>,
    told_when: bool,
) -> ReplyClass {
    match status {
        429 => ReplyClass::RateLimited,
        503 if told_when => ReplyClass::RateLimited,
        408 | 425 | 500..=599 => ReplyClass::Ambiguous,
        200..=299 | 400..=499 => match (meaning, document) {
            (Some(meaning), Some(document)) => by_code(asked, status, meaning, document),
            (None, Some(document)) if status < 300 && !has_error(document) => ReplyClass::Ambiguous,
            (_, None) if status < 300 => ReplyClass::Ambiguous,
            _ => ReplyClass::Unknown,
        },
        _ => ReplyClass::Unknown,
    }
}

fn by_code(asked: Asked, status: u16, meaning: Meaning, document: &Document) -> ReplyClass {
    match (meaning, asked) {
        (Meaning::Is(class), _) => class,
        (Meaning::Dead, _) if wants_user(document) => ReplyClass::Reauthorize,
        (Meaning::Dead, _) if matches!(status, 200..=299 | 400 | 401 | 403) => ReplyClass::Terminal,
        (Meaning::Dead, _) => ReplyClass::Unknown,
        // Anybody can hand in a malformed code: that must not suspend the provider for everybody.
        (Meaning::BadRequest | Meaning::BadScope, Asked::Exchange) => ReplyClass::Terminal,
        (Meaning::BadRequest, Asked::Refresh { .. }) => ReplyClass::Configuration,
        // The narrower scope was refused, not the refresh token.
        (Meaning::BadScope, Asked::Refresh { narrowed: true }) => ReplyClass::Transient,
        (Meaning::BadScope, Asked::Refresh { narrowed: false }) => ReplyClass::Reauthorize,
    }
}

/// `invalid_grant` that the user can cure: Entra's `suberror`, Google's `error_subtype`.
fn wants_user(document: &Document) -> bool {
    let suberror = document.text("/suberror").is_some_and(|suberror| {
        matches!(suberror, "basic_action" | "additional_action" | "consent_required" | "user_password_expired")
    });
    suberror || document.text("/error_subtype") == Some("invalid_rapt")
}

fn has_error(document: &Document) -> bool {
    document.at("/error").is_some_and(|error| !matches!(error, Value::Null | Value::Bool(false)))
}

#[derive(Clone, Copy)]
enum Meaning {
    Is(ReplyClass),
    /// `invalid_grant`.
    Dead,
    BadRequest,
    BadScope,
}

/// RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2, RFC 9449 §8, RFC 9470 §3, OpenID Connect Core §3.1.2.6.
const STANDARD: &[(&str, Meaning)] = &[
    ("invalid_grant", Meaning::Dead),
    ("invalid_request", Meaning::BadRequest),
    ("invalid_target", Meaning::BadRequest),
    ("invalid_scope", Meaning::BadScope),
    ("invalid_client", Meaning::Is(ReplyClass::Configuration)),
    ("unauthorized_client", Meaning::Is(ReplyClass::Configuration)),
    ("unsupported_grant_type", Meaning::Is(ReplyClass::Configuration)),
    ("use_dpop_nonce", Meaning::Is(ReplyClass::Configuration)),
    ("interaction_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("consent_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("login_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("account_selection_required", Meaning::Is(ReplyClass::Reauthorize)),
    ("insufficient_user_authentication", Meaning::Is(ReplyClass::Reauthorize)),
    ("insufficient_claims", Meaning::Is(ReplyClass::Reauthorize)),
    ("insufficient_scope", Meaning::Is(ReplyClass::Reauthorize)),
    ("slow_down", Meaning::Is(ReplyClass::RateLimited)),
    ("temporarily_unavailable", Meaning::Is(ReplyClass::Ambiguous)),
    ("server_error", Meaning::Is(ReplyClass::Ambiguous)),
];
