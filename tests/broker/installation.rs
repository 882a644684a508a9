//! A broker without its edges, over a store in memory whose disk can be full, beside a world's provider and clock.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use claviger::{
    audit::Chain,
    broker::{
        Binding, Broker, BrokerError, Catalog, GetPluginToken, Parts, PluginToken, Retention,
        Settings as BrokerSettings, StartAuthorization, StoreAuthCode, Target, Tenant, UrlRule, WatchQuotas,
    },
    dev::visitor::Decision,
    domain::{
        AuthorizationCode, Call, CallContext, Caller, Clock, Connection, EntryId, FlowSecret, InstallationId, Plugin,
        Provider, Role, ScopeSet, SubjectId, Timestamp,
    },
    events::Hub,
    grpc::WIRE,
    identity::Authenticator,
    oauth::AuthorizationServers,
    sealing::{AuditKey, Random, root_key},
    store::Store,
    vault::{ErasureList, Vault},
};
use url::Url;

use crate::{
    observer::in_time,
    world::{CALLBACK, PLUGIN, World, outbound, parameter},
};

#[path = "../support/full_store.rs"]
mod full_store;
#[path = "../support/memory_store.rs"]
mod memory_store;

pub(crate) use full_store::FullStore;

/// A broker over a store that can be full, beside the world's provider and clock.
pub(crate) struct Installation {
    pub(crate) world: World,
    pub(crate) disk: Arc<dyn Store>,
    pub(crate) held: PathBuf,
    pub(crate) catalog: Catalog,
    pub(crate) retention: Retention,
    audit_key: AuditKey,
}

impl Installation {
    pub(crate) async fn new() -> Self {
        let mut world = World::start().await;
        world.stop().await;
        let audit_key = AuditKey::default();
        let linker = Box::new(Chain::new(audit_key.clone()));
        let disk =
            memory_store::MemoryStore::new(InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]), linker);
        let held = world.directory().join("held");
        fs::create_dir(&held).unwrap();
        Self { catalog: catalog(&world), retention: Retention::default(), world, disk: Arc::new(disk), audit_key, held }
    }

    pub(crate) async fn start(&self) -> (Broker, Arc<FullStore>) {
        let store = FullStore::over(Arc::clone(&self.disk));
        let (config, random) = (self.world.config(), Random::system());
        let clock: Arc<dyn Clock> = Arc::new(self.world.clock.clone());
        let vault = self.vault(Arc::clone(&store) as Arc<dyn Store>).await;
        let keys = vault.keys().clone();
        let subject_of =
            Box::new(move |family: &_, realm: &str, claims: &[&str]| keys.subject_id(family, realm, claims));
        let authenticator = Authenticator::new(
            config.identity.clone(),
            &outbound(),
            Arc::clone(&clock),
            subject_of,
            &random.secret().unwrap(),
        );
        let broker = Broker::start(Parts {
            servers: AuthorizationServers::new(outbound(), Arc::clone(&clock)),
            authenticator: Arc::new(authenticator.unwrap()),
            catalog: Arc::new(self.catalog.clone()),
            hub: Hub::new(vault.clone(), WIRE, Arc::clone(&clock)),
            vault,
            clock,
            settings: BrokerSettings {
                provider_timeout: Duration::from_secs(11),
                audit_window: Duration::from_secs(10),
                retention: self.retention,
                watch: WatchQuotas::default(),
                held_directory: Some(self.held.clone()),
                erasures: ErasureList::new(self.world.directory().join("erasures")),
                public_url: None,
            },
        });
        (broker.await.unwrap(), store)
    }

    pub(crate) async fn vault(&self, store: Arc<dyn Store>) -> Vault {
        let root = root_key::file::load(&self.world.config().sealing.root_keys[0]).unwrap();
        Vault::open(store, root, Random::system(), &self.audit_key).await.unwrap()
    }

    /// The files of held tokens, once there are `count` whole ones.
    pub(crate) async fn held_files(&self, count: usize) -> Vec<Vec<u8>> {
        in_time(async {
            loop {
                let files = fs::read_dir(&self.held).unwrap().map(|entry| fs::read(entry.unwrap().path()));
                let files: Vec<_> = files.filter_map(Result::ok).filter(|file| !file.is_empty()).collect();
                if files.len() == count {
                    return files;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

fn catalog(world: &World) -> Catalog {
    let config = world.config();
    let section = &config.providers[0];
    let provider = Provider {
        id: section.id.clone(),
        definition: section.definition().unwrap(),
        client_id: section.client_id.clone(),
        client_secret: section.client_secret.clone(),
        refreshes_per_second: section.refreshes_per_second,
    };
    let plugin = &config.plugins[0];
    let plugin = Plugin {
        id: plugin.id.clone(),
        display_name: plugin.display_name.clone(),
        provider: plugin.provider.clone(),
        scopes: plugin.scopes.clone(),
        usage: plugin.usage.clone(),
        enabled: true,
    };
    assert_eq!(plugin.id.as_str(), PLUGIN);
    let redirect_uris = vec![UrlRule::Loopback { path: "/callback".to_owned() }];
    let tenant = Tenant { return_urls: Vec::new(), redirect_uris };
    Catalog {
        tenants: [("acme".parse().unwrap(), tenant)].into(),
        providers: [(provider.id.clone(), Arc::new(provider))].into(),
        plugins: [(plugin.id.clone(), plugin)].into(),
    }
}

fn subject(user: u16) -> SubjectId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&user.to_be_bytes());
    SubjectId::from_bytes(bytes)
}

pub(crate) fn call(user: u16) -> Call {
    let caller = Caller {
        tenant: "acme".parse().unwrap(),
        subject: subject(user),
        family: "platform".parse().unwrap(),
        external_id: "alice".to_owned(),
        agent: None,
        audience: vec!["claviger".to_owned()],
        scopes: ScopeSet::default(),
        roles: [Role::User].into(),
        issued_at: Timestamp::EPOCH,
        expires_at: Timestamp::NEVER,
    };
    Call {
        caller: Arc::new(caller),
        request_id: "request".parse().unwrap(),
        peer: None,
        user_agent: None,
        context: CallContext::default(),
    }
}

pub(crate) async fn token(broker: &Broker, user: u16) -> Result<PluginToken, BrokerError> {
    let request = GetPluginToken {
        plugin: PLUGIN.parse().unwrap(),
        account: None,
        scopes: None,
        min_remaining: None,
        min_generation: None,
        rejected_token_sha256: None,
        return_url: None,
    };
    broker.get_plugin_token(&call(user), request).await
}

pub(crate) async fn authorize(world: &World, broker: &Broker, user: u16) -> Url {
    let request = StartAuthorization {
        target: Target::Plugin(PLUGIN.parse().unwrap()),
        scopes: ScopeSet::default(),
        account: None,
        binding: Binding::Caller { redirect_uri: CALLBACK.parse().unwrap() },
        return_url: None,
    };
    let started = broker.start_authorization(&call(user), request).await.unwrap();
    world.visit(started.authorization_url.as_str(), "alice", Decision::Approve).await
}

pub(crate) async fn store(broker: &Broker, answer: &Url, user: u16) -> Result<Connection, BrokerError> {
    let request = StoreAuthCode::Flow {
        state: FlowSecret::new(parameter(answer, "state")),
        code: AuthorizationCode::new(parameter(answer, "code")),
        iss: Some(parameter(answer, "iss")),
    };
    Ok(broker.store_auth_code(&call(user), request).await?.connection)
}

pub(crate) fn serves(world: &World, token: &PluginToken, generation: u64) {
    assert_eq!(token.connection.value.credential.generation, generation);
    assert!(world.provider.is_access_token_live(&token.access_token));
}
