//! `claviger serve`, a provider that outlives it and takes every refresh token again, and the log when the broker is gone.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use claviger::{
    app::SystemClock,
    audit::Chain,
    client::{Client, Connect},
    dev::{
        self, DevProvider, PlatformClaims,
        visitor::{Decision, Visitor},
    },
    domain::{EntryId, InstallationId, PresentedToken, Rotation},
    outbound::{Outbound, Policy},
    proto::v1,
    sealing::{AuditKey, Random, root_key},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::Vault,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpListener;
use url::Url;

use crate::{
    emitted::{self, Emitted},
    event_log,
    process::Process,
    watch_validator::Log,
};

const CALLBACK: &str = "http://127.0.0.1/callback";
/// Everybody's, each with a grant of their own.
const ACCOUNT: &str = "alice";
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Place {
    _emitted: Emitted,
    directory: TempDir,
    pub(crate) provider: DevProvider,
}

pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// Somebody whom the platform knows.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) token: Arc<PresentedToken>,
    pub(crate) subject: String,
}

impl Place {
    /// `more` stands at the head of the configuration.
    pub(crate) async fn new(more: &str) -> Self {
        let directory = TempDir::with_prefix("claviger-watch-faults-").unwrap();
        let emitted = Emitted::of("watch_faults");
        let options = dev::Options {
            redirect_uris: vec![CALLBACK.parse().unwrap()],
            access_token_lifetime: LIFETIME,
            rotation: Rotation::None,
            ..dev::Options::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let random = Random::system();
        let fill = move |bytes: &mut [u8]| random.fill(bytes).unwrap();
        let provider = DevProvider::start(listener, options, Arc::new(SystemClock), fill).await.unwrap();
        let place = Self { _emitted: emitted, directory, provider };
        place.configure(more);
        place
    }

    fn configure(&self, more: &str) {
        root_key::file::create(&self.path("root.key"), &Random::system()).unwrap();
        let key = fs::read_to_string(self.path("root.key")).unwrap();
        emitted::know("root key", key.trim().rsplit(':').next().unwrap());
        private(&self.path("dev.secret"), self.provider.client_secret().expose());
        let configuration = format!(
            r#"
{more}
[grpc]
listen = "127.0.0.1:0"
rate = 0
[http]
listen = "127.0.0.1:0"
[store]
directory = "store"
[sealing]
root_keys = ["root.key"]
[outbound]
allow_http_loopback = true
[[identity]]
id = "platform"
subject_claims = ["sub"]
[[identity.issuers]]
issuer = "{}"
audiences = ["claviger"]
tenant = {{ fixed = "acme" }}
token_types = ["at+jwt"]
[[tenants]]
id = "acme"
redirect_uris = [{{ loopback = "/callback" }}]
[[providers]]
id = "dev"
definition = "oidc"
issuer = "{}"
rotation = "none"
client_id = "{}"
client_secret_file = "dev.secret"
refreshes_per_second = 1000
[[plugins]]
id = "calendar"
display_name = "Calendar"
provider = "dev"
scopes = ["calendar.read"]
"#,
            self.provider.platform_issuer(),
            self.provider.issuer(),
            dev::CLIENT_ID,
        );
        fs::write(self.path("claviger.toml"), configuration).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
        command.env_remove("CLAVIGER_LOG").args(["serve", "--config"]).arg(self.path("claviger.toml"));
        command
    }

    /// The same under strace, which writes what it sees to its standard error, or where `options` say.
    pub(crate) fn traced(&self, options: &[&str]) -> Process {
        let (mut strace, broker) = (Command::new("strace"), self.command());
        strace.env_remove("CLAVIGER_LOG").args(options).arg(broker.get_program()).args(broker.get_args());
        Process::spawn(&mut strace)
    }

    pub(crate) fn serve(&self) -> Broker {
        Broker::that_runs(Process::spawn(&mut self.command()))
    }

    /// Somebody new, whom the broker gets to know with this.
    pub(crate) async fn person(&self, name: &str, connect: &Connect) -> Person {
        let claims = PlatformClaims { lifetime: LIFETIME, ..PlatformClaims::to("claviger") };
        let token = Arc::new(self.provider.mint_platform_token(name, &claims).unwrap());
        emitted::know("platform token's signature", token.expose().rsplit('.').next().unwrap());
        let person = Person { token, subject: String::new() };
        let client = connect.with_token(&person.token).unwrap();
        let said = client.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
        Person { subject: said.subject, ..person }
    }

    /// A broker's store, opened while there is no broker.
    pub(crate) async fn open(store: &Path, root: &Path) -> Vault {
        let (key, random) = (AuditKey::default(), Random::system());
        let options = SledOptions {
            directory: store.to_owned(),
            page_cache: 16 << 20,
            row_cache: 1 << 20,
            installation: InstallationId::from_bytes(random.bytes().unwrap()),
            epoch: EntryId::from_bytes(random.bytes().unwrap()),
        };
        let linker = Box::new(Chain::new(key.clone()));
        let store: Arc<dyn Store> = Arc::new(SledStore::open(options, linker).await.unwrap());
        Vault::open(store, root_key::file::load(root).unwrap(), random, &key).await.unwrap()
    }

    pub(crate) async fn vault(&self) -> Vault {
        Self::open(&self.path("store"), &self.path("root.key")).await
    }

    /// What a broker that is gone has left.
    pub(crate) async fn log(&self) -> Log {
        let vault = self.vault().await;
        let log = event_log::read(&vault).await;
        vault.store().close().await;
        log
    }
}

impl Broker {
    pub(crate) fn that_runs(mut process: Process) -> Self {
        let line = process.error_line(|line| line.contains("grpc.address="));
        let address = |name: &str| line.split_once(name).unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        Self { grpc: address("grpc.address="), http: address("http.address="), process }
    }

    pub(crate) fn connect(&self) -> Connect {
        Connect { endpoint: format!("http://{}", self.grpc), ..Connect::default() }
    }
}

impl Person {
    /// Over a connection of its own.
    pub(crate) fn client(&self, address: SocketAddr) -> Client {
        Connect { endpoint: format!("http://{address}"), ..Connect::default() }.with_token(&self.token).unwrap()
    }

    pub(crate) async fn connect(&self, client: &Client) -> v1::Connection {
        self.try_connect(client).await.expect("there are too many flows")
    }

    /// `None`: this person has begun too many flows in the last minutes.
    pub(crate) async fn try_connect(&self, client: &Client) -> Option<v1::Connection> {
        let request = v1::StartAuthorizationRequest {
            target: Some(v1::start_authorization_request::Target::Plugin("calendar".to_owned())),
            binding: v1::AuthorizationBinding::Caller.into(),
            redirect_uri: CALLBACK.to_owned(),
            ..Default::default()
        };
        let started = match client.start_authorization(request).await {
            Err(error) if error.reason == Some(v1::ErrorReason::FlowQuota) => return None,
            other => other.unwrap(),
        };
        let url: Url = started.authorization_url.parse().unwrap();
        let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
        let answer = Visitor::new(outbound).visit(&url, ACCOUNT, Decision::Approve).await.unwrap();
        let parameter = |name: &str| {
            answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let flow = v1::FlowCode { state: parameter("state"), code: parameter("code"), iss: parameter("iss") };
        let flow = Some(v1::store_auth_code_request::Flow::FlowCode(flow));
        client.store_auth_code(v1::StoreAuthCodeRequest { flow }).await.unwrap().connection
    }
}

/// The end of what strace runs; killing strace would leave it behind.
pub(crate) fn kill_traced(strace: &Process) {
    let children = format!("/proc/{0}/task/{0}/children", strace.id());
    let broker: i32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(broker).unwrap(), Signal::KILL).unwrap();
}

/// A token that lives longer than any of the provider's: it must be fetched, which is an event.
pub(crate) fn ask_for_a_new_one() -> v1::GetPluginTokenRequest {
    let years = prost_types::Duration { seconds: 20 * 365 * 24 * 3600, nanos: 0 };
    v1::GetPluginTokenRequest { plugin: "calendar".to_owned(), min_remaining: Some(years), ..Default::default() }
}

pub(crate) fn revoke_all() -> v1::RevokeRequest {
    v1::RevokeRequest { target: Some(v1::revoke_request::Target::AllMine(true)), ..Default::default() }
}

fn private(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).unwrap().write_all(text.as_bytes()).unwrap();
}
