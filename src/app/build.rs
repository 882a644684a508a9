//! Puts the floors together.

use std::{collections::HashMap, fs, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;

use super::Certificates;
use crate::{
    audit::Chain,
    broker::{Broker, Catalog, Parts, Retention, Settings, Tenant, UrlRule, WatchQuotas},
    config::{Config, OutboundSection, Problem, RedirectRule},
    domain::{Clock, EntryId, InstallationId, Plugin, Provider, PublicUrl},
    events::Hub,
    grpc::WIRE,
    identity::Authenticator,
    oauth::AuthorizationServers,
    outbound::{Outbound, Policy},
    sealing::{AuditKey, Random, RootKeys},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::{ErasureList, Vault},
};

/// Beside the store: tokens that it could not take.
const HELD: &str = "held";
/// Beside the store: who was erased. A copy of the store does not have it, and restoring one must not lose it.
pub(crate) const ERASURES: &str = "erasures";

/// A broker with everything it needs, not yet listening.
pub struct App {
    pub(super) config: Config,
    pub(super) broker: Broker,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) hub: Hub,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Random,
    pub(super) certificates: Certificates,
}

/// The configuration cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{} in the configuration:\n{}", problems(.0.len()), .0.iter().map(|problem| format!("  - {problem}")).collect::<Vec<_>>().join("\n"))]
pub struct NotConfigured(pub Vec<Problem>);

impl App {
    /// Opens the store and checks everything that can be checked before a caller comes.
    pub async fn build(config: Config, clock: Arc<dyn Clock>, random: Random) -> anyhow::Result<Self> {
        let problems = config.check();
        if !problems.is_empty() {
            return Err(NotConfigured(problems).into());
        }
        install_crypto();
        // Before the store: a start that must fail should leave no new store behind, nor hold the old one.
        let roots = RootKeys::load(&config.sealing.root_keys)?;
        let certificates = Certificates::load(&config)?;
        let audit_key = AuditKey::default();
        let store = open_store(&config, &audit_key, &random).await?;
        let app = Self::over(Arc::clone(&store), config, clock, random, (roots, &audit_key), certificates).await;
        if app.is_err() {
            // Whoever sees the error may try again at once, and the directory must be free then.
            store.close().await;
        }
        app
    }

    async fn over(
        store: Arc<dyn Store>,
        config: Config,
        clock: Arc<dyn Clock>,
        random: Random,
        (roots, audit_key): (RootKeys, &AuditKey),
        certificates: Certificates,
    ) -> anyhow::Result<Self> {
        let vault = Vault::open(Arc::clone(&store), roots, random.clone(), audit_key)
            .await
            .with_context(|| format!("the store {} was not opened", config.store.directory.display()))?;
        let timeout = config.outbound.timeout.0;
        let outbound = outbound(&config)?;
        let authenticator = Arc::new(authenticator(&config, &vault, &outbound, &clock)?);
        let held_directory = config.store.directory.join(HELD);
        make_private(&held_directory)?;
        let hub = Hub::new(vault.clone(), WIRE, Arc::clone(&clock));
        hub.recall().await;
        let broker = Broker::start(Parts {
            vault,
            servers: AuthorizationServers::new(outbound, Arc::clone(&clock)),
            authenticator: Arc::clone(&authenticator),
            catalog: Arc::new(catalog(&config)?),
            hub: hub.clone(),
            clock: Arc::clone(&clock),
            settings: Settings {
                // The answer may still be on its way when the client gives up.
                provider_timeout: timeout + Duration::from_secs(1),
                audit_window: config.audit.window.0,
                retention: Retention {
                    events: config.events.retention.0,
                    most_revisions: config.events.most_revisions,
                    audit: config.audit.retention.0,
                },
                watch: WatchQuotas {
                    in_all: config.watch.streams,
                    per_tenant: config.watch.streams_per_tenant,
                    per_principal: config.watch.streams_per_principal,
                    per_connection: config.watch.streams_per_connection,
                },
                held_directory: Some(held_directory),
                erasures: ErasureList::new(config.store.directory.join(ERASURES)),
                public_url: public_url(&config)?,
            },
        })
        .await?;
        Ok(Self { config, broker, authenticator, hub, store, clock, random, certificates })
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// For whoever hears that the files have changed.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }
}

fn problems(count: usize) -> String {
    format!("{count} {}", if count == 1 { "problem" } else { "problems" })
}

/// The client for everything beyond this machine.
pub(super) fn outbound(config: &Config) -> anyhow::Result<Outbound> {
    Ok(Outbound::new(&policy(&config.outbound))?)
}

/// However short the time for a request is, a connection that does not come about in it was not sent: a refresh token
/// that may have been spent is a connection that may be lost.
fn policy(section: &OutboundSection) -> Policy {
    let (usual, timeout) = (Policy::default(), section.timeout.0);
    Policy {
        allow_http_loopback: section.allow_http_loopback,
        timeout,
        connect_timeout: usual.connect_timeout.min(timeout / 2),
        max_response: usual.max_response,
        extra_roots: section.extra_roots_pem.clone(),
        internal_hosts: section.internal_hosts.iter().map(|host| host.0.clone()).collect(),
    }
}

pub(super) async fn open_store(
    config: &Config,
    audit_key: &AuditKey,
    random: &Random,
) -> anyhow::Result<Arc<dyn Store>> {
    let options = SledOptions {
        directory: config.store.directory.clone(),
        page_cache: config.store.page_cache.0,
        row_cache: config.store.row_cache.0,
        installation: InstallationId::from_bytes(random.bytes()?),
        epoch: EntryId::from_bytes(random.bytes()?),
    };
    Ok(Arc::new(SledStore::open(options, Box::new(Chain::new(audit_key.clone()))).await?))
}

fn authenticator(
    config: &Config,
    vault: &Vault,
    outbound: &Outbound,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Authenticator> {
    let keys = vault.keys().clone();
    let subject_of = Box::new(move |family: &_, realm: &str, claims: &[&str]| keys.subject_id(family, realm, claims));
    let cache_key = vault.random().secret()?;
    Ok(Authenticator::new(config.identity.clone(), outbound, Arc::clone(clock), subject_of, &cache_key)?)
}

fn public_url(config: &Config) -> anyhow::Result<Option<PublicUrl>> {
    let url = config.http.public_url.clone();
    url.map(PublicUrl::new).transpose().context("http.public_url")
}

pub(super) fn catalog(config: &Config) -> Result<Catalog, NotConfigured> {
    let tenants = config.tenants.iter().map(|section| {
        let redirect_uris = section.redirect_uris.iter().map(|rule| match rule {
            RedirectRule::Exact(url) => UrlRule::Exact(url.clone()),
            RedirectRule::Loopback(path) => UrlRule::Loopback { path: path.clone() },
        });
        let tenant = Tenant {
            return_urls: section.return_urls.iter().cloned().map(UrlRule::Exact).collect(),
            redirect_uris: redirect_uris.collect(),
        };
        (section.id.clone(), tenant)
    });
    let mut providers = HashMap::new();
    for section in &config.providers {
        let provider = Provider {
            id: section.id.clone(),
            definition: section.definition().map_err(|_| NotConfigured(config.check()))?,
            client_id: section.client_id.clone(),
            client_secret: section.client_secret.clone(),
            refreshes_per_second: section.refreshes_per_second,
        };
        providers.insert(section.id.clone(), Arc::new(provider));
    }
    let plugins = config.plugins.iter().map(|section| {
        let provider = providers.get(&section.provider);
        let plugin = Plugin {
            id: section.id.clone(),
            display_name: section.display_name.clone(),
            provider: section.provider.clone(),
            // As answers will be read: else a scope in another spelling would seem never to be granted.
            scopes: provider
                .map_or_else(|| section.scopes.clone(), |provider| provider.definition.spelled_all(&section.scopes)),
            usage: section.usage.clone(),
            enabled: section.enabled,
        };
        (section.id.clone(), plugin)
    });
    let plugins = plugins.collect();
    Ok(Catalog { tenants: tenants.collect(), plugins, providers })
}

/// Durable on return, in a directory that is there: what is put into it later is only as durable as it is.
fn make_private(directory: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    let synced = made.and_then(|()| match directory.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    });
    synced.with_context(|| format!("{} cannot be made", directory.display()))
}

/// One cryptographic provider for the whole process; a second call finds it installed.
pub(super) fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Period;

    #[test]
    fn connecting_always_ends_before_the_request_does() {
        for timeout in (1..=60).map(Period::from_secs) {
            let policy = policy(&OutboundSection { timeout, ..OutboundSection::default() });
            assert!(policy.connect_timeout < policy.timeout && policy.timeout == timeout.0, "{timeout}");
        }
    }
}
