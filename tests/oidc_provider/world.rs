//! `claviger serve`, whose provider and whose platform are the real server.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{self, Command},
    sync::atomic::{AtomicU16, Ordering},
};

use claviger::{
    client::{Client, ClientError, Connect},
    domain::PresentedToken,
    proto::v1::{self, AuthorizationBinding, ErrorReason},
};
use rustix::process::Signal;
use tempfile::TempDir;
use url::Url;

use crate::{
    process::Process,
    provider::{CLIENT_ID, CLIENT_SECRET, OidcProvider, post},
    visitor::{Answer, Browser, CALLBACK},
};

pub(crate) const PLUGIN: &str = "calendar";

pub(crate) struct World {
    pub(crate) provider: OidcProvider,
    directory: TempDir,
    running: Option<Running>,
}

struct Running {
    process: Process,
    endpoint: String,
}

impl World {
    /// `None`: the server is not installed, and plain `cargo test` does without.
    pub(crate) async fn start() -> Option<Self> {
        Self::with_timeout(60).await
    }

    /// The broker waits so many seconds for the provider.
    pub(crate) async fn with_timeout(seconds: u8) -> Option<Self> {
        // Another site than the broker's: a site without a name is its address.
        let provider = OidcProvider::start("127.0.0.2")?;
        let directory = TempDir::with_prefix("claviger-real-").unwrap();
        let path = directory.path();
        let key = path.join("root.key");
        Process::spawn(claviger().arg("generate-key").arg(key)).finish().expect_code(0);
        write_secret(&path.join("provider.secret"), CLIENT_SECRET);
        write_secret(&path.join("sign-in.secret"), "sign-in-secret");
        fs::write(path.join("claviger.toml"), configuration(provider.issuer(), free_port(), seconds)).unwrap();
        let mut world = Self { provider, directory, running: None };
        world.run();
        Some(world)
    }

    pub(crate) fn run(&mut self) {
        let file = self.directory.path().join("claviger.toml");
        let mut process = Process::spawn(claviger().args(["serve", "--config"]).arg(file));
        let line = process.error_line(|line| line.contains("grpc.address="));
        let (_, address) = line.split_once("grpc.address=").unwrap();
        let endpoint = format!("http://{}", address.split(' ').next().unwrap());
        self.running = Some(Running { process, endpoint });
    }

    pub(crate) fn kill(&mut self) {
        let killed = self.running.take().unwrap().process.stop(Signal::KILL);
        assert_eq!(killed.status.code(), None, "it ended before it was killed: {}", killed.stderr);
    }

    pub(crate) fn stop(&mut self) {
        self.running.take().unwrap().process.stop(Signal::TERM).expect_code(0);
    }

    /// A caller with a token that the platform issued to its own application: a JWT access token (RFC 9068).
    pub(crate) async fn client(&self, user: &str) -> Client {
        self.client_with(&self.platform_token(user).await)
    }

    pub(crate) fn client_with(&self, token: &PresentedToken) -> Client {
        let endpoint = self.running.as_ref().unwrap().endpoint.clone();
        Connect { endpoint, ..Connect::default() }.with_token(token).unwrap()
    }

    async fn platform_token(&self, user: &str) -> PresentedToken {
        // RFC 7636 appendix B.
        const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let mut url = self.provider.url("/auth");
        url.query_pairs_mut().extend_pairs([
            ("client_id", "platform"),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid claviger"),
            ("resource", "urn:claviger"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]);
        let answer = Browser::of(user).visit(&url, Answer::Approve).await.url;
        let form = [
            ("client_id", "platform"),
            ("client_secret", "platform-secret"),
            ("grant_type", "authorization_code"),
            ("code", &parameter(&answer, "code")),
            ("redirect_uri", CALLBACK),
            ("resource", "urn:claviger"),
            ("code_verifier", VERIFIER),
        ];
        let reply = self.provider.send(post(self.provider.url("/token"), &form)).await;
        let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        PresentedToken::new(answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    }

    /// Connects an account for [`PLUGIN`] in binding `CALLER`.
    pub(crate) async fn connect(&self, client: &Client, user: &str) -> v1::Connection {
        let binding = AuthorizationBinding::Caller;
        let started = client.start_authorization(start(binding)).await.unwrap();
        let url = started.authorization_url.parse().unwrap();
        let answer = Browser::of(user).visit(&url, Answer::Approve).await.url;
        client.store_auth_code(code_of(&answer)).await.unwrap().connection.unwrap()
    }
}

fn claviger() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_remove("CLAVIGER_LOG");
    command
}

fn write_secret(path: &Path, secret: &str) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{secret}").unwrap();
}

/// A free port that no outgoing connection is given, so that it is still free after a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(process::id() % 10_000).unwrap();
    (0..1000)
        .map(|_| 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}

/// As an operator writes it by hand.
fn configuration(issuer: &str, http: u16, timeout: u8) -> String {
    format!(
        r#"
[grpc]
listen = "127.0.0.1:0"
rate = 0

[http]
listen = "127.0.0.1:{http}"
public_url = "http://127.0.0.1:{http}"

[store]
directory = "store"

[sealing]
root_keys = ["root.key"]

[outbound]
allow_http_loopback = true
timeout = "{timeout}s"

[[identity]]
id = "platform"

[identity.sign_in]
issuer = "{issuer}"
client_id = "sign-in"
client_secret_file = "sign-in.secret"
subject_is_public = true

[[identity.issuers]]
issuer = "{issuer}"
audiences = ["claviger"]
tenant = {{ fixed = "acme" }}
token_types = ["at+jwt"]

[[tenants]]
id = "acme"
redirect_uris = [{{ exact = "{CALLBACK}" }}]

[[providers]]
id = "real"
definition = "oidc"
issuer = "{issuer}"
client_id = "{CLIENT_ID}"
client_secret_file = "provider.secret"

[[plugins]]
id = "{PLUGIN}"
display_name = "Calendar"
provider = "real"
scopes = ["calendar.read"]
"#
    )
}

pub(crate) fn start(binding: AuthorizationBinding) -> v1::StartAuthorizationRequest {
    let redirect_uri = if binding == AuthorizationBinding::Caller { CALLBACK.to_owned() } else { String::new() };
    v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Plugin(PLUGIN.to_owned())),
        binding: binding.into(),
        redirect_uri,
        ..Default::default()
    }
}

pub(crate) fn ask() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { plugin: PLUGIN.to_owned(), ..Default::default() }
}

pub(crate) fn code_of(answer: &Url) -> v1::StoreAuthCodeRequest {
    let [state, code, iss] = ["state", "code", "iss"].map(|name| parameter(answer, name));
    let flow = v1::FlowCode { state, code, iss };
    v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(flow)) }
}

pub(crate) fn parameter(answer: &Url, name: &str) -> String {
    answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// The reason of a refusal; a success is a failed test.
#[track_caller]
pub(crate) fn reason<T>(result: Result<T, ClientError>) -> ErrorReason {
    match result {
        Ok(_) => panic!("a refusal was expected, and the call succeeded"),
        Err(error) => error.reason.unwrap_or_else(|| panic!("no reason in {error:?}")),
    }
}
