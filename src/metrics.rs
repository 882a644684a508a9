//! What the process counts, for Prometheus (OpenMetrics text). Nobody's name is a label: no subject, agent, connection or
//! account.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::domain::{ProviderId, ReplyClass};

/// The media type of [`Metrics::text`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a POST of a refresh token ended. One whose outcome the store could not take is counted again as interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshOutcome {
    Refreshed,
    /// No tokens; what the answer, or its absence, meant.
    Failed(ReplyClass),
    /// The process that POSTed died before it knew; found on record by a later one.
    Interrupted,
}

/// What is not counted but looked at when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    /// Whether calls can be answered.
    pub ready: bool,
    /// Token sets that wait for the store to take them.
    pub held_tokens: usize,
    /// Since the process started.
    pub alarms: u64,
}

/// The counters. Counting takes a look-up and an atomic addition.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    refreshes: Family<RefreshLabels, Counter>,
    rotations_lost: Family<ProviderLabels, Counter>,
    rpcs: Family<RpcLabels, Counter>,
    ready: Gauge,
    held_tokens: Gauge,
    alarms: Gauge<u64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    provider: String,
    outcome: RefreshOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: String,
    code: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let (refreshes, rotations_lost, rpcs) = (Family::default(), Family::default(), Family::default());
        let (ready, held_tokens, alarms) = (Gauge::default(), Gauge::default(), Gauge::default());
        let mut registry = Registry::with_prefix("claviger");
        registry.register(
            "refreshes",
            "Refresh tokens sent to providers, by what came of it",
            Family::clone(&refreshes),
        );
        registry.register(
            "rotations_lost",
            "Connections that died because a rotated refresh token never arrived",
            Family::clone(&rotations_lost),
        );
        registry.register(
            "rpcs",
            "Calls by method and gRPC status; a stream counts when it opens",
            Family::clone(&rpcs),
        );
        registry.register("ready", "Whether calls can be answered", Gauge::clone(&ready));
        registry.register(
            "held_tokens",
            "Token sets from providers that the store has yet to take",
            Gauge::clone(&held_tokens),
        );
        registry.register(
            "alarms",
            "Things that an operator must look at, since the process started: docs/operations.md",
            Gauge::clone(&alarms),
        );
        Self { registry, refreshes, rotations_lost, rpcs, ready, held_tokens, alarms }
    }
}

impl Metrics {
    pub fn count_refresh(&self, provider: &ProviderId, outcome: RefreshOutcome) {
        self.refreshes.get_or_create(&RefreshLabels { provider: provider.to_string(), outcome }).inc();
    }

    pub fn count_rotation_lost(&self, provider: &ProviderId) {
        self.rotations_lost.get_or_create(&ProviderLabels { provider: provider.to_string() }).inc();
    }

    /// The counter of calls to `method` that ended with `code`, for whoever keeps it at hand.
    pub fn rpcs(&self, method: &str, code: &'static str) -> Counter {
        self.rpcs.get_or_create_owned(&RpcLabels { method: method.to_owned(), code })
    }

    /// Everything in OpenMetrics text, with the readings of this moment.
    pub fn text(&self, readings: Readings) -> String {
        self.ready.set(readings.ready.into());
        self.held_tokens.set(i64::try_from(readings.held_tokens).unwrap_or(i64::MAX));
        self.alarms.set(readings.alarms);
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string does not fail");
        out
    }
}

impl RefreshOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Interrupted => "interrupted",
            Self::Failed(ReplyClass::Terminal) => "terminal",
            Self::Failed(ReplyClass::Reauthorize) => "reauthorize",
            Self::Failed(ReplyClass::Transient) => "transient",
            Self::Failed(ReplyClass::RateLimited) => "rate_limited",
            Self::Failed(ReplyClass::Configuration) => "configuration",
            Self::Failed(ReplyClass::Ambiguous) => "ambiguous",
            Self::Failed(ReplyClass::Unknown) => "unknown",
        }
    }
}

impl EncodeLabelValue for RefreshOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_count_and_reading() {
        let metrics = Metrics::default();
        let provider = "github".parse().unwrap();
        metrics.count_refresh(&provider, RefreshOutcome::Refreshed);
        metrics.count_refresh(&provider, RefreshOutcome::Refreshed);
        metrics.count_refresh(&provider, RefreshOutcome::Failed(ReplyClass::RateLimited));
        metrics.count_rotation_lost(&provider);
        metrics.rpcs("/a.B/C", "NOT_FOUND").inc();
        let text = metrics.text(Readings { ready: true, held_tokens: 2, alarms: 3 });
        for line in [
            r#"claviger_refreshes_total{provider="github",outcome="refreshed"} 2"#,
            r#"claviger_refreshes_total{provider="github",outcome="rate_limited"} 1"#,
            r#"claviger_rotations_lost_total{provider="github"} 1"#,
            r#"claviger_rpcs_total{method="/a.B/C",code="NOT_FOUND"} 1"#,
            "claviger_ready 1",
            "claviger_held_tokens 2",
            "claviger_alarms 3",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
