//! Tokens that a provider has handed out while the store takes nothing: they are held until it does, by this process or
//! the next.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use claviger::{
    audit::Chain,
    broker::{
        Binding, Broker, BrokerError, Catalog, GetPluginToken, Parts, PluginToken, Settings as BrokerSettings,
        StartAuthorization, StoreAuthCode, Target, Tenant, UrlRule,
    },
    dev::visitor::Decision,
    domain::{
        AuthorizationCode, BoxFuture, Call, CallContext, Caller, Clock, Connection, EntryId, FlowSecret,
        InstallationId, Plugin, Provider, Role, ScopeSet, SubjectId, Timestamp,
    },
    events::Hub,
    identity::Authenticator,
    oauth::AuthorizationServers,
    sealing::{AuditKey, Random, root_key},
    store::{
        AuditEntry, ChangeSet, CommitError, EventEntry, Head, IndexEntry, IndexKind, Receipt, RecordKey, Row, Store,
        StoreError,
    },
    vault::Vault,
};
use tokio::sync::watch;
use url::Url;

use super::{Endpoint, HoldPoint, IN_MARGIN, LIFETIME, in_time};
use crate::world::{self, CALLBACK, PLUGIN, World, outbound, parameter};

#[path = "../../support/memory_store.rs"]
mod memory_store;

/// A store whose disk is full when a test says so.
struct FullStore {
    inner: Arc<dyn Store>,
    full: AtomicBool,
    head: watch::Sender<Head>,
}

impl FullStore {
    fn over(inner: Arc<dyn Store>) -> Arc<Self> {
        let head = watch::Sender::new(inner.head());
        Arc::new(Self { inner, full: AtomicBool::new(false), head })
    }

    fn fill(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    fn empty(&self) {
        self.full.store(false, Ordering::SeqCst);
        self.head.send_replace(self.inner.head());
    }
}

impl Store for FullStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Err(CommitError::Unavailable);
            }
            let receipt = self.inner.commit(change).await?;
            self.head.send_replace(self.inner.head());
            Ok(receipt)
        })
    }

    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Row>, StoreError>> {
        self.inner.row(key)
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        self.inner.index(index, prefix, after, limit)
    }

    fn events(
        &self,
        after: claviger::domain::Revision,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        self.inner.events(after, limit)
    }

    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        self.inner.audit(after, limit)
    }

    fn head(&self) -> Head {
        *self.head.borrow()
    }

    fn watch_head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// A broker over a store that can be full, beside the world's provider and clock.
struct Installation {
    world: World,
    disk: Arc<dyn Store>,
    audit_key: AuditKey,
    held: PathBuf,
}

impl Installation {
    async fn new() -> Self {
        let mut world = World::start().await;
        world.stop().await;
        let audit_key = AuditKey::default();
        let linker = Box::new(Chain::new(audit_key.clone()));
        let disk =
            memory_store::MemoryStore::new(InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]), linker);
        let held = world.directory().join("held");
        fs::create_dir(&held).unwrap();
        Self { world, disk: Arc::new(disk), audit_key, held }
    }

    async fn start(&self) -> (Broker, Arc<FullStore>) {
        let store = FullStore::over(Arc::clone(&self.disk));
        let (config, random) = (self.world.config(), Random::system());
        let clock: Arc<dyn Clock> = Arc::new(self.world.clock.clone());
        let root = root_key::file::load(&config.sealing.root_key).unwrap();
        let vault =
            Vault::open(Arc::clone(&store) as Arc<dyn Store>, root, random.clone(), &self.audit_key).await.unwrap();
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
            catalog: self.catalog(),
            hub: Hub::new(vault.clone()),
            vault,
            clock,
            settings: BrokerSettings {
                provider_timeout: super::SECOND * 11,
                audit_window: super::SECOND * 10,
                held_directory: Some(self.held.clone()),
            },
        });
        (broker.await.unwrap(), store)
    }

    fn catalog(&self) -> Catalog {
        let config = self.world.config();
        let section = &config.providers[0];
        let provider = Provider {
            id: section.id.clone(),
            definition: section.definition().unwrap(),
            client_id: section.client_id.clone(),
            client_secret: section.client_secret.clone(),
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
            providers: [(provider.id.clone(), provider)].into(),
            plugins: [(plugin.id.clone(), plugin)].into(),
        }
    }

    /// The files of held tokens, once there are `count` whole ones.
    async fn held_files(&self, count: usize) -> Vec<Vec<u8>> {
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

fn call() -> Call {
    let caller = Caller {
        tenant: "acme".parse().unwrap(),
        subject: SubjectId::from_bytes([7; 32]),
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

async fn token(broker: &Broker) -> Result<PluginToken, BrokerError> {
    let request = GetPluginToken {
        plugin: PLUGIN.parse().unwrap(),
        account: None,
        scopes: None,
        min_remaining: None,
        min_generation: None,
        rejected_token_sha256: None,
        return_url: None,
    };
    broker.get_plugin_token(&call(), request).await
}

async fn authorize(world: &World, broker: &Broker) -> Url {
    let request = StartAuthorization {
        target: Target::Plugin(PLUGIN.parse().unwrap()),
        scopes: ScopeSet::default(),
        account: None,
        binding: Binding::Caller { redirect_uri: CALLBACK.parse().unwrap() },
        return_url: None,
    };
    let started = broker.start_authorization(&call(), request).await.unwrap();
    world.visit(started.authorization_url.as_str(), "alice", Decision::Approve).await
}

async fn store(broker: &Broker, answer: &Url) -> Result<Connection, BrokerError> {
    let request = StoreAuthCode::Flow {
        state: FlowSecret::new(parameter(answer, "state")),
        code: AuthorizationCode::new(parameter(answer, "code")),
        iss: Some(parameter(answer, "iss")),
    };
    broker.store_auth_code(&call(), request).await
}

fn serves(world: &World, token: &PluginToken, generation: u64) {
    assert_eq!(token.connection.credential.generation, generation);
    assert!(world.provider.is_access_token_live(&token.access_token));
}

/// A connection whose refresh has been answered just when the disk filled up; the call still waits.
async fn refreshed_onto_a_full_disk(
    installation: &Installation,
) -> (Broker, Arc<FullStore>, tokio::task::JoinHandle<Result<PluginToken, BrokerError>>) {
    let (broker, disk) = installation.start().await;
    let answer = authorize(&installation.world, &broker).await;
    store(&broker, &answer).await.unwrap();
    let hold = installation.world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    installation.world.clock.advance(IN_MARGIN);
    let caller = broker.clone();
    let waiting = tokio::spawn(async move { token(&caller).await });
    in_time(hold.arrived(1)).await;
    assert!(broker.is_ready());
    disk.fill();
    hold.release();
    let files = installation.held_files(1).await;
    assert!(!broker.is_ready(), "what a provider handed out is not stored");
    for secret in ["dev_at_", "dev_rt_"] {
        assert!(!files[0].windows(secret.len()).any(|part| part == secret.as_bytes()), "the file is sealed");
    }
    (broker, disk, waiting)
}

#[tokio::test]
async fn fresh_tokens_wait_for_the_store_and_are_then_served() {
    let installation = Installation::new().await;
    let (broker, disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    disk.empty();
    serves(&installation.world, &in_time(waiting).await.unwrap().unwrap(), 2);
    assert!(broker.is_ready());
    installation.held_files(0).await;
    installation.world.clock.advance(LIFETIME);
    serves(&installation.world, &token(&broker).await.unwrap(), 3);
    assert_eq!(installation.world.live_refresh_tokens(), 1);
}

#[tokio::test]
async fn fresh_tokens_that_the_store_never_took_are_applied_by_the_next_process() {
    let installation = Installation::new().await;
    let (_dying, _disk, waiting) = refreshed_onto_a_full_disk(&installation).await;
    waiting.abort();
    let (broker, _disk) = installation.start().await;
    assert!(broker.is_ready());
    installation.held_files(0).await;
    serves(&installation.world, &token(&broker).await.unwrap(), 2);
    assert_eq!(installation.world.refreshes(), 1);
    installation.world.clock.advance(LIFETIME);
    serves(&installation.world, &token(&broker).await.unwrap(), 3);
    assert_eq!((installation.world.refreshes(), installation.world.live_refresh_tokens()), (2, 1));
}

#[tokio::test]
async fn a_held_file_that_does_not_open_is_left_alone_and_keeps_nobody_from_starting() {
    let installation = Installation::new().await;
    fs::write(installation.held.join("damaged"), b"no sealed record").unwrap();
    let (broker, _disk) = installation.start().await;
    assert!(broker.is_ready());
    installation.held_files(1).await;
}

#[tokio::test]
async fn tokens_of_an_exchange_that_the_store_never_took_become_a_connection_in_the_next_process() {
    let installation = Installation::new().await;
    let (dying, disk) = installation.start().await;
    let answer = authorize(&installation.world, &dying).await;
    let hold = installation.world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let (caller, redirect) = (dying.clone(), answer.clone());
    let waiting = tokio::spawn(async move { store(&caller, &redirect).await.map(drop) });
    in_time(hold.arrived(1)).await;
    disk.fill();
    hold.release();
    installation.held_files(1).await;
    assert!(!dying.is_ready());
    waiting.abort();

    let (broker, _disk) = installation.start().await;
    installation.held_files(0).await;
    let mut head = installation.disk.watch_head();
    let scheduler = tokio::spawn(broker.clone().run_scheduler());
    installation.world.clock.advance(world::MINUTE);
    let connected = in_time(async {
        loop {
            head.mark_unchanged();
            match token(&broker).await {
                Ok(token) => return token,
                Err(_) => head.changed().await.unwrap(),
            }
        }
    });
    serves(&installation.world, &connected.await, 1);
    store(&broker, &answer).await.unwrap();
    broker.stop().await;
    scheduler.await.unwrap();
}
