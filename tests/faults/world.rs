//! `claviger serve` and a provider that outlives it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use claviger::{
    app::SystemClock,
    client::{Client, Connect},
    dev::{
        self, DevProvider, Endpoint, GrantType, HoldPoint, PlatformClaims, Realm, Settings,
        visitor::{Decision, Visitor},
    },
    domain::Rotation,
    outbound::{Outbound, Policy, Request},
    proto::v1,
    sealing::Random,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use url::Url;

use crate::{
    emitted::{self, Emitted},
    modes::Played,
    process::Process,
};

const CALLBACK: &str = "http://127.0.0.1/callback";
/// Of the token that the connection begins with. It outlives the time until its refresh is asked for, and little more:
/// while it lives, a lost answer is not asked after.
const FIRST_LIFETIME: Duration = Duration::from_secs(22);
/// Of every later one: nothing is refreshed but what the cell asks for.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The provider time-out. Longer than a loaded machine takes for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct World {
    /// Before the directory, which it searches when it goes.
    _emitted: Emitted,
    directory: TempDir,
    pub(crate) provider: DevProvider,
}

pub(crate) struct Broker {
    pub(crate) process: Process,
    endpoint: String,
    http: String,
}

impl World {
    pub(crate) async fn start(played: Played, rotation: Rotation) -> Self {
        let directory = TempDir::with_prefix("claviger-faults-").unwrap();
        let emitted = Emitted::of("faults").below(directory.path());
        let options = dev::Options {
            redirect_uris: vec![CALLBACK.parse().unwrap()],
            access_token_lifetime: FIRST_LIFETIME,
            rotation,
            ..dev::Options::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let random = Random::system();
        let fill = move |bytes: &mut [u8]| random.fill(bytes).unwrap();
        let provider = DevProvider::start(listener, options, Arc::new(SystemClock), fill).await.unwrap();
        let world = Self { _emitted: emitted, directory, provider };
        world.configure(played, rotation);
        world
    }

    fn configure(&self, played: Played, rotation: Rotation) {
        let key = self.path("root.key");
        Process::spawn(claviger().arg("generate-key").arg(&key)).finish().expect_code(0);
        let key = fs::read_to_string(key).unwrap();
        emitted::know("root key", key.trim().rsplit(':').next().unwrap());
        private(&self.path("dev.secret"), self.provider.client_secret().expose());
        let issuer = match played {
            Played::Demo => format!("definition = \"oidc\"\nissuer = \"{}\"", self.provider.issuer()),
            Played::Entra => format!(
                "definition = \"microsoft\"\nissuer = \"{}\"\ndirectory = \"organizations\"",
                self.provider.url_of(Realm::Entra, "/{directory}/v2.0")
            ),
        };
        let rotation = match rotation {
            Rotation::None => "\"none\"".to_owned(),
            Rotation::Reuse => "\"reuse\"".to_owned(),
            Rotation::Strict => "\"strict\"".to_owned(),
            Rotation::Grace { seconds } => format!("{{ grace = \"{seconds}s\" }}"),
        };
        let configuration = format!(
            r#"
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
timeout = "{}s"
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
{issuer}
rotation = {rotation}
client_id = "{}"
client_secret_file = "dev.secret"
[[plugins]]
id = "calendar"
display_name = "Calendar"
provider = "dev"
scopes = ["calendar.read"]
"#,
            TIMEOUT.as_secs(),
            self.provider.platform_issuer(),
            dev::CLIENT_ID,
        );
        fs::write(self.path("claviger.toml"), configuration).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn serve(&self) -> Broker {
        let file = self.path("claviger.toml");
        let mut process = Process::spawn(claviger().args(["serve", "--config"]).arg(file));
        let line = process.error_line(|line| line.contains("grpc.address="));
        let address = |name: &str| {
            let address = line.split_once(name).unwrap().1.split_whitespace().next().unwrap();
            format!("http://{address}")
        };
        Broker { endpoint: address("grpc.address="), http: address("http.address="), process }
    }

    /// Of alice.
    pub(crate) fn client(&self, broker: &Broker) -> Client {
        let claims = PlatformClaims { lifetime: LIFETIME, ..PlatformClaims::to("claviger") };
        let token = self.provider.mint_platform_token("alice", &claims).unwrap();
        emitted::know("platform token's signature", token.expose().rsplit('.').next().unwrap());
        Connect { endpoint: broker.endpoint.clone(), ..Connect::default() }.with_token(&token).unwrap()
    }

    /// What is issued behind the first token lasts.
    pub(crate) async fn connect(&self, client: &Client) -> v1::Connection {
        let request = v1::StartAuthorizationRequest {
            target: Some(v1::start_authorization_request::Target::Plugin("calendar".to_owned())),
            binding: v1::AuthorizationBinding::Caller.into(),
            redirect_uri: CALLBACK.to_owned(),
            ..Default::default()
        };
        let started = client.start_authorization(request).await.unwrap();
        let url: Url = started.authorization_url.parse().unwrap();
        let answer = Visitor::new(outbound()).visit(&url, "alice", Decision::Approve).await.unwrap();
        let parameter = |name: &str| {
            answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let flow = v1::FlowCode { state: parameter("state"), code: parameter("code"), iss: parameter("iss") };
        let code = v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(flow)) };
        let grant_type = Some(GrantType::AuthorizationCode);
        let exchanged = self.provider.faults().hold_if(Endpoint::Token, grant_type, HoldPoint::Answer);
        let (stored, ()) = tokio::join!(client.store_auth_code(code), async {
            exchanged.arrived(1).await;
            // While the broker has no token yet that it could refresh.
            self.set_lifetime(LIFETIME);
            exchanged.release();
        });
        stored.unwrap().connection.unwrap()
    }

    pub(crate) fn set_lifetime(&self, access_token_lifetime: Duration) {
        self.provider.set(Settings { access_token_lifetime, ..self.provider.settings() });
    }

    /// Whether a file holds tokens that the store could not take.
    pub(crate) fn holds_tokens(&self) -> bool {
        let mut files = fs::read_dir(self.store().join("held")).unwrap().map(Result::unwrap);
        files.any(|file| file.metadata().is_ok_and(|about| about.len() > 0))
    }

    /// Refreshes that the provider has seen.
    pub(crate) fn refreshes(&self) -> u64 {
        self.provider.stats().token_requests(GrantType::RefreshToken)
    }
}

impl Broker {
    /// What an orchestrator is told.
    pub(crate) async fn is_ready(&self) -> bool {
        let ready = Request::get(format!("{}/readyz", self.http).parse().unwrap());
        outbound().send(ready).await.unwrap().status.is_success()
    }
}

fn outbound() -> Outbound {
    Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap()
}

fn claviger() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_remove("CLAVIGER_LOG");
    command
}

fn private(path: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).unwrap().write_all(text.as_bytes()).unwrap();
}
