//! `[watch]`: how many status streams may be open.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Finding, KeyPath, range};

/// A stream above one of these is refused with `STREAM_QUOTA`, and told when to come again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSection {
    /// In all.
    pub streams: u32,
    /// Of one tenant.
    pub streams_per_tenant: u32,
    /// Of one subject, and of one agent of theirs.
    pub streams_per_principal: u32,
    /// On one connection. Below `limits.streams`: what is above those waits in the client without a word.
    pub streams_per_connection: u32,
}

impl Default for WatchSection {
    fn default() -> Self {
        Self { streams: 50_000, streams_per_tenant: 50_000, streams_per_principal: 64, streams_per_connection: 200 }
    }
}

impl WatchSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let key = |name: &str| KeyPath::of("watch").join(name);
        let counts = [
            ("streams", self.streams),
            ("streams_per_tenant", self.streams_per_tenant),
            ("streams_per_principal", self.streams_per_principal),
            ("streams_per_connection", self.streams_per_connection),
        ];
        counts.iter().filter_map(|(name, count)| range(key(name), count, &1, &1_000_000)).collect()
    }
}
