//! Tenants, providers and plugins as an operator writes them.

use std::{collections::HashSet, hash::Hash};

use serde::Deserialize;
use url::Url;

use super::{Config, Problem};
use crate::{
    domain::{
        ClientSecret, Definition, Directory, Endpoints, Issuer, PluginId, ProviderId, Rotation, ScopeSet, TenantId,
        TokenUsage,
    },
    identity::TenantRule,
    oauth,
};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSection {
    pub id: TenantId,
    /// Not served yet.
    #[serde(default)]
    pub require_agent: bool,
    /// Where a user may be sent after consent.
    #[serde(default)]
    pub return_urls: Vec<Url>,
    /// Where a provider may send a code in binding `CALLER`.
    #[serde(default)]
    pub redirect_uris: Vec<RedirectRule>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectRule {
    Exact(Url),
    /// `http` on a literal loopback address, any port, this path (RFC 8252 §7.3).
    Loopback(String),
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSection {
    pub id: ProviderId,
    /// The name of a shipped definition.
    pub definition: String,
    /// For definitions that leave it open.
    #[serde(default)]
    pub issuer: Option<Issuer>,
    /// Whose accounts may sign in at Microsoft: `organizations`, `common`, `consumers` or a directory's id.
    #[serde(default)]
    pub directory: Option<Directory>,
    /// In place of the definition's: a server of the same kind at another address.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// What the provider does with a used refresh token, where the definition can only guess.
    #[serde(default)]
    pub rotation: Option<Rotation>,
    pub client_id: String,
    /// Absent for a public client. Never stands in a configuration file.
    #[serde(skip)]
    pub client_secret: Option<ClientSecret>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginSection {
    pub id: PluginId,
    pub display_name: String,
    pub provider: ProviderId,
    #[serde(default)]
    pub scopes: ScopeSet,
    #[serde(default)]
    pub usage: TokenUsage,
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl ProviderSection {
    /// The shipped definition, completed.
    pub fn definition(&self) -> Result<Definition, Problem> {
        let unknown = || Problem::DefinitionUnknown { provider: self.id.clone(), definition: self.definition.clone() };
        let definition = oauth::definitions::shipped(&self.definition).ok_or_else(unknown)?;
        let completion = oauth::definitions::Completion {
            issuer: self.issuer.as_ref(),
            directory: self.directory.as_ref(),
            endpoints: &self.endpoints,
            rotation: self.rotation,
        };
        completion
            .of(definition)
            .map_err(|problem| Problem::Definition { provider: self.id.clone(), problem: problem.to_string() })
    }
}

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(twice("tenants", config.tenants.iter().map(|tenant| &tenant.id)));
    problems.extend(twice("providers", config.providers.iter().map(|provider| &provider.id)));
    problems.extend(twice("plugins", config.plugins.iter().map(|plugin| &plugin.id)));
    problems.extend(config.providers.iter().filter_map(|provider| provider.definition().err()));
    for plugin in &config.plugins {
        if !config.providers.iter().any(|provider| provider.id == plugin.provider) {
            let (plugin, provider) = (plugin.id.clone(), plugin.provider.clone());
            problems.push(Problem::ProviderMissing { plugin, provider });
        }
    }
    let issuers = || config.identity.iter().flat_map(|family| &family.issuers);
    if issuers().next().is_none() {
        problems.push(Problem::NoIssuer);
    }
    let named = issuers().flat_map(|issuer| match &issuer.tenant {
        TenantRule::Fixed(tenant) => vec![tenant],
        TenantRule::Claim { allow, .. } => allow.values().collect(),
    });
    let configured: HashSet<_> = config.tenants.iter().map(|tenant| &tenant.id).collect();
    let missing: HashSet<_> = named.filter(|tenant| !configured.contains(tenant)).collect();
    problems.extend(missing.into_iter().map(|tenant| Problem::TenantMissing { tenant: tenant.clone() }));
    if !(1..=60).contains(&config.outbound.timeout) {
        problems.push(Problem::Timeout);
    }
    problems
}

fn twice<'a, T: Eq + Hash + ToString + 'a>(section: &'static str, ids: impl Iterator<Item = &'a T>) -> Vec<Problem> {
    let mut seen = HashSet::new();
    ids.filter(|id| !seen.insert(*id)).map(|id| Problem::Twice { section, id: id.to_string() }).collect()
}

fn enabled() -> bool {
    true
}
