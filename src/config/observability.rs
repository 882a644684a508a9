//! `[log]`, `[metrics]` and `[traces]`: what the process tells about itself.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{Fault, Finding, KeyPath};
use crate::telemetry::{self, LogFormat};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// A level (`error`, `warn`, `info`, `debug`), or directives such as `claviger::broker=debug,info`. Other crates
    /// than this one never log below `info`.
    #[schemars(example = &"info")]
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Where `/metrics` is served, in the clear and to whoever asks: an address that only your monitoring reaches. The
    /// same as `http.listen`: beside our pages. Absent: nowhere.
    #[schemars(example = &"127.0.0.1:9464")]
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TracesSection {
    /// An OTLP collector that speaks gRPC. Absent: no traces leave.
    #[schemars(example = &"http://127.0.0.1:4317")]
    pub otlp_endpoint: Option<Url>,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

impl LogSection {
    pub(super) fn check(&self) -> Option<Finding> {
        let bad = !telemetry::is_filter(&self.level);
        bad.then(|| Finding::new(KeyPath::of("log.level"), Fault::LogFilter))
    }
}

impl TracesSection {
    pub(super) fn check(&self) -> Option<Finding> {
        let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let bad = self.otlp_endpoint.as_ref().is_some_and(|url| !usable(url));
        bad.then(|| Finding::new(KeyPath::of("traces.otlp_endpoint"), Fault::OtlpEndpoint))
    }
}
