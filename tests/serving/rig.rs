//! A whole broker on loopback, as the program builds it, with limits that a test chooses and a clock that it moves.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use claviger::{
    app::{App, Certificates, Listeners},
    client::{Client, Connect},
    config::{Config, TlsSection},
    dev::{self, DevProvider, PlatformClaims},
    domain::PresentedToken,
    sealing::{Random, root_key},
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::ManualClock,
    frames::PATIENCE,
    pki::{self, Authority},
};

pub(crate) const CALLBACK: &str = "http://127.0.0.1/callback";

pub(crate) struct Rig {
    pub(crate) clock: ManualClock,
    pub(crate) provider: DevProvider,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) certificates: Certificates,
    shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
    directory: TempDir,
}

impl Rig {
    pub(crate) async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(TempDir::with_prefix("claviger-serving-").unwrap(), configure).await
    }

    /// Both listeners are encrypted under certificates of `authority`.
    pub(crate) async fn over_tls(authority: &Authority, configure: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::with_prefix("claviger-serving-").unwrap();
        authority.server().write(directory.path());
        let files = pki::files(directory.path());
        let configure = |config: &mut Config| {
            config.grpc.tls = Some(TlsSection::Files(files.clone()));
            config.http.tls = Some(TlsSection::Files(files));
            configure(config);
        };
        Self::start_in(directory, configure).await
    }

    async fn start_in(directory: TempDir, configure: impl FnOnce(&mut Config)) -> Self {
        let clock = ManualClock::new();
        root_key::file::create(&directory.path().join("root.key"), &Random::system()).unwrap();
        let options = dev::Options { redirect_uris: vec![CALLBACK.parse().unwrap()], ..dev::Options::default() };
        let fill = |bytes: &mut [u8]| Random::system().fill(bytes).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = DevProvider::start(listener, options, Arc::new(clock.clone()), fill).await.unwrap();
        let mut config = config(directory.path(), &provider);
        configure(&mut config);
        let listeners = Listeners::bind(&config).await.unwrap();
        let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap());
        let metrics = listeners.metrics.as_ref().map(|listener| listener.local_addr().unwrap());
        let app = App::build(config, Arc::new(clock.clone()), Random::system()).await.unwrap();
        let (certificates, shutdown) = (app.certificates(), CancellationToken::new());
        let serving = tokio::spawn(app.serve(listeners, shutdown.clone()));
        Self { clock, provider, grpc, http, metrics, certificates, shutdown, serving, directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn token(&self) -> PresentedToken {
        let claims = PlatformClaims { lifetime: Duration::from_secs(24 * 3600), ..PlatformClaims::to("claviger") };
        self.provider.mint_platform_token("alice", &claims).unwrap()
    }

    pub(crate) fn plain_client(&self) -> Client {
        self.client(&Connect { endpoint: format!("http://{}", self.grpc), ..Connect::default() })
    }

    /// One that trusts `authority` alone.
    pub(crate) fn tls_client(&self, authority: &Authority) -> Client {
        self.client(&self.connect_over_tls(authority))
    }

    pub(crate) fn connect_over_tls(&self, authority: &Authority) -> Connect {
        let ca = Some(authority.pem().into_bytes());
        Connect { endpoint: format!("https://{}", self.grpc), ca, ..Connect::default() }
    }

    pub(crate) fn client(&self, connect: &Connect) -> Client {
        connect.with_token(&self.token()).unwrap()
    }

    pub(crate) async fn grpc_socket(&self) -> TcpStream {
        TcpStream::connect(self.grpc).await.unwrap()
    }

    pub(crate) async fn http_socket(&self) -> TcpStream {
        TcpStream::connect(self.http).await.unwrap()
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }

    /// How serving ended.
    pub(crate) async fn ended(self) -> anyhow::Result<()> {
        timeout(PATIENCE, self.serving).await.expect("the shutdown hangs").unwrap()
    }
}

fn config(directory: &Path, provider: &DevProvider) -> Config {
    let text = format!(
        r#"
            grpc.listen = "127.0.0.1:0"
            http.listen = "127.0.0.1:0"
            outbound.allow_http_loopback = true
            store.directory = "{directory}/store"
            sealing.root_keys = ["{directory}/root.key"]
            [[identity]]
            id = "platform"
            issuers = [{{ issuer = "{platform}", audiences = ["claviger"], tenant = {{ fixed = "acme" }} }}]
            [[tenants]]
            id = "acme"
            redirect_uris = [{{ loopback = "/callback" }}]
            [[providers]]
            id = "dev"
            definition = "oidc"
            issuer = "{issuer}"
            client_id = "{client}"
            [[plugins]]
            id = "calendar"
            display_name = "Calendar"
            provider = "dev"
        "#,
        directory = directory.display(),
        platform = provider.platform_issuer(),
        issuer = provider.issuer(),
        client = dev::CLIENT_ID,
    );
    let mut config: Config = toml::from_str(&text).unwrap();
    config.providers[0].client_secret = Some(provider.client_secret());
    config
}
