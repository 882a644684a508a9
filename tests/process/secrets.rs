//! Nothing that the broker writes down, logs, answers or shows of itself holds a secret.
//!
//! One process at log level TRACE is driven through every RPC, good and bad. The provider is made to answer with tokens
//! and texts of our choosing, so that the refresh tokens, which only the broker and the provider know, are known here
//! too. What the development provider makes itself has prefixes by which it is found without being known; the PKCE
//! verifiers, which are told to nobody, are found by their challenges. What comes out is searched as in every test
//! (`emitted`), and each refusal's message, details and metadata besides.

use std::collections::BTreeSet;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use claviger::proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        self, connection_service_client::ConnectionServiceClient, operations_service_client::OperationsServiceClient,
        own_code::Target, plugin_token_result, rotate_key_request::Target as KeyTarget, store_auth_code_request::Flow,
        token_broker_service_client::TokenBrokerServiceClient,
    },
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde_json::{Value, json};
use tonic::{Request, Response, Status, metadata::MetadataValue, transport::Channel};
use url::Url;

use crate::{
    dev::{Dev, PLUGIN, Place, ask, ask_for_a_new_one, parameter, read, visit},
    emitted::{Emitted, know},
};

const REDIRECT_URI: &str = "http://127.0.0.1/callback";

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_outside_its_place() {
    let place = Place::new();
    let dev = place.start();
    let mut drive = Drive::new(&dev).await;
    drive.refuse_tokens().await;
    drive.refuse_codes().await;
    drive.run_an_own_flow().await;
    drive.refresh().await;
    for answer in bad_answers() {
        drive.refuse_an_exchange(&answer).await;
        drive.refuse_a_refresh(&answer).await;
    }
    drive.watch().await;
    drive.operate().await;
    drive.revoke().await;
    assert_eq!(drive.driven, every_rpc(), "every RPC is driven");
    drop(drive);

    let finished = dev.stop();
    finished.expect_code(0);
    let mut detail = finished.stderr.lines().filter(|line| line.contains(" DEBUG ") || line.contains(" TRACE "));
    assert!(detail.clone().count() > 0, "the filter was obeyed: {}", finished.stderr);
    assert!(detail.all(|line| line.contains(" claviger::")), "other crates are capped: {}", finished.stderr);
}

struct Drive<'d> {
    dev: &'d Dev<'d>,
    broker: TokenBrokerServiceClient<Channel>,
    connections: ConnectionServiceClient<Channel>,
    operations: OperationsServiceClient<Channel>,
    token: String,
    refusals: Emitted,
    driven: BTreeSet<&'static str>,
}

impl<'d> Drive<'d> {
    async fn new(dev: &'d Dev<'d>) -> Self {
        let channel = Channel::from_shared(dev.endpoint()).unwrap().connect().await.unwrap();
        let identity: Value = serde_json::from_str(&read(&dev.directory().join("provider/identity.json"))).unwrap();
        assert!(identity["client_secret"].as_str().is_some_and(|secret| secret.starts_with("dev_cs_")));
        Self {
            dev,
            broker: TokenBrokerServiceClient::new(channel.clone()),
            connections: ConnectionServiceClient::new(channel.clone()),
            operations: OperationsServiceClient::new(channel),
            token: dev.token(),
            refusals: Emitted::of("refusals"),
            driven: BTreeSet::new(),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        with_token(message, &self.token)
    }

    fn took<T>(&mut self, rpc: &'static str, result: Result<Response<T>, Status>) -> T {
        self.driven.insert(rpc);
        result.unwrap_or_else(|status| panic!("{rpc}: {status:?}")).into_inner()
    }

    fn refused<T>(&mut self, rpc: &'static str, result: Result<Response<T>, Status>) {
        self.driven.insert(rpc);
        match result {
            Ok(_) => panic!("{rpc} succeeded, a refusal was expected"),
            Err(status) => {
                self.refusals.outputs.add("message", status.message(), &[]);
                self.refusals.outputs.add("details", status.details(), &[]);
                self.refusals.outputs.add("metadata", format!("{:?}", status.metadata()), &[]);
            }
        }
    }

    /// Bad, foreign, huge and misplaced tokens of the caller's.
    async fn refuse_tokens(&mut self) {
        let (signed, signature) = self.token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
        let (header, _) = signed.split_once('.').unwrap();
        let claims =
            json!({ "iss": format!("https://foreign.example/{}", canary("foreign")), "sub": canary("foreign") });
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let tokens = [
            ("garbage", canary("garbage")),
            ("forged", forged.clone()),
            ("foreign", format!("{header}.{claims}.{signature}")),
            ("huge", canary("huge").repeat(400)),
        ];
        know("forged signature", forged.rsplit('.').next().unwrap());
        for (name, token) in tokens {
            if name != "forged" {
                know(name, canary(name));
            }
            let asked = self.broker.get_plugin_token(with_token(ask(), &token)).await;
            self.refused("GetPluginToken", asked);
            let listed = self.connections.list_connections(with_token(v1::ListConnectionsRequest::default(), &token));
            let listed = listed.await;
            self.refused("ListConnections", listed);
            let request = self.request(v1::ValidatePlatformTokenRequest { token });
            match self.broker.validate_platform_token(request).await {
                Ok(answer) => assert!(!answer.into_inner().valid, "{name}"),
                huge => self.refused("ValidatePlatformToken", huge),
            }
        }
        let own = self.broker.validate_platform_token(self.request(v1::ValidatePlatformTokenRequest::default())).await;
        assert!(self.took("ValidatePlatformToken", own).valid);

        know("misplaced", canary("misplaced"));
        let mut agent = self.request(ask());
        agent.metadata_mut().insert("agent-authorization", bearer(&canary("misplaced")));
        let agent = self.broker.get_plugin_token(agent).await;
        self.refused("GetPluginToken", agent);
        let misplaced = v1::GetPluginTokenRequest { plugin: canary("misplaced"), ..Default::default() };
        let refused = self.broker.get_plugin_token(self.request(misplaced.clone())).await;
        self.refused("GetPluginToken", refused);
        let several = v1::GetPluginTokensRequest { requests: vec![misplaced, ask()] };
        let several = self.broker.get_plugin_tokens(self.request(several)).await;
        for result in self.took("GetPluginTokens", several).results {
            let Some(plugin_token_result::Result::Error(error)) = result.result else { panic!("nothing is connected") };
            self.refusals.outputs.add("result", error.encode_to_vec(), &[]);
        }
        let misplaced = v1::GetConnectionRequest { connection_id: canary("misplaced") };
        let misplaced = self.connections.get_connection(self.request(misplaced)).await;
        self.refused("GetConnection", misplaced);
        let misplaced = v1::GetAuthorizationRequest { flow_id: canary("misplaced"), wait: None };
        let misplaced = self.connections.get_authorization(self.request(misplaced)).await;
        self.refused("GetAuthorization", misplaced);
        let misplaced = v1::GetPluginTokenRequest {
            return_url: format!("https://app.example/?token={}", canary("misplaced")),
            ..ask()
        };
        let misplaced = self.broker.get_plugin_token(self.request(misplaced)).await;
        self.refused("GetPluginToken", misplaced);
    }

    async fn refuse_codes(&mut self) {
        for name in ["unknown state", "unknown code", "wrong code", "short verifier"] {
            know(name, canary(name));
        }
        let nowhere = flow_code(&canary("unknown state"), &canary("unknown code"), "");
        let nowhere = self.broker.store_auth_code(self.request(nowhere)).await;
        self.refused("StoreAuthCode", nowhere);
        let state = self.authorize().await.1;
        let wrong = flow_code(&state, &canary("wrong code"), &self.dev.issuer());
        let wrong = self.broker.store_auth_code(self.request(wrong)).await;
        self.refused("StoreAuthCode", wrong);
        let (answer, state) = self.authorize().await;
        let elsewhere = flow_code(&state, &parameter(&answer, "code"), "https://foreign.example");
        let elsewhere = self.broker.store_auth_code(self.request(elsewhere)).await;
        self.refused("StoreAuthCode", elsewhere);
        let short = own_code(&canary("unknown code"), &canary("short verifier"));
        let short = self.broker.store_auth_code(self.request(short)).await;
        self.refused("StoreAuthCode", short);
    }

    /// The application ran the flow itself, so its verifier is known here; once it is wrong.
    async fn run_an_own_flow(&mut self) {
        use aws_lc_rs::digest::{SHA256, digest};
        let (verifier, wrong) = ("canary~own.verifier".repeat(3), "canary~wrong.verifier".repeat(3));
        know("own verifier", &verifier);
        know("wrong verifier", &wrong);
        for sent in [&wrong, &verifier] {
            let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
            let parameters = [
                ("response_type", "code"),
                ("client_id", claviger::dev::CLIENT_ID),
                ("redirect_uri", REDIRECT_URI),
                ("scope", "openid calendar.read"),
                ("state", "of-the-application"),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
            ];
            let authorize = format!("{}/authorize", self.dev.issuer());
            let url = Url::parse_with_params(&authorize, parameters).unwrap();
            let code = parameter(&visit(url.as_str()).await, "code");
            let stored = self.broker.store_auth_code(self.request(own_code(&code, sent))).await;
            if *sent == verifier {
                self.took("StoreAuthCode", stored);
            } else {
                self.refused("StoreAuthCode", stored);
            }
        }
    }

    /// Connects with tokens of our choosing, and refreshes them to others.
    async fn refresh(&mut self) {
        self.connect_with("at-1", "rt-1").await;
        let first = self.broker.get_plugin_token(self.request(ask())).await;
        assert!(self.took("GetPluginToken", first).access_token == canary("at-1"), "the first token is ours");
        let tokens = self.tokens("at-2", "rt-2");
        self.arm(&answer(200, &tokens.to_string())).await;
        let second = self.broker.get_plugin_token(self.request(ask_for_a_new_one())).await;
        assert!(self.took("GetPluginToken", second).access_token == canary("at-2"), "the second token is ours");
        self.dev.disarm().await;
        let listed = self.connections.list_connections(self.request(v1::ListConnectionsRequest::default())).await;
        let connection_id = self.took("ListConnections", listed).connections[0].connection_id.clone();
        let shown = self.connections.get_connection(self.request(v1::GetConnectionRequest { connection_id })).await;
        let credential_id = self.took("GetConnection", shown).connection.unwrap_or_default().credential_id;
        let report = v1::ReportAppliedRequest {
            credential_id,
            generation: 2,
            outcome: v1::ApplyOutcome::Applied.into(),
            holder: "pod-1".to_owned(),
        };
        let reported = self.broker.report_applied(self.request(report)).await;
        assert!(self.took("ReportApplied", reported).recorded);
    }

    async fn refuse_an_exchange(&mut self, bad: &Value) {
        let (redirect, state) = self.authorize().await;
        self.arm(bad).await;
        let code = flow_code(&state, &parameter(&redirect, "code"), &self.dev.issuer());
        let refused = self.broker.store_auth_code(self.request(code)).await;
        self.refused("StoreAuthCode", refused);
        self.dev.disarm().await;
    }

    /// The old token may still be served; what counts is what is said of the failure.
    async fn refuse_a_refresh(&mut self, bad: &Value) {
        self.connect_with("at-3", "rt-3").await;
        self.arm(bad).await;
        if let Err(status) = self.broker.get_plugin_token(self.request(ask_for_a_new_one())).await {
            self.refused::<()>("GetPluginToken", Err(status));
        }
        self.dev.disarm().await;
    }

    async fn watch(&mut self) {
        know("resume token", canary("resume token"));
        let start = v1::watch_credential_status_request::Start::ResumeToken(canary("resume token").into_bytes());
        let resumed = v1::WatchCredentialStatusRequest { start: Some(start), ..Default::default() };
        let resumed = self.broker.watch_credential_status(self.request(resumed)).await;
        match resumed {
            Ok(stream) => {
                let ended = stream.into_inner().message().await.expect_err("a forged resume token is refused");
                self.refused::<()>("WatchCredentialStatus", Err(ended));
            }
            refused => self.refused("WatchCredentialStatus", refused),
        }
        let request = self.request(v1::WatchCredentialStatusRequest::default());
        let stream = self.broker.watch_credential_status(request).await;
        let mut stream = self.took("WatchCredentialStatus", stream);
        assert!(stream.message().await.unwrap().is_some());
    }

    /// Alice is an operator here. Her archive holds everything there is, sealed.
    async fn operate(&mut self) {
        let status = self.operations.get_status(self.request(v1::GetStatusRequest {})).await;
        self.took("GetStatus", status);
        let parts = self.operations.create_backup(self.request(v1::CreateBackupRequest {})).await;
        let mut parts = self.took("CreateBackup", parts);
        let mut archive = Vec::new();
        while let Some(part) = parts.message().await.unwrap() {
            archive.extend_from_slice(&part.archive);
        }
        assert!(!archive.is_empty());
        self.refusals.outputs.add("archive", archive, &[]);
        let tenants = v1::RotateKeyRequest { target: Some(KeyTarget::AllTenants(true)) };
        let rotated = self.operations.rotate_key(self.request(tenants)).await;
        self.took("RotateKey", rotated);
        let listed = self.operations.list_keys(self.request(v1::ListKeysRequest {})).await;
        let root = self.took("ListKeys", listed).keys.swap_remove(0).key_id;
        know("no key", canary("no key"));
        for key_id in [root, canary("no key")] {
            let retired = self.operations.retire_key(self.request(v1::RetireKeyRequest { key_id })).await;
            self.refused("RetireKey", retired);
        }
    }

    async fn revoke(&mut self) {
        self.connect_with("at-4", "rt-4").await;
        know("revocation prose", canary("revocation prose"));
        self.dev.arm("revoke", &answer(400, &canary("revocation prose"))).await;
        let target = || Some(v1::revoke_request::Target::AllMine(true));
        for preview in [true, false] {
            let revoked = v1::RevokeRequest { target: target(), preview };
            let revoked = self.broker.revoke(self.request(revoked)).await;
            self.took("Revoke", revoked);
        }
        know("no connection", canary("no connection"));
        let unknown = v1::revoke_request::Target::ConnectionId(canary("no connection"));
        let unknown = v1::RevokeRequest { target: Some(unknown), preview: false };
        let unknown = self.broker.revoke(self.request(unknown)).await;
        self.refused("Revoke", unknown);
        let gone = self.broker.get_plugin_token(self.request(ask())).await;
        self.refused("GetPluginToken", gone);
    }

    /// A flow up to the redirect. Its state, nonce and challenge are to be looked for.
    async fn authorize(&mut self) -> (Url, String) {
        let request = v1::StartAuthorizationRequest {
            target: Some(v1::start_authorization_request::Target::Plugin(PLUGIN.to_owned())),
            binding: v1::AuthorizationBinding::Caller.into(),
            redirect_uri: REDIRECT_URI.to_owned(),
            ..Default::default()
        };
        let started = self.connections.start_authorization(self.request(request)).await;
        let started = self.took("StartAuthorization", started);
        let looked_at = v1::GetAuthorizationRequest { flow_id: started.flow_id, wait: None };
        let looked_at = self.connections.get_authorization(self.request(looked_at)).await;
        self.took("GetAuthorization", looked_at);
        let url: Url = started.authorization_url.parse().unwrap();
        let state = parameter(&url, "state");
        know("state", &state);
        know("nonce", parameter(&url, "nonce"));
        know("code_challenge", parameter(&url, "code_challenge"));
        (visit(url.as_str()).await, state)
    }

    /// Connects, or connects anew, with chosen tokens.
    async fn connect_with(&mut self, access: &str, refresh: &str) {
        let (redirect, state) = self.authorize().await;
        let tokens = self.tokens(access, refresh);
        self.arm(&json!({ "edit": { "set": tokens } })).await;
        let code = flow_code(&state, &parameter(&redirect, "code"), &self.dev.issuer());
        let stored = self.broker.store_auth_code(self.request(code)).await;
        self.took("StoreAuthCode", stored);
        self.dev.disarm().await;
    }

    fn tokens(&mut self, access: &str, refresh: &str) -> Value {
        know(access, canary(access));
        know(refresh, canary(refresh));
        json!({ "access_token": canary(access), "refresh_token": canary(refresh), "token_type": "Bearer", "expires_in": 600 })
    }

    /// Token requests suffer it until it is disarmed: the broker retries refreshes on its own, so one would not do.
    async fn arm(&self, fault: &Value) {
        self.dev.arm("token", fault).await;
    }
}

/// Answers of a token endpoint that are refusals, nonsense, or prose with a secret in it.
fn bad_answers() -> Vec<Value> {
    know("upstream prose", canary("upstream prose"));
    let prose = canary("upstream prose");
    let error = |code: &str| json!({ "error": code, "error_description": prose, "error_uri": prose }).to_string();
    vec![
        answer(503, &format!("<html>{prose}</html>")),
        answer(200, &format!("<html>{prose}</html>")),
        answer(200, &json!({ "access_token": [prose], "refresh_token": { "is": prose } }).to_string()),
        answer(200, &json!({ "access_token": format!("{prose}\n"), "token_type": "Bearer" }).to_string()),
        answer(400, &error("temporarily_unavailable")),
        answer(400, &error(&prose)),
        answer(429, &error("slow_down")),
        answer(400, &error("invalid_grant")),
    ]
}

fn answer(status: u16, body: &str) -> Value {
    json!({ "answer": { "status": status, "headers": { "content-type": "application/json" }, "body": body } })
}

/// Text that stands nowhere else, and that every encoding writes differently.
fn canary(name: &str) -> String {
    format!("canary+{}/{}==", name.replace(' ', "-"), STANDARD_NO_PAD.encode(name).to_lowercase())
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer(token));
    request
}

fn bearer(token: &str) -> MetadataValue<tonic::metadata::Ascii> {
    format!("Bearer {token}").parse().unwrap()
}

fn flow_code(state: &str, code: &str, iss: &str) -> v1::StoreAuthCodeRequest {
    let flow = v1::FlowCode { state: state.to_owned(), code: code.to_owned(), iss: iss.to_owned() };
    v1::StoreAuthCodeRequest { flow: Some(Flow::FlowCode(flow)) }
}

fn own_code(code: &str, verifier: &str) -> v1::StoreAuthCodeRequest {
    let own = v1::OwnCode {
        target: Some(Target::Plugin(PLUGIN.to_owned())),
        code: code.to_owned(),
        redirect_uri: REDIRECT_URI.to_owned(),
        code_verifier: verifier.to_owned(),
        ..Default::default()
    };
    v1::StoreAuthCodeRequest { flow: Some(Flow::OwnCode(own)) }
}

fn every_rpc() -> BTreeSet<&'static str> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.into_iter().filter(|file| file.package() == "claviger.v1");
    let services = files.flat_map(|file| file.service);
    services.flat_map(|service| service.method).map(|method| &*method.name().to_owned().leak()).collect()
}
