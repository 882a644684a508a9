//! A gRPC server on loopback over a whole broker, and a client that says exactly what it is told to.

use std::{collections::HashMap, io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use claviger::{
    audit::Chain,
    broker::{self, Broker, Catalog, Tenant, UrlRule, WatchQuotas},
    dev::{self, DevProvider, PlatformClaims},
    domain::{Clock, EntryId, InstallationId, Plugin, Provider, Timestamp, TokenUsage},
    events::Hub,
    grpc::WIRE,
    grpc::{self, RequestIds, Server, Settings},
    identity::{Authenticator, Family},
    oauth::{AuthorizationServers, definitions},
    outbound::{Outbound, Policy},
    proto::v1::{
        connection_service_client::ConnectionServiceClient, token_broker_service_client::TokenBrokerServiceClient,
    },
    sealing::{AuditKey, Random, RootKey},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::{ErasureList, Vault},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    client::Grpc,
    metadata::{Ascii, MetadataKey},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::{
    clock::ManualClock,
    emitted::{self, Emitted},
    gated_store::{Gate, GatedStore},
    recorded::Recorded,
};

pub(crate) struct Rig {
    /// Before the directory, which it searches when it goes.
    emitted: Emitted,
    pub(crate) clock: ManualClock,
    pub(crate) broker: Broker,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    pub(crate) store: Arc<dyn Store>,
    /// Changes what there is without the broker, as another use case does.
    pub(crate) vault: Vault,
    /// Before a subject's connections.
    pub(crate) gate: Gate,
    platform: DevProvider,
    channel: Channel,
    _directory: TempDir,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::after(settings, async |_| {}).await
    }

    /// What happens before the broker starts stands in the log alone, and not in its memory.
    pub(crate) async fn after(settings: Settings, past: impl AsyncFnOnce(&Vault)) -> Self {
        let clock = ManualClock::new();
        let random = Random::system();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fill = move |bytes: &mut [u8]| Random::system().fill(bytes).unwrap();
        let platform =
            DevProvider::start(listener, dev::Options::default(), Arc::new(clock.clone()), fill).await.unwrap();
        let directory = TempDir::with_prefix("claviger-test-").unwrap();
        let emitted = Emitted::of("rig").below(directory.path());
        let (broker, authenticator, vault, gate) = broker(&directory, &platform, &clock, &random, past).await;
        let server = Server::new(grpc::Parts {
            broker: broker.clone(),
            authenticator,
            clock: Arc::new(clock.clone()),
            request_ids: RequestIds::new([1; 8]),
            settings,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone().cancelled_owned();
        let serving = tokio::spawn(async move { server.serve(listener, stop).await.unwrap() });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let store = Arc::clone(vault.store());
        Self {
            emitted,
            clock,
            broker,
            address,
            shutdown,
            serving,
            store,
            vault,
            gate,
            platform,
            channel,
            _directory: directory,
        }
    }

    pub(crate) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// An `authorization` value of a user with an ordinary token.
    pub(crate) fn bearer(&self, user: &str) -> String {
        format!("Bearer {}", self.token(user))
    }

    pub(crate) fn token(&self, user: &str) -> String {
        let claims = PlatformClaims { lifetime: Duration::from_secs(24 * 3600), ..PlatformClaims::to("claviger") };
        let token = self.platform.mint_platform_token(user, &claims).unwrap().expose().to_owned();
        emitted::know("platform token's signature", token.rsplit('.').next().unwrap());
        token
    }

    pub(crate) fn channel(&self) -> Recorded {
        Recorded::new(self.channel.clone(), self.emitted.outputs.clone())
    }

    pub(crate) fn tokens(&self) -> TokenBrokerServiceClient<Recorded> {
        TokenBrokerServiceClient::new(self.channel())
    }

    pub(crate) fn connections(&self) -> ConnectionServiceClient<Recorded> {
        ConnectionServiceClient::new(self.channel())
    }

    /// Alice's call with this message.
    pub(crate) fn by_alice<T>(&self, message: T) -> Request<T> {
        with_metadata(message, &[("authorization", &self.bearer("alice"))])
    }

    /// Calls any path with an empty message.
    pub(crate) async fn call(&self, path: &str, metadata: &[(&str, &str)]) -> Result<Response<()>, Status> {
        let mut client = Grpc::new(self.channel());
        client.ready().await.unwrap();
        let codec = ProstCodec::<(), ()>::default();
        client.unary(with_metadata((), metadata), path.parse().unwrap(), codec).await
    }
}

pub(crate) const VALIDATE: &str = "/claviger.v1.TokenBrokerService/ValidatePlatformToken";

pub(crate) fn with_metadata<T>(message: T, metadata: &[(&str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(name.parse::<MetadataKey<Ascii>>().unwrap(), value.parse().unwrap());
    }
    request
}

/// The reason's name as it stands in the details; empty where the status has none.
pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().filter(|info| info.domain == "claviger").map(|info| info.reason).unwrap_or_default()
}

/// Returns once the server has closed the connection, in good order or with a reset.
pub(crate) async fn closed(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = socket.read_to_end(&mut rest).await {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

async fn broker(
    directory: &TempDir,
    platform: &DevProvider,
    clock: &ManualClock,
    random: &Random,
    past: impl AsyncFnOnce(&Vault),
) -> (Broker, Arc<Authenticator>, Vault, Gate) {
    let audit_key = AuditKey::default();
    let options = SledOptions {
        directory: directory.path().join("store"),
        page_cache: 8 << 20,
        row_cache: 1 << 20,
        installation: InstallationId::from_bytes(random.bytes().unwrap()),
        epoch: EntryId::from_bytes(random.bytes().unwrap()),
    };
    let store = SledStore::open(options, Box::new(Chain::new(audit_key.clone()))).await.unwrap();
    let (store, gate) = GatedStore::over(Arc::new(store));
    let store: Arc<dyn Store> = Arc::new(store);
    let root = RootKey::from_secret(&random.secret().unwrap());
    let vault = Vault::open(Arc::clone(&store), root, random.clone(), &audit_key).await.unwrap();
    past(&vault).await;
    let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
    let keys = vault.keys().clone();
    let authenticator = Authenticator::new(
        vec![family(platform)],
        &outbound,
        Arc::new(clock.clone()),
        Box::new(move |family, realm, claims| keys.subject_id(family, realm, claims)),
        &random.secret().unwrap(),
    );
    let authenticator = Arc::new(authenticator.unwrap());
    let hub = Hub::new(vault.clone(), WIRE, Arc::new(clock.clone()));
    tokio::spawn(hub.clone().run(CancellationToken::new()));
    let parts = broker::Parts {
        vault: vault.clone(),
        servers: AuthorizationServers::new(outbound, Arc::new(clock.clone())),
        authenticator: Arc::clone(&authenticator),
        catalog: Arc::new(catalog(platform)),
        hub,
        clock: Arc::new(clock.clone()),
        settings: broker::Settings {
            provider_timeout: Duration::from_secs(10),
            audit_window: Duration::from_secs(10),
            retention: broker::Retention::default(),
            watch: WatchQuotas::default(),
            held_directory: None,
            erasures: ErasureList::new(directory.path().join("erasures")),
            public_url: None,
        },
    };
    (Broker::start(parts).await.unwrap(), authenticator, vault, gate)
}

fn family(platform: &DevProvider) -> Family {
    let text = format!(
        "id = \"platform\"\n[[issuers]]\nissuer = \"{}\"\naudiences = [\"claviger\"]\ntenant = {{ fixed = \"acme\" }}\n\
         roles = [{{ role = \"operator\", claim = \"sub\", values = [\"alice\"] }}]",
        platform.platform_issuer()
    );
    toml::from_str(&text).unwrap()
}

fn catalog(platform: &DevProvider) -> Catalog {
    let mut definition = definitions::shipped("oidc").unwrap();
    definition.issuer = Some(platform.issuer().parse().unwrap());
    let provider = Provider {
        id: "dev".parse().unwrap(),
        definition,
        client_id: dev::CLIENT_ID.to_owned(),
        client_secret: Some(platform.client_secret()),
        refreshes_per_second: Provider::REFRESHES_PER_SECOND,
    };
    let plugins = dev::PLUGINS.iter().map(|plugin| Plugin {
        id: plugin.id.parse().unwrap(),
        display_name: plugin.name.to_owned(),
        provider: provider.id.clone(),
        scopes: plugin.scopes(),
        usage: TokenUsage::default(),
        enabled: true,
    });
    let tenant =
        Tenant { return_urls: Vec::new(), redirect_uris: vec![UrlRule::Loopback { path: "/callback".to_owned() }] };
    Catalog {
        tenants: HashMap::from([("acme".parse().unwrap(), tenant)]),
        plugins: plugins.map(|plugin| (plugin.id.clone(), plugin)).collect(),
        providers: HashMap::from([(provider.id.clone(), Arc::new(provider))]),
    }
}
