//! A whole broker over real sockets: sled in a temporary directory, a development authorization server beyond the
//! process edge, and a clock that moves when a test says so. Restarting it keeps the directory and the provider.

use std::{
    fs,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use claviger::{
    app::{App, Listeners, Reloader},
    broker::Broker,
    client::{ClientError, Connect},
    config::{
        AuditSection, Config, EventsSection, GrpcSection, HttpSection, LimitsSection, LogSection, MetricsSection,
        OutboundSection, Period, PluginSection, ProviderSection, RedirectRule, SealingSection, Size, StoreSection,
        TenantSection, TracesSection, WatchSection,
    },
    dev::{
        self, DevProvider, PlatformClaims,
        visitor::{Decision, Visitor},
    },
    domain::{Clock, ConfigurationDigest, Endpoints, PresentedToken, Rotation, Scope, Timestamp, TokenUsage},
    identity::{Algorithm, Family, Issuer, IssuerName, Keys, SignIn, TenantRule},
    outbound::{Outbound, Policy},
    proto::v1::{
        self, ErrorReason, connection_service_client::ConnectionServiceClient,
        token_broker_service_client::TokenBrokerServiceClient,
    },
    sealing::{Random, root_key},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
};
use url::Url;

use crate::{
    emitted::{self, Emitted},
    recorded::Recorded,
    support::{
        clock::ManualClock,
        heard::{Client, Heard},
        records::Records,
    },
};

pub(crate) const CALLBACK: &str = "http://127.0.0.1/callback";
pub(crate) const PLUGIN: &str = "calendar";
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) type RawConnections = ConnectionServiceClient<InterceptedService<Recorded, Bearer>>;
pub(crate) type RawBroker = TokenBrokerServiceClient<InterceptedService<Recorded, Bearer>>;

pub(crate) struct Settings {
    pub(crate) access_token_lifetime: Duration,
    pub(crate) rotation: Rotation,
    pub(crate) audit_window: u64,
    pub(crate) rate: u32,
    /// The provider keeps its state in files, so that it can be stopped and started again.
    pub(crate) durable_provider: bool,
    /// Where browsers find the broker's pages; `None`: it has none.
    pub(crate) pages: Option<Pages>,
    /// What an operator wrote otherwise.
    pub(crate) configure: Box<dyn Fn(&mut Config) + Send + Sync>,
}

/// The broker's HTTP listener, bound before everything else: providers must know where to send browsers back to.
pub(crate) struct Pages {
    pub(crate) listener: std::net::TcpListener,
    /// As browsers see it.
    pub(crate) public_url: Url,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access_token_lifetime: 10 * MINUTE,
            rotation: Rotation::Strict,
            audit_window: 10,
            rate: 100_000,
            durable_provider: false,
            pages: None,
            configure: Box::new(|_| {}),
        }
    }
}

pub(crate) struct World {
    /// Before `directory`, which it searches when it goes.
    pub(crate) emitted: Emitted,
    pub(crate) clock: ManualClock,
    pub(crate) provider: DevProvider,
    /// On every stream of every client.
    pub(crate) heard: Heard,
    settings: Settings,
    directory: TempDir,
    /// Below `directory`; another one after each crash.
    store: PathBuf,
    running: Option<Running>,
}

struct Running {
    grpc: SocketAddr,
    broker: Broker,
    reloader: Box<Reloader>,
    shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

/// No test that opens a stream can forget to have it judged.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.heard.is_new() {
            return;
        }
        let runtime = tokio::runtime::Handle::current();
        // The broker cannot end while its only thread waits for that.
        let threads = runtime.metrics().num_workers();
        assert!(threads > 1, "a test with streams and one thread calls `stop` at its end");
        let ended = async { tokio::time::timeout(MINUTE, self.stop()).await.expect("the broker stops") };
        tokio::task::block_in_place(|| runtime.block_on(ended));
    }
}

#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let clock = ManualClock::new();
        let directory = TempDir::with_prefix("claviger-test-").unwrap();
        let emitted = Emitted::of("world").below(directory.path());
        let root_key = directory.path().join("root.key");
        root_key::file::create(&root_key, &Random::system()).unwrap();
        emitted::know("root key", fs::read_to_string(root_key).unwrap().trim().rsplit(':').next().unwrap());
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let provider = start_provider(anywhere, &settings, &directory, &clock).await;
        let store = directory.path().join("store");
        let heard = Heard::default();
        let mut world = Self { emitted, clock, provider, heard, settings, directory, store, running: None };
        Box::pin(world.run()).await;
        world
    }

    /// Stops the broker in good order and starts it again on what it left behind.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        Box::pin(self.run()).await;
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown.cancel();
            running.serving.await.unwrap().unwrap();
        }
        self.judge().await;
    }

    /// Holds what was heard on streams against the log of the broker that was stopped.
    async fn judge(&self) {
        if self.heard.is_new() {
            let records = Records::open(self).await;
            self.heard.hold_against(&records.vault).await;
            records.close().await;
        }
    }

    /// Ends the broker as a kill would, for whoever comes next: they find the disk as it is at this moment. What the
    /// killed one still had in the air may land, but nobody will ever read it. Nothing may be writing while this runs.
    pub(crate) async fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            running.serving.abort();
            assert!(running.serving.await.is_err_and(|error| error.is_cancelled()));
        }
        let mut image = self.store.clone().into_os_string();
        image.push("-left");
        let image = PathBuf::from(image);
        copy(&self.store, &image);
        self.store = image;
    }

    pub(crate) async fn run(&mut self) {
        let config = self.config();
        let mut listeners = Listeners::bind(&config).await.unwrap();
        if let Some(pages) = &self.settings.pages {
            listeners.http = TcpListener::from_std(pages.listener.try_clone().unwrap()).unwrap();
        }
        let grpc = listeners.grpc.local_addr().unwrap();
        let app = Box::pin(App::build(config, Arc::new(self.clock.clone()), Random::system())).await.unwrap();
        let shutdown = CancellationToken::new();
        let (broker, reloader) = (app.broker().clone(), Box::new(app.reloader()));
        let serving = tokio::spawn(app.serve(listeners, shutdown.clone()));
        self.running = Some(Running { grpc, broker, reloader, shutdown, serving });
    }

    /// Starts the broker again with another configuration.
    pub(crate) async fn reconfigure(&mut self, configure: impl Fn(&mut Config) + Send + Sync + 'static) {
        self.settings.configure = Box::new(configure);
        self.restart().await;
    }

    /// Gives the running broker another configuration.
    pub(crate) async fn reload(&mut self, configure: impl Fn(&mut Config) + Send + Sync + 'static) {
        self.settings.configure = Box::new(configure);
        let (config, running) = (self.config(), self.running.as_ref().expect("the broker runs"));
        let digest = ConfigurationDigest(Random::system().bytes().unwrap());
        assert!(running.reloader.reload(Ok((config, digest))).await.is_some(), "it was reloaded");
    }

    /// Starts a stopped provider again, at its address and with its state: see [`Settings::durable_provider`].
    pub(crate) async fn start_provider(&mut self) {
        self.provider = start_provider(self.provider.address(), &self.settings, &self.directory, &self.clock).await;
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.running.as_ref().expect("the broker runs").grpc
    }

    /// For what no call asks for yet.
    pub(crate) fn broker(&self) -> &Broker {
        &self.running.as_ref().expect("the broker runs").broker
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// A caller with an ordinary token that outlives every test.
    pub(crate) fn client(&self, user: &str) -> Client {
        self.client_with(&self.token(user, &claims()))
    }

    pub(crate) fn client_with(&self, token: &PresentedToken) -> Client {
        let endpoint = format!("http://{}", self.grpc());
        let client = Connect { endpoint, ..Connect::default() }.with_token(token).unwrap();
        self.heard.by(client, token)
    }

    /// The generated client, for what the library's own does not show.
    pub(crate) fn raw_connections(&self, token: &PresentedToken) -> RawConnections {
        let channel = tonic::transport::Endpoint::try_from(format!("http://{}", self.grpc())).unwrap().connect_lazy();
        ConnectionServiceClient::with_interceptor(self.recorded(channel), bearer(token))
    }

    pub(crate) fn raw(&self, token: &PresentedToken) -> RawBroker {
        self.raw_with_window(token, 64 << 10)
    }

    /// Of which no more than `window` bytes of a stream are taken before it is read from.
    pub(crate) fn raw_with_window(&self, token: &PresentedToken, window: u32) -> RawBroker {
        let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", self.grpc())).unwrap();
        let channel = endpoint.initial_stream_window_size(window).connect_lazy();
        TokenBrokerServiceClient::with_interceptor(self.recorded(channel), bearer(token))
    }

    fn recorded(&self, channel: tonic::transport::Channel) -> Recorded {
        Recorded::new(channel, self.emitted.outputs.clone())
    }

    pub(crate) fn token(&self, user: &str, claims: &PlatformClaims) -> PresentedToken {
        let token = self.provider.mint_platform_token(user, claims).unwrap();
        emitted::know("platform token's signature", token.expose().rsplit('.').next().unwrap());
        token
    }

    /// Connects an account for [`PLUGIN`], all the way through the provider's pages.
    pub(crate) async fn connect(&self, client: &Client, user: &str) -> v1::Connection {
        let answer = self.authorize(client, user).await;
        self.store(client, &answer).await.unwrap()
    }

    /// Up to the redirect that carries the code.
    pub(crate) async fn authorize(&self, client: &Client, user: &str) -> Url {
        let started = client.start_authorization(start(PLUGIN)).await.unwrap();
        self.visit(&started.authorization_url, user, Decision::Approve).await
    }

    pub(crate) async fn visit(&self, url: &str, user: &str, decision: Decision) -> Url {
        let url: Url = url.parse().unwrap();
        for secret in ["state", "nonce", "code_challenge"] {
            let value = parameter(&url, secret);
            // The broker's own; tests write shorter ones.
            if value.len() >= 43 {
                emitted::know(secret, value);
            }
        }
        Visitor::new(outbound()).visit(&url, user, decision).await.unwrap()
    }

    pub(crate) async fn store(&self, client: &Client, answer: &Url) -> Result<v1::Connection, ClientError> {
        Ok(client.store_auth_code(code_of(answer)).await?.connection.unwrap())
    }

    /// Whether the provider's API for [`PLUGIN`] takes the token.
    pub(crate) fn accepts(&self, token: &v1::GetPluginTokenResponse) -> bool {
        self.provider.is_access_token_live(&claviger::domain::AccessToken::new(token.access_token.clone()))
    }

    pub(crate) fn live_refresh_tokens(&self) -> usize {
        self.provider.grants().iter().map(|grant| grant.live_refresh_tokens).sum()
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.provider.stats().token_requests(dev::GrantType::RefreshToken)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn config(&self) -> Config {
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let path = self.directory.path();
        let mut config = Config {
            grpc: GrpcSection { listen: anywhere, rate: self.settings.rate, ..GrpcSection::default() },
            http: HttpSection {
                listen: anywhere,
                public_url: self.settings.pages.as_ref().map(|pages| pages.public_url.clone()),
                ..HttpSection::default()
            },
            limits: LimitsSection::default(),
            store: StoreSection { directory: self.store.clone(), page_cache: Size::mib(8), row_cache: Size::mib(1) },
            sealing: SealingSection { root_keys: vec![path.join("root.key")] },
            outbound: OutboundSection {
                allow_http_loopback: true,
                timeout: Period::from_secs(10),
                ..OutboundSection::default()
            },
            audit: AuditSection { window: Period::from_secs(self.settings.audit_window), ..AuditSection::default() },
            events: EventsSection::default(),
            log: LogSection::default(),
            watch: WatchSection::default(),
            metrics: MetricsSection::default(),
            traces: TracesSection::default(),
            identity: vec![self.family()],
            tenants: vec![TenantSection {
                id: "acme".parse().unwrap(),
                require_agent: false,
                return_urls: vec!["https://app.example/done".parse().unwrap()],
                redirect_uris: vec![RedirectRule::Loopback("/callback".to_owned())],
            }],
            providers: vec![ProviderSection {
                id: "dev".parse().unwrap(),
                definition: "oidc".to_owned(),
                issuer: Some(self.provider.issuer().parse().unwrap()),
                directory: None,
                endpoints: Endpoints::default(),
                rotation: Some(self.settings.rotation),
                client_id: dev::CLIENT_ID.to_owned(),
                client_secret_file: None,
                client_secret: Some(self.provider.client_secret()),
                // The clock stands still in most tests; those of the budget set their own.
                refreshes_per_second: NonZeroU32::new(10_000).unwrap(),
            }],
            plugins: dev::PLUGINS.iter().map(plugin).collect(),
            agents: Vec::new(),
            toolboxes: Vec::new(),
            grants: Vec::new(),
        };
        (self.settings.configure)(&mut config);
        config
    }

    fn family(&self) -> Family {
        Family {
            id: "platform".parse().unwrap(),
            subject_claims: vec!["sub".to_owned()],
            realm_claim: None,
            issuers: vec![Issuer {
                issuer: IssuerName::Exact(self.provider.platform_issuer()),
                audiences: ["claviger".to_owned()].into(),
                algorithms: [Algorithm::Rs256, Algorithm::Es256].into(),
                keys: Keys::Discovery,
                tenant: TenantRule::Fixed("acme".parse().unwrap()),
                agent_claims: vec!["azp".to_owned()],
                roles: Vec::new(),
                token_types: vec!["at+jwt".to_owned()],
                access_token_claims: Vec::new(),
            }],
            sign_in: self.settings.pages.as_ref().map(|_| SignIn {
                issuer: self.provider.platform_issuer().parse().unwrap(),
                client_id: dev::SIGN_IN_CLIENT_ID.to_owned(),
                client_secret: Some(self.provider.client_secret()),
                client_secret_file: None,
                scopes: ["openid".parse::<Scope>().unwrap()].into_iter().collect(),
                subject_is_public: true,
            }),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

async fn start_provider(
    address: SocketAddr,
    settings: &Settings,
    directory: &TempDir,
    clock: &ManualClock,
) -> DevProvider {
    let at = |path| settings.pages.as_ref().map(|pages| pages.public_url.join(path).unwrap());
    let options = dev::Options {
        directory: settings.durable_provider.then(|| directory.path().join("provider")),
        redirect_uris: std::iter::once(CALLBACK.parse().unwrap()).chain(at("/oauth/callback")).collect(),
        sign_in_redirect_uris: at("/login/callback").into_iter().collect(),
        access_token_lifetime: settings.access_token_lifetime,
        rotation: settings.rotation,
        ..dev::Options::default()
    };
    let listener = TcpListener::bind(address).await.unwrap();
    let random = Random::system();
    let fill = move |bytes: &mut [u8]| random.fill(bytes).unwrap();
    DevProvider::start(listener, options, Arc::new(clock.clone()), fill).await.unwrap()
}

fn plugin(plugin: &dev::DemoPlugin) -> PluginSection {
    PluginSection {
        id: plugin.id.parse().unwrap(),
        display_name: plugin.name.to_owned(),
        provider: "dev".parse().unwrap(),
        scopes: plugin.scopes(),
        usage: TokenUsage::default(),
        enabled: true,
    }
}

pub(crate) fn claims() -> PlatformClaims {
    PlatformClaims { lifetime: Duration::from_secs(30 * 24 * 3600), ..PlatformClaims::to("claviger") }
}

pub(crate) fn outbound() -> Outbound {
    Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap()
}

fn bearer(token: &PresentedToken) -> Bearer {
    Bearer(format!("Bearer {}", token.expose()).parse().unwrap())
}

pub(crate) fn ask(plugin: &str) -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { plugin: plugin.to_owned(), ..Default::default() }
}

pub(crate) fn start(plugin: &str) -> v1::StartAuthorizationRequest {
    v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Plugin(plugin.to_owned())),
        binding: v1::AuthorizationBinding::Caller.into(),
        redirect_uri: CALLBACK.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn parameter(answer: &Url, name: &str) -> String {
    answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

pub(crate) fn code_of(answer: &Url) -> v1::StoreAuthCodeRequest {
    let flow = v1::FlowCode {
        state: parameter(answer, "state"),
        code: parameter(answer, "code"),
        iss: parameter(answer, "iss"),
    };
    v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(flow)) }
}

pub(crate) fn revoke_all() -> v1::RevokeRequest {
    v1::RevokeRequest { target: Some(v1::revoke_request::Target::AllMine(true)), ..Default::default() }
}

/// The reason of a refusal; a success is a failed test.
#[track_caller]
pub(crate) fn reason<T>(result: Result<T, ClientError>) -> ErrorReason {
    match result {
        Ok(_) => panic!("a refusal was expected, and the call succeeded"),
        Err(error) => error.reason.unwrap_or_else(|| panic!("no reason in {error:?}")),
    }
}
