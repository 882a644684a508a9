//! The store, vault and broker as `serve` has them, without listeners and background tasks.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use claviger::{
    audit::Chain,
    broker::{Broker, Catalog, Parts, Retention, Settings, Tenant, WatchQuotas},
    config::{Config, StoreSection},
    domain::{BoxFuture, Clock, EntryId, InstallationId, Plugin, Provider, Timestamp},
    events::Hub,
    identity::Authenticator,
    oauth::AuthorizationServers,
    outbound::{Outbound, Policy},
    sealing::{AuditKey, Random, root_key},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::{ErasureList, Vault},
};

pub(super) const PROVIDERS: [&str; 4] = ["one", "two", "three", "four"];
/// Days for which both logs are kept; a day is a round of refreshes.
pub(super) const KEPT: u32 = 2;
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Product {
    pub(super) store: Arc<SledStore>,
    pub(super) vault: Vault,
    pub(super) broker: Broker,
    pub(super) clock: TurnedClock,
}

/// Stands still until it is turned.
#[derive(Clone)]
pub(super) struct TurnedClock(Arc<AtomicI64>);

impl TurnedClock {
    pub(super) fn turn(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for TurnedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Product {
    /// With the caches' default sizes.
    pub(super) async fn open(directory: &Path) -> Self {
        let (key, random) = (AuditKey::default(), Random::system());
        let linker = Box::new(Chain::new(key.clone()));
        let store = Arc::new(SledStore::open(options(directory), linker).await.unwrap());
        let root = root_key::file::load(&root_key_of(directory)).unwrap();
        let vault = Vault::open(Arc::clone(&store) as Arc<dyn Store>, root, random.clone(), &key).await.unwrap();
        let clock = TurnedClock(Arc::new(AtomicI64::new(Timestamp::from_secs(1_800_000_000).as_millis())));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let outbound = Outbound::new(&Policy::default()).unwrap();
        let nobody = Box::new(|_: &_, _: &str, _: &[&str]| unreachable!("no token is looked at"));
        let secret = random.secret().unwrap();
        let authenticator = Authenticator::new(Vec::new(), &outbound, Arc::clone(&shared), nobody, &secret).unwrap();
        let broker = Broker::start(Parts {
            servers: AuthorizationServers::new(outbound, Arc::clone(&shared)),
            authenticator: Arc::new(authenticator),
            catalog: Arc::new(catalog()),
            hub: Hub::new(vault.clone(), claviger::grpc::WIRE, Arc::clone(&shared)),
            vault: vault.clone(),
            clock: shared,
            settings: Settings {
                provider_timeout: Duration::from_secs(10),
                audit_window: Duration::from_secs(10),
                retention: Retention { events: DAY, audit: KEPT * DAY, ..Retention::default() },
                watch: WatchQuotas::default(),
                held_directory: None,
                erasures: ErasureList::new(directory.join("erasures")),
                public_url: None,
            },
        });
        let broker = broker.await.unwrap();
        assert!(broker.is_ready());
        Self { store, vault, broker, clock }
    }

    pub(super) async fn close(self) {
        self.broker.stop().await;
        self.store.close().await;
    }
}

/// A new place for a store, with a root key beside it.
pub(super) fn make_place(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    root_key::file::create(&root_key_of(directory), &Random::system()).unwrap();
}

pub(super) fn store_of(directory: &Path) -> PathBuf {
    directory.join("store")
}

pub(super) fn options(directory: &Path) -> SledOptions {
    let section = StoreSection::at(store_of(directory));
    SledOptions {
        directory: section.directory,
        page_cache: section.page_cache.0,
        row_cache: section.row_cache.0,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    }
}

fn root_key_of(directory: &Path) -> PathBuf {
    directory.join("root.key")
}

fn catalog() -> Catalog {
    let sections = PROVIDERS.map(|id| {
        format!(
            r#"
            [[providers]]
            id = "{id}"
            definition = "oidc"
            issuer = "https://{id}.example"
            client_id = "bench"
            [[plugins]]
            id = "{id}"
            display_name = "Bench"
            provider = "{id}"
            scopes = ["read"]
            "#
        )
    });
    let rest = "store = { directory = \"store\" }\nsealing = { root_keys = [\"root.key\"] }\n";
    let config: Config = toml::from_str(&format!("{rest}{}", sections.concat())).unwrap();
    let providers = config.providers.iter().map(|section| Provider {
        id: section.id.clone(),
        definition: section.definition().unwrap(),
        client_id: section.client_id.clone(),
        client_secret: None,
        refreshes_per_second: section.refreshes_per_second,
    });
    let plugins = config.plugins.iter().map(|section| Plugin {
        id: section.id.clone(),
        display_name: section.display_name.clone(),
        provider: section.provider.clone(),
        scopes: section.scopes.clone(),
        usage: section.usage.clone(),
        enabled: true,
    });
    let tenant = Tenant { return_urls: Vec::new(), redirect_uris: Vec::new() };
    Catalog {
        tenants: [("acme".parse().unwrap(), tenant)].into(),
        providers: providers.map(|provider| (provider.id.clone(), Arc::new(provider))).collect(),
        plugins: plugins.map(|plugin| (plugin.id.clone(), plugin)).collect(),
    }
}
