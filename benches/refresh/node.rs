//! A broker as `serve` has it, without listeners, over a new store.

use std::{fs, num::NonZeroU32, ops::Range, path::Path, sync::Arc, time::Duration};

use claviger::{
    app::SystemClock,
    audit::Chain,
    broker::{Broker, Catalog, GetPluginToken, Parts, Retention, Settings, Tenant, WatchQuotas},
    config::{Config, StoreSection},
    domain::{
        AccessToken, Call, CallContext, Caller, Clock, Connection, ConnectionId, Consent, Credential, CredentialId,
        EntryId, Granted, InstallationId, Plugin, Provider, RefreshToken, Role, ScopeSet, SubjectId, TenantId,
        Timestamp,
    },
    events::Hub,
    identity::Authenticator,
    oauth::AuthorizationServers,
    outbound::{Outbound, Policy},
    sealing::{AuditKey, Random, root_key},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::{ErasureList, TokenSet, Vault},
};
use futures_util::stream::{self, StreamExt as _};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// Connections that are inserted at the same time.
const TOGETHER: usize = 64;

pub(super) struct Node {
    pub(super) broker: Broker,
    store: Arc<SledStore>,
    vault: Vault,
    stopping: CancellationToken,
    background: Vec<JoinHandle<()>>,
}

impl Node {
    pub(super) async fn start(directory: &Path, token_endpoint: &str, rate: NonZeroU32) -> Self {
        fs::create_dir_all(directory).unwrap();
        let root = directory.join("root.key");
        root_key::file::create(&root, &Random::system()).unwrap();
        let (key, random) = (AuditKey::default(), Random::system());
        let store = Arc::new(SledStore::open(options(directory), Box::new(Chain::new(key.clone()))).await.unwrap());
        let root = root_key::file::load(&root).unwrap();
        let vault = Vault::open(Arc::clone(&store) as Arc<dyn Store>, root, random.clone(), &key).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
        let nobody = Box::new(|_: &_, _: &str, _: &[&str]| unreachable!("no token is looked at"));
        let secret = random.secret().unwrap();
        let authenticator = Authenticator::new(Vec::new(), &outbound, Arc::clone(&clock), nobody, &secret).unwrap();
        let hub = Hub::new(vault.clone(), claviger::grpc::WIRE, Arc::clone(&clock));
        let broker = Broker::start(Parts {
            servers: AuthorizationServers::new(outbound, Arc::clone(&clock)),
            authenticator: Arc::new(authenticator),
            catalog: Arc::new(catalog(token_endpoint, rate)),
            hub: hub.clone(),
            vault: vault.clone(),
            clock,
            settings: Settings {
                provider_timeout: Duration::from_secs(10),
                audit_window: Duration::from_secs(10),
                retention: Retention::default(),
                watch: WatchQuotas::default(),
                held_directory: None,
                erasures: ErasureList::new(directory.join("erasures")),
                public_url: None,
            },
        });
        let (broker, stopping) = (broker.await.unwrap(), CancellationToken::new());
        let background = vec![tokio::spawn(broker.clone().run_scheduler()), tokio::spawn(hub.run(stopping.clone()))];
        Self { broker, store, vault, stopping, background }
    }

    /// Connections whose tokens are to be refreshed from `due` on, and lapse five minutes later.
    pub(super) async fn connect(&self, provider: &'static str, numbers: Range<u32>, due: impl Fn(u32) -> Timestamp) {
        let connecting = stream::iter(numbers).map(|number| {
            let due = due(number);
            async move {
                let connection = connection(provider, number, due);
                let mut change = self.vault.change(&tenant(), Some(connection.subject)).await.unwrap();
                change.insert_connection(&connection, &tokens(number), due);
                change.commit().await.unwrap();
            }
        });
        connecting.buffer_unordered(TOGETHER).collect::<()>().await;
    }

    pub(super) async fn generation(&self, provider: &str, number: u32) -> u64 {
        let found = self.vault.any_connection(connection_id(provider, number)).await.unwrap();
        found.unwrap().value.credential.generation
    }

    pub(super) async fn stop(self) {
        self.broker.stop().await;
        self.stopping.cancel();
        for task in self.background {
            task.await.unwrap();
        }
        self.store.close().await;
    }
}

pub(super) fn call(provider: &str, number: u32) -> Call {
    let caller = Caller {
        tenant: tenant(),
        subject: subject(provider, number),
        family: "platform".parse().unwrap(),
        external_id: "bench".to_owned(),
        agent: None,
        audience: vec!["claviger".to_owned()],
        scopes: ScopeSet::default(),
        roles: [Role::User].into(),
        issued_at: Timestamp::EPOCH,
        expires_at: Timestamp::NEVER,
    };
    Call {
        caller: Arc::new(caller),
        request_id: "bench".parse().unwrap(),
        peer: None,
        user_agent: None,
        context: CallContext::default(),
    }
}

pub(super) fn ask(plugin: &str) -> GetPluginToken {
    GetPluginToken {
        plugin: plugin.parse().unwrap(),
        account: None,
        scopes: None,
        min_remaining: None,
        min_generation: None,
        rejected_token_sha256: None,
        return_url: None,
    }
}

fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

fn subject(provider: &str, number: u32) -> SubjectId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[4..4 + provider.len()].copy_from_slice(provider.as_bytes());
    SubjectId::from_bytes(bytes)
}

fn connection_id(provider: &str, number: u32) -> ConnectionId {
    ConnectionId::from_bytes(bytes(provider, number))
}

fn bytes(provider: &str, number: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[4..4 + provider.len()].copy_from_slice(provider.as_bytes());
    bytes
}

fn connection(provider: &str, number: u32, due: Timestamp) -> Connection {
    let since = due.minus(HOUR - HOUR / 12);
    let credential = Credential::pending(CredentialId::from_bytes(bytes(provider, number)), since);
    let subject = subject(provider, number);
    let granted =
        Granted { scopes: scopes(), expires_at: Some(since.plus(HOUR)), refreshable: true, refresh_token_end: None };
    Connection {
        id: connection_id(provider, number),
        tenant: tenant(),
        subject,
        provider: provider.parse().unwrap(),
        account: Some(format!("account {number}")),
        created_at: since,
        consent: Consent { subject, agent: None, scopes: scopes(), at: since },
        credential: credential.authorized(granted, since).unwrap().credential,
        remote_revocation: None,
        withheld: false,
    }
}

fn tokens(number: u32) -> TokenSet {
    TokenSet {
        access: AccessToken::new(format!("{number}.{}", "a".repeat(900))),
        refresh: Some(RefreshToken::new(format!("{number}.{}", "r".repeat(300)))),
        id_token: None,
    }
}

fn scopes() -> ScopeSet {
    ["read".parse().unwrap()].into_iter().collect()
}

fn options(directory: &Path) -> SledOptions {
    let section = StoreSection::at(directory.join("store"));
    SledOptions {
        directory: section.directory,
        page_cache: section.page_cache.0,
        row_cache: section.row_cache.0,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    }
}

fn catalog(token_endpoint: &str, rate: NonZeroU32) -> Catalog {
    let sections = super::PROVIDERS.map(|id| {
        format!(
            r#"
            [[providers]]
            id = "{id}"
            definition = "oidc"
            issuer = "https://{id}.example"
            client_id = "bench"
            refreshes_per_second = {rate}
            endpoints.token = "{token_endpoint}"
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
        tenants: [(self::tenant(), tenant)].into(),
        providers: providers.map(|provider| (provider.id.clone(), Arc::new(provider))).collect(),
        plugins: plugins.map(|plugin| (plugin.id.clone(), plugin)).collect(),
    }
}
