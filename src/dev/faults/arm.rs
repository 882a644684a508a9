//! One fault, and which requests it is for: as a value, as JSON, and as the command line's short form.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{Fault, UnknownFault};
use crate::dev::{Endpoint, GrantType};

/// A fault and the requests that are to suffer it. As JSON: `{"endpoint": "token", "grant_type": "refresh_token",
/// "fault": "commit_then_drop", "skip": 2, "count": 1, "chance": 100}`; only `fault` must be there. As short text, for
/// refreshes: `commit_then_drop`, `commit_then_drop:3`, `commit_then_drop:always`, `commit_then_drop:5%`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    #[serde(default = "token")]
    pub endpoint: Endpoint,
    /// At a token endpoint: only requests of this kind.
    #[serde(default)]
    pub grant_type: Option<GrantType>,
    pub fault: Fault,
    /// So many requests that it would fall on are spared first.
    #[serde(default)]
    pub skip: u32,
    #[serde(default)]
    pub count: Count,
    /// Per cent of the requests that it falls on, once none is skipped any more.
    #[serde(default = "certain", deserialize_with = "percent")]
    pub chance: u8,
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Times(u32),
    /// Until it is disarmed.
    Always,
}

/// The text says no fault, or not how often.
#[derive(Debug, thiserror::Error)]
pub enum InvalidArm {
    #[error(transparent)]
    Fault(#[from] UnknownFault),
    #[error("after the colon comes how often: a number, `always`, or a percentage from 1% to 100%; not {text}")]
    Often { text: String },
    #[error("the JSON is not what POST /dev/faults takes: {source}")]
    Json {
        #[from]
        source: serde_json::Error,
    },
}

impl Arm {
    pub fn once(endpoint: Endpoint, fault: Fault) -> Self {
        Self { endpoint, grant_type: None, fault, skip: 0, count: Count::default(), chance: certain() }
    }

    /// Once, and on a refresh.
    pub fn refresh(fault: Fault) -> Self {
        Self { grant_type: Some(GrantType::RefreshToken), ..Self::once(Endpoint::Token, fault) }
    }

    /// Whether this request is the one; counts those that are skipped.
    pub(super) fn falls_on(
        &mut self,
        endpoint: Endpoint,
        grant_type: Option<GrantType>,
        roll: impl Fn() -> u8,
    ) -> bool {
        if self.endpoint != endpoint || self.grant_type.is_some() && self.grant_type != grant_type {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.chance >= certain() || roll() < self.chance
    }
}

impl FromStr for Arm {
    type Err = InvalidArm;

    fn from_str(text: &str) -> Result<Self, InvalidArm> {
        if text.starts_with('{') {
            return Ok(serde_json::from_str(text)?);
        }
        let (name, often) = text.split_once(':').unwrap_or((text, "1"));
        let arm = Self::refresh(name.parse()?);
        if let Some(chance) = often.strip_suffix('%') {
            let chance = chance.parse().ok().filter(|chance| (1..=certain()).contains(chance));
            let chance = chance.ok_or_else(|| InvalidArm::Often { text: often.to_owned() })?;
            return Ok(Self { count: Count::Always, chance, ..arm });
        }
        let count = if often == "always" { Some(Count::Always) } else { often.parse().ok().map(Count::Times) };
        let count = count.ok_or_else(|| InvalidArm::Often { text: often.to_owned() })?;
        Ok(Self { count, ..arm })
    }
}

impl Default for Count {
    fn default() -> Self {
        Self::Times(1)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let often = Value::deserialize(deserializer)?;
        let times = || often.as_u64().and_then(|times| u32::try_from(times).ok()).map(Self::Times);
        let count = if often == "always" { Some(Self::Always) } else { times() };
        count.ok_or_else(|| D::Error::custom("count is a number or \"always\""))
    }
}

fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    if (1..=certain()).contains(&percent) { Ok(percent) } else { Err(D::Error::custom("chance is 1 to 100, per cent")) }
}

fn token() -> Endpoint {
    Endpoint::Token
}

fn certain() -> u8 {
    100
}
