//! What is measured: a connected account, both servers, and a second client that reads what h2load does not: the status
//! and the body of the answers.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use claviger::{
    app::SystemClock,
    client::{Client, Connect},
    dev::{
        self, DevProvider, Endpoint, Fault, PlatformClaims,
        visitor::{Decision, Visitor},
    },
    domain::{ClientSecret, PresentedToken},
    outbound::{Outbound, Policy},
    proto::v1,
    sealing::{Random, root_key},
};
use prost::Message;
use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};
use url::Url;

use super::{bare, broker, servers::Server};

const PLUGIN: &str = "notes";
const USER: &str = "alice";
/// An access token as a large identity system makes them. The development server's own have 50 bytes.
const ACCESS_TOKEN: usize = 1400;
/// A platform token with its signature is about this long.
const PLATFORM_TOKEN: usize = 800;

pub(super) struct Setting {
    pub(super) bare: Server,
    pub(super) broker: Server,
    pub(super) token: PresentedToken,
    token_answer: v1::GetPluginTokenResponse,
    validation: v1::ValidatePlatformTokenResponse,
    clients: [Client; 2],
    /// The bodies that h2load sends.
    pub(super) directory: TempDir,
    provider: DevProvider,
    runtime: Runtime,
}

impl Setting {
    pub(super) fn prepare() -> Self {
        let runtime = Runtime::new().unwrap();
        let directory = TempDir::with_prefix("claviger-bench-").unwrap();
        root_key::file::create(&directory.path().join(broker::ROOT_KEY), &Random::system()).unwrap();
        let path = directory.path().to_str().unwrap();
        let provider = runtime.block_on(start_provider());
        let broker = Server::start(&["serve-broker", path, &provider.issuer()]);
        let token = provider.mint_platform_token(USER, &claims()).unwrap();
        let (client, token_answer, validation) = runtime.block_on(async {
            let client = client(broker.address, &token);
            connect(&client).await;
            let token_answer = client.get_plugin_token(ask()).await.unwrap();
            (client.clone(), token_answer, client.validate_platform_token(Default::default()).await.unwrap())
        });
        assert!(token_answer.access_token.len() == ACCESS_TOKEN && validation.valid);
        write(directory.path(), bare::TOKEN, &token_answer);
        write(directory.path(), bare::VALIDATION, &validation);
        let bare = Server::start(&["serve-bare", path]);
        let clients = [client, runtime.block_on(async { self::client(bare.address, &token) })];
        let setting = Self { bare, broker, token, token_answer, validation, clients, directory, provider, runtime };
        setting.check();
        setting
    }

    /// Both servers answer both calls with success and the right body.
    pub(super) fn check(&self) {
        for client in &self.clients {
            let (token, validation) = self.runtime.block_on(async {
                let token = client.get_plugin_token(ask()).await.unwrap();
                (token, client.validate_platform_token(Default::default()).await.unwrap())
            });
            // The time that is left moves on.
            let token = v1::GetPluginTokenResponse { expires_in: self.token_answer.expires_in, ..token };
            assert!(token == self.token_answer, "another token is served");
            assert!(validation == self.validation, "the token is validated otherwise");
        }
    }

    /// Bytes of (request, answer) bodies, without gRPC's prefix.
    pub(super) fn get_plugin_token(&self) -> (Vec<u8>, usize) {
        (ask().encode_to_vec(), self.token_answer.encoded_len())
    }

    pub(super) fn validate_platform_token(&self) -> (Vec<u8>, usize) {
        (v1::ValidatePlatformTokenRequest::default().encode_to_vec(), self.validation.encoded_len())
    }

    pub(super) fn end(self) {
        self.broker.end();
        self.bare.end();
        self.runtime.block_on(self.provider.shutdown());
    }
}

/// A request as an agent's runtime sends it, about 230 bytes.
fn ask() -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest {
        plugin: PLUGIN.to_owned(),
        session_id: "session-6f1c2a4e-9d0b-4a53-8a47-3f6f9d1be0c2".to_owned(),
        task_id: "task-b1f7a6d0-2f0e-4c39-9f0a-5a1f0b7c8d9e".to_owned(),
        platform_request_id: "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7".to_owned(),
        min_remaining: Some(prost_types::Duration { seconds: 120, nanos: 0 }),
        scopes: vec!["notes.read".to_owned(), "notes.write".to_owned()],
        ..Default::default()
    }
}

/// Padded with a claim that nobody reads, as real tokens are full of them.
fn claims() -> PlatformClaims {
    let mut claims = PlatformClaims {
        lifetime: Duration::from_secs(12 * 3600),
        agent: Some("agent-7".to_owned()),
        ..PlatformClaims::to("claviger")
    };
    let bare = 560;
    claims.claim_overrides.insert("padding".to_owned(), json!("x".repeat((PLATFORM_TOKEN - bare) * 3 / 4)));
    claims
}

async fn start_provider() -> DevProvider {
    let options = dev::Options {
        client_secret: Some(ClientSecret::new(broker::CLIENT_SECRET.to_owned())),
        redirect_uris: vec![format!("http://127.0.0.1{}", broker::CALLBACK).parse().unwrap()],
        access_token_lifetime: Duration::from_secs(24 * 3600),
        ..dev::Options::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let random = Random::system();
    let fill = move |bytes: &mut [u8]| random.fill(bytes).unwrap();
    let provider = DevProvider::start(listener, options, Arc::new(SystemClock), fill).await.unwrap();
    let set = Map::from_iter([("access_token".to_owned(), json!("t".repeat(ACCESS_TOKEN)))]);
    provider.faults().arm(Endpoint::Token, Fault::Edit { set, remove: Vec::new() }, 1);
    provider
}

fn client(address: SocketAddr, token: &PresentedToken) -> Client {
    let connect = Connect { endpoint: format!("http://{address}"), ..Connect::default() };
    connect.with_token(token).unwrap()
}

async fn connect(client: &Client) {
    let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
    let started = client
        .start_authorization(v1::StartAuthorizationRequest {
            target: Some(v1::start_authorization_request::Target::Plugin(PLUGIN.to_owned())),
            binding: v1::AuthorizationBinding::Caller.into(),
            redirect_uri: format!("http://127.0.0.1{}", broker::CALLBACK),
            ..Default::default()
        })
        .await
        .unwrap();
    let url = started.authorization_url.parse().unwrap();
    let answer = Visitor::new(outbound).visit(&url, USER, Decision::Approve).await.unwrap();
    let flow = v1::FlowCode {
        state: parameter(&answer, "state"),
        code: parameter(&answer, "code"),
        iss: parameter(&answer, "iss"),
    };
    let flow = Some(v1::store_auth_code_request::Flow::FlowCode(flow));
    client.store_auth_code(v1::StoreAuthCodeRequest { flow }).await.unwrap();
}

fn parameter(answer: &Url, name: &str) -> String {
    answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn write(directory: &Path, name: &str, message: &impl Message) {
    fs::write(directory.join(name), message.encode_to_vec()).unwrap();
}
