//! `[[plugins]]`: what agents ask tokens for.

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fault, Finding, KeyPath};
use crate::domain::{PluginId, ProviderId, ScopeSet, TokenUsage};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginSection {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit; agents ask by it.
    #[schemars(with = "String", example = &"calendar")]
    pub id: PluginId,
    /// For people.
    #[schemars(example = &"Calendar")]
    pub display_name: String,
    /// The `id` of the provider whose tokens it takes.
    #[schemars(with = "String", example = &"google")]
    pub provider: ProviderId,
    /// What an agent may ask for; also what is asked for when it names none.
    #[serde(default)]
    #[schemars(with = "Vec<String>", example = ["calendar.read"])]
    pub scopes: ScopeSet,
    /// How a token is put on a request to the plugin's API.
    #[serde(default)]
    pub usage: TokenUsage,
    /// `false`: nobody gets a token for it.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl PluginSection {
    pub(super) fn check(&self, nth: usize) -> Vec<Finding> {
        let key = |dotted| KeyPath::in_array("plugins", nth, dotted);
        let mut findings = Vec::new();
        if self.display_name.trim().is_empty() {
            findings.push(Finding::new(key("display_name"), Fault::Empty { what: "a name for people" }));
        }
        if HeaderName::from_bytes(self.usage.header.as_bytes()).is_err() {
            findings.push(Finding::new(key("usage.header"), Fault::Header { example: "authorization" }));
        }
        if HeaderValue::from_str(&self.usage.scheme).is_err() {
            findings.push(Finding::new(key("usage.scheme"), Fault::Header { example: "Bearer" }));
        }
        findings
    }
}

fn enabled() -> bool {
    true
}
