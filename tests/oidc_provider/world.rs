//! A broker whose provider and whose platform are the real server.

use std::{path::Path, sync::Arc};

use claviger::{
    app::{App, Listeners, SystemClock},
    client::{Client, ClientError, Connect},
    config::Config,
    domain::{ClientSecret, PresentedToken},
    proto::v1::{self, AuthorizationBinding, ErrorReason},
    sealing::{Random, root_key},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    provider::{CLIENT_ID, CLIENT_SECRET, OidcProvider, post},
    visitor::{Answer, Browser, CALLBACK},
};

pub(crate) const PLUGIN: &str = "calendar";

pub(crate) struct World {
    pub(crate) provider: OidcProvider,
    directory: TempDir,
    /// Bound once, so that the pages stay where they were.
    pages: std::net::TcpListener,
    running: Option<Running>,
}

struct Running {
    endpoint: String,
    shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl World {
    /// `None`: the server is not installed, and plain `cargo test` does without.
    pub(crate) async fn start() -> Option<Self> {
        // Another site than the broker's: a site without a name is its address.
        let provider = OidcProvider::start("127.0.0.2")?;
        let directory = TempDir::with_prefix("claviger-real-").unwrap();
        root_key::file::create(&directory.path().join("root.key"), &Random::system()).unwrap();
        let pages = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        pages.set_nonblocking(true).unwrap();
        let mut world = Self { provider, directory, pages, running: None };
        world.run().await;
        Some(world)
    }

    pub(crate) async fn run(&mut self) {
        let pages = format!("http://{}", self.pages.local_addr().unwrap());
        let text = configuration(self.directory.path(), self.provider.issuer(), &pages);
        let mut config: Config = toml::from_str(&text).unwrap();
        let secret = |text: &str| Some(ClientSecret::new(text.to_owned()));
        config.providers[0].client_secret = secret(CLIENT_SECRET);
        config.identity[0].sign_in.as_mut().unwrap().client_secret = secret("sign-in-secret");
        let mut listeners = Listeners::bind(&config).await.unwrap();
        listeners.http = TcpListener::from_std(self.pages.try_clone().unwrap()).unwrap();
        let endpoint = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let app = App::build(config, Arc::new(SystemClock), Random::system()).await.unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(app.serve(listeners, shutdown.clone()));
        self.running = Some(Running { endpoint, shutdown, serving });
    }

    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.shutdown.cancel();
        running.serving.await.unwrap().unwrap();
    }

    /// A caller with a token that the platform issued to its own application: a JWT access token (RFC 9068).
    pub(crate) async fn client(&self, user: &str) -> Client {
        let endpoint = self.running.as_ref().unwrap().endpoint.clone();
        let token = self.platform_token(user).await;
        Connect { endpoint, ..Connect::default() }.with_token(&token).unwrap()
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

fn configuration(directory: &Path, issuer: &str, pages: &str) -> String {
    let directory = directory.display();
    format!(
        r#"
[grpc]
listen = "127.0.0.1:0"

[http]
listen = "127.0.0.1:0"
public_url = "{pages}"

[store]
directory = "{directory}/store"

[sealing]
root_key = "{directory}/root.key"

[outbound]
allow_http_loopback = true

[[identity]]
id = "platform"

[identity.sign_in]
issuer = "{issuer}"
client_id = "sign-in"
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
