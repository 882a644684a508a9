//! Shapes in which token endpoints tell how long an access token lives. RFC 6749 §5.1 knows one of them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::domain::Timestamp;

/// What an answer says instead of `expires_in` in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Nothing.
    Absent,
    Zero,
    Negative,
    /// The seconds in a string.
    Text,
    /// Half a second more.
    Fraction,
    /// 10^18 seconds.
    Huge,
    /// Milliseconds under the name of seconds.
    Milliseconds,
    /// `expires_at` instead: a date (RFC 3339).
    AtDate,
    /// `expires_at` instead: seconds since the epoch.
    AtSeconds,
    /// `expires_at` instead: milliseconds since the epoch.
    AtMilliseconds,
}

impl Expiry {
    pub(super) fn write(self, answer: &mut Map<String, Value>, lifetime: Duration, now: Timestamp) {
        let (seconds, expires_at) = (lifetime.as_secs(), now.plus(lifetime));
        let (member, value) = match self {
            Self::Absent => ("expires_in", Value::Null),
            Self::Zero => ("expires_in", json!(0)),
            Self::Negative => ("expires_in", json!(-1)),
            Self::Text => ("expires_in", json!(seconds.to_string())),
            Self::Fraction => ("expires_in", json!(lifetime.as_secs_f64() + 0.5)),
            Self::Huge => ("expires_in", json!(1e18)),
            Self::Milliseconds => ("expires_in", json!(seconds.saturating_mul(1000))),
            Self::AtDate => ("expires_at", json!(date(expires_at))),
            Self::AtSeconds => ("expires_at", json!(expires_at.as_secs())),
            Self::AtMilliseconds => ("expires_at", json!(expires_at.as_millis())),
        };
        answer.remove("expires_in");
        if !value.is_null() {
            answer.insert(member.to_owned(), value);
        }
    }
}

fn date(at: Timestamp) -> String {
    prost_types::Timestamp { seconds: at.as_secs(), nanos: 0 }.to_string()
}
