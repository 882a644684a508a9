//! Why a token request brought no tokens, as facts.

use std::{borrow::Cow, fmt, time::Duration};

use super::json::Document;
use crate::{
    domain::{Definition, Hints, ReplyClass},
    outbound::OutboundError,
};

/// A token request without tokens. Holds nothing that the server wrote, except [`Hints`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no tokens: {evidence}{}", .code.as_ref().map(|code| format!(", {code}")).unwrap_or_default())]
pub struct TokenFailure {
    pub class: ReplyClass,
    pub evidence: Evidence,
    /// `None`: no error code, or one that nobody here knows.
    pub code: Option<ErrorCode>,
    /// How long the server asks to be left alone, 1 s – 1 h.
    pub retry_after: Option<Duration>,
    /// Only with [`ReplyClass::Reauthorize`].
    pub hints: Option<Hints>,
    /// A rule judged it that does so only a few times in a row ([`crate::domain::ErrorRule::at_most`]).
    pub excused: bool,
    /// Tokens came that cannot be used: what was sent for them is spent.
    pub spent: bool,
}

/// How far the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Evidence {
    /// Nothing reached the server: code and refresh token are unspent.
    #[error("not sent")]
    NotSent,
    #[error("the answer was lost")]
    AnswerLost,
    #[error("answered with {status}")]
    Answered { status: u16 },
}

/// An error code from the broker's own vocabulary (RFC 6749 §5.2, its extensions, the definition's rules). What a
/// server writes is matched against it and never copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode(Cow<'static, str>);

impl TokenFailure {
    /// Configuration: the URL itself is at fault. An address that is not public may be a name server's fault.
    pub(super) fn from_outbound(error: &OutboundError) -> Self {
        let class = match error {
            OutboundError::AnswerLost { .. } | OutboundError::TooLarge { .. } => ReplyClass::Ambiguous,
            OutboundError::NotSent { .. } | OutboundError::AddressRefused { .. } => ReplyClass::Transient,
            OutboundError::UrlRefused { .. } | OutboundError::TrustAnchors => ReplyClass::Configuration,
        };
        Self::bare(class, if error.was_sent() { Evidence::AnswerLost } else { Evidence::NotSent })
    }

    pub(super) fn bare(class: ReplyClass, evidence: Evidence) -> Self {
        Self { class, evidence, code: None, retry_after: None, hints: None, excused: false, spent: false }
    }
}

impl ErrorCode {
    pub(super) const fn standard(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// The entry of a definition's rules that equals `unverified`.
    pub(super) fn of_rules(definition: &Definition, unverified: &str) -> Option<Self> {
        let mut values = definition.error_rules.iter().flat_map(|rule| &rule.values);
        values.find(|value| *value == unverified).map(|value| Self(Cow::Owned(value.clone())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `None`: the answer gives none that can be believed.
pub(super) fn hints(document: &Document) -> Option<Hints> {
    let hints = Hints {
        claims: document.text("/claims").filter(|text| is_claims(text)).map(str::to_owned),
        acr_values: document.text("/acr_values").filter(|text| is_acr_values(text)).map(str::to_owned),
        max_age: document.at("/max_age").and_then(|age| age.as_u64().or_else(|| age.as_str()?.parse().ok())),
    };
    (hints != Hints::default()).then_some(hints)
}

fn is_claims(text: &str) -> bool {
    text.len() <= 4096 && Document::parse(text.as_bytes()).is_some()
}

fn is_acr_values(text: &str) -> bool {
    (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}
