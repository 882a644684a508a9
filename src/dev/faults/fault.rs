//! What can go wrong with one request.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};

use super::{Expiry, HoldPoint};
use crate::domain::ScopeSet;

/// One way for a request to go wrong. As JSON: `{"answer": {"status": 503}}`, `{"refresh_token": "omit"}`, or the name
/// of one of the [`NAMED_FAULTS`](super::NAMED_FAULTS).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, remote = "Self")]
pub enum Fault {
    /// This answer comes instead, and nothing happens.
    Answer(Answer),
    /// The client is told to come back later, and nothing happens.
    Busy {
        /// 429 or 503, usually.
        #[serde(deserialize_with = "status")]
        status: StatusCode,
        retry_after: RetryAfter,
    },
    /// The connection closes without a byte of answer, and nothing happens.
    Drop,
    /// The request takes effect; this answer comes instead of the true one, as from a proxy.
    CommitThenAnswer(Answer),
    /// The request takes effect; the connection closes without a byte of answer.
    CommitThenDrop,
    /// The request takes effect; the connection closes in the middle of the answer's body.
    CommitThenTruncate,
    /// The request takes effect; members of the JSON answer are removed, then set. The server believes its own
    /// answer: a token that is edited out is lost.
    Edit {
        #[serde(default)]
        set: Map<String, Value>,
        #[serde(default)]
        remove: Vec<String>,
    },
    /// The answer tells the token's lifetime in another shape; the token itself lives as long as it would.
    Expiry(Expiry),
    /// The request waits, before it takes effect or before its answer leaves.
    Slow { seconds: u64, point: HoldPoint },
    /// The user is sent back with other parameters: a wrong or missing `iss` or `state`, a code of another flow.
    EditRedirect {
        #[serde(default)]
        set: BTreeMap<String, String>,
        #[serde(default)]
        remove: Vec<String>,
    },
    /// A refresh is answered without a new refresh token, and the old one stays live.
    RefreshToken(MissingRefreshToken),
    /// The access token really has at most these scopes.
    #[serde(deserialize_with = "scopes")]
    Scope(ScopeSet),
    /// The ID token names somebody else.
    IdTokenSubject(String),
}

/// How a refresh token is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingRefreshToken {
    Omit,
    Empty,
    Null,
}

/// When a client may come back (RFC 9110 §10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// It is not said.
    Absent,
    /// So many seconds, as a number.
    Seconds(u64),
    /// In so many seconds, as a date.
    Date(u64),
}

/// An HTTP answer, word for word.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "AnswerText")]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

/// The status or a header cannot be sent over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP answer")]
pub struct InvalidAnswer;

impl<'de> Deserialize<'de> for Fault {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => name.parse().map_err(D::Error::custom),
            spelled => Self::deserialize(spelled).map_err(D::Error::custom),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerText {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

impl Answer {
    pub fn new(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, headers: HeaderMap::new(), body: body.into() }
    }

    /// As [`Self::new`], with `content-type: application/json`.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, body.to_string())
            .with(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl TryFrom<AnswerText> for Answer {
    type Error = InvalidAnswer;

    fn try_from(text: AnswerText) -> Result<Self, InvalidAnswer> {
        let mut headers = HeaderMap::new();
        for (name, value) in &text.headers {
            let name: HeaderName = name.parse().map_err(|_| InvalidAnswer)?;
            headers.insert(name, value.parse().map_err(|_| InvalidAnswer)?);
        }
        let status = StatusCode::from_u16(text.status).map_err(|_| InvalidAnswer)?;
        if status.is_informational() {
            return Err(InvalidAnswer);
        }
        Ok(Self { status, headers, body: text.body })
    }
}

impl IntoResponse for &Answer {
    fn into_response(self) -> Response {
        let mut response = self.body.clone().into_response();
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers.clone());
        response
    }
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ScopeSet, D::Error> {
    let text = String::deserialize(deserializer)?;
    ScopeSet::parse(&text, ' ').map_err(D::Error::custom)
}
