//! What only the whole configuration can say: names that must be there, and names that must not be there twice.

use std::collections::{BTreeSet, HashSet};

use super::{Config, Fault, Finding, KeyPath, Step, problem::nearest, tls, tree::Node};
use crate::identity::{self, ConfigError, TenantRule};

/// The ids that are written in each array, whether or not their elements could be read: what refers to an element that
/// is reported anyway is not reported too.
pub(super) struct Declared {
    tenants: Vec<String>,
    providers: Vec<String>,
    plugins: Vec<String>,
    families: Vec<String>,
}

impl Declared {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            tenants: config.tenants.iter().map(|tenant| tenant.id.to_string()).collect(),
            providers: config.providers.iter().map(|provider| provider.id.to_string()).collect(),
            plugins: config.plugins.iter().map(|plugin| plugin.id.to_string()).collect(),
            families: config.identity.iter().map(|family| family.id.to_string()).collect(),
        }
    }

    pub(super) fn written(tree: &Node) -> Self {
        let ids = |array: &str| {
            let items = tree.child(&Step::Key(array.to_owned())).map_or(&[][..], Node::items);
            items.iter().map(|item| item.id().unwrap_or_default().to_owned()).collect()
        };
        Self {
            tenants: ids("tenants"),
            providers: ids("providers"),
            plugins: ids("plugins"),
            families: ids("identity"),
        }
    }
}

pub(super) fn check(config: &Config, declared: &Declared) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (section, present) in [
        ("agents", !config.agents.is_empty()),
        ("toolboxes", !config.toolboxes.is_empty()),
        ("grants", !config.grants.is_empty()),
    ] {
        findings.extend(present.then(|| Finding::new(KeyPath::of(section), Fault::NotServed)));
    }
    findings.extend(sections(config));
    findings.extend(twice("tenants", &declared.tenants));
    findings.extend(twice("providers", &declared.providers));
    findings.extend(twice("plugins", &declared.plugins));
    findings.extend(twice("identity", &declared.families));
    findings.extend(providers_missing(config, declared));
    findings.extend(identity_of(config, declared));
    findings
}

fn sections(config: &Config) -> Vec<Finding> {
    let mut findings = config.http.check();
    if config.grpc.listen == config.http.listen && config.grpc.listen.port() != 0 {
        findings.push(Finding::new(KeyPath::of("http.listen"), Fault::AddressTwice { other: "grpc.listen" }));
    }
    findings.extend(tls::check("grpc", config.grpc.listen, config.grpc.tls.as_ref()));
    if config.metrics.listen.is_some_and(|listen| listen == config.grpc.listen && listen.port() != 0) {
        findings.push(Finding::new(KeyPath::of("metrics.listen"), Fault::AddressTwice { other: "grpc.listen" }));
    }
    findings.extend(config.watch.check());
    findings.extend(tls::check("http", config.http.listen, config.http.tls.as_ref()));
    findings.extend(config.limits.check());
    findings.extend(config.store.check());
    findings.extend(config.sealing.check());
    findings.extend(config.outbound.check());
    findings.extend(config.audit.check());
    findings.extend(config.events.check());
    findings.extend(config.log.check());
    findings.extend(config.traces.check());
    findings.extend(config.tenants.iter().enumerate().flat_map(|(nth, tenant)| tenant.check(nth)));
    findings.extend(config.providers.iter().enumerate().flat_map(|(nth, provider)| provider.check(nth)));
    findings.extend(config.plugins.iter().enumerate().flat_map(|(nth, plugin)| plugin.check(nth)));
    findings
}

fn twice(section: &str, ids: &[String]) -> Vec<Finding> {
    let mut seen = HashSet::new();
    let again = ids.iter().enumerate().filter(|(_, id)| !id.is_empty() && !seen.insert(id.as_str()));
    again
        .map(|(index, id)| {
            let mut key = KeyPath::of(section);
            key.0.push(Step::Index(index));
            Finding::new(key.join("id"), Fault::Twice { id: id.clone() })
        })
        .collect()
}

fn providers_missing(config: &Config, declared: &Declared) -> Vec<Finding> {
    let missing = config.plugins.iter().enumerate().filter_map(|(nth, plugin)| {
        let provider = plugin.provider.to_string();
        let there = declared.providers.contains(&provider);
        (!there).then(|| {
            let nearest = nearest(&provider, declared.providers.iter().map(String::as_str));
            Finding::new(KeyPath::in_array("plugins", nth, "provider"), Fault::ProviderMissing { provider, nearest })
        })
    });
    missing.collect()
}

fn identity_of(config: &Config, declared: &Declared) -> Vec<Finding> {
    let mut findings: Vec<_> = identity::problems(&config.identity)
        .into_iter()
        // Told above, of what could not be read as well.
        .filter(|(_, problem)| !matches!(problem, ConfigError::FamilyTwice(_)))
        .map(|(family, problem)| {
            let path = KeyPath::in_array("identity", family, "");
            let (issuer, key) = problem.place();
            let path = issuer.map_or(path.clone(), |issuer| path.join("issuers").nth(issuer));
            Finding::new(path.join(key), Fault::Identity(problem))
        })
        .collect();
    if declared.families.is_empty() {
        findings.push(Finding::new(KeyPath::of("identity"), Fault::NoIssuer));
    }
    for (family, config) in config.identity.iter().enumerate() {
        for (nth, issuer) in config.issuers.iter().enumerate() {
            let (named, dotted): (BTreeSet<_>, _) = match &issuer.tenant {
                TenantRule::Fixed(tenant) => ([tenant].into(), "tenant.fixed"),
                TenantRule::Claim { allow, .. } => (allow.values().collect(), "tenant.claim.allow"),
            };
            for tenant in named.into_iter().filter(|tenant| !declared.tenants.iter().any(|id| id == tenant.as_str())) {
                let nearest = nearest(tenant.as_str(), declared.tenants.iter().map(String::as_str));
                let key = KeyPath::in_array("identity", family, "issuers").nth(nth).join(dotted);
                findings.push(Finding::new(key, Fault::TenantMissing { tenant: tenant.clone(), nearest }));
            }
        }
    }
    findings
}
