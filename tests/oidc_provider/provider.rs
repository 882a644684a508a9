//! The authorization server as a child process: its address, its test door, and its own judgement of tokens.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use claviger::outbound::{Outbound, Policy, Reply, Request};
use http::{StatusCode, header::DATE};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::tools::{search_path, there_is};

pub(crate) const CLIENT_ID: &str = "broker";
pub(crate) const CLIENT_SECRET: &str = "broker-secret";

pub(crate) struct OidcProvider {
    child: Child,
    issuer: Url,
    outbound: Outbound,
}

/// What the server knows of refreshing.
#[derive(Deserialize)]
pub(crate) struct Refreshes {
    /// Every refresh token that it gave out, oldest first.
    pub(crate) tokens: Vec<String>,
    /// Token requests with a refresh token that it refused.
    pub(crate) refused: usize,
}

impl Refreshes {
    pub(crate) fn newest(&self) -> &str {
        self.tokens.last().unwrap()
    }
}

impl OidcProvider {
    /// `None`: it is not installed, and plain `cargo test` does without.
    pub(crate) fn start(host: &str) -> Option<Self> {
        const NODE: &str = "node-oidc_provider";
        there_is(NODE).then(|| {
            let mut command = Command::new(NODE);
            command
                .env("PATH", search_path())
                .args([concat!(env!("CARGO_MANIFEST_DIR"), "/", "tests/oidc_provider/server.mjs"), host]);
            // It ends with its standard input, however this process ends.
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
            let mut issuer = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut issuer).unwrap();
            let issuer = issuer.trim().parse().expect("the first line is the issuer");
            Self { child, issuer, outbound: outbound() }
        })
    }

    /// Without a trailing slash, as it calls itself.
    pub(crate) fn issuer(&self) -> &str {
        self.issuer.as_str().trim_end_matches('/')
    }

    /// The access tokens that are issued from now on live so long.
    pub(crate) async fn set_lifetime(&self, seconds: u32) {
        self.tell("lifetime", &json!({ "seconds": seconds })).await;
    }

    /// What a door for the test answers.
    pub(crate) async fn tell(&self, door: &str, what: &Value) -> Value {
        let mut request = Request::post_form(self.url(&format!("/test/{door}")), Zeroizing::default());
        request.body = Some(Zeroizing::new(what.to_string().into_bytes()));
        self.answer(request).await
    }

    /// As [`Self::tell`], of a door that only answers.
    pub(crate) async fn ask(&self, door: &str) -> Value {
        self.answer(Request::get(self.url(&format!("/test/{door}")))).await
    }

    async fn answer(&self, request: Request) -> Value {
        let reply = self.send(request).await;
        assert_eq!(reply.status, StatusCode::OK);
        serde_json::from_slice(&reply.body).unwrap()
    }

    pub(crate) async fn refreshes(&self) -> Refreshes {
        let reply = self.send(Request::get(self.url("/test/refreshes"))).await;
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// Returns once, by the server's own clock, every token is over that had so many seconds left at most, wherever they
    /// were counted.
    pub(crate) async fn outlasts(&self, seconds: u64) {
        let began = self.time().await;
        while self.time().await <= began + Duration::from_secs(seconds + 1) {}
    }

    async fn time(&self) -> SystemTime {
        let reply = self.send(Request::get(self.url("/test/refreshes"))).await;
        httpdate::parse_http_date(reply.headers[DATE].to_str().unwrap()).unwrap()
    }

    /// The user that the access token stands for, at the userinfo endpoint (OpenID Connect Core §5.3). `None`: refused.
    pub(crate) async fn user_of(&self, access_token: &str) -> Option<String> {
        let bearer = format!("Bearer {access_token}");
        let reply = self.send(Request::get(self.url("/me")).authorization(bearer.parse().unwrap())).await;
        let user = || serde_json::from_slice::<Value>(&reply.body).unwrap()["sub"].as_str().unwrap().to_owned();
        (reply.status == StatusCode::OK).then(user)
    }

    /// What the introspection endpoint (RFC 7662) says of the token.
    pub(crate) async fn is_active(&self, token: &str) -> bool {
        let (status, answer) = self.as_client("/token/introspection", &[("token", token)]).await;
        assert_eq!(status, StatusCode::OK);
        answer["active"].as_bool().unwrap()
    }

    /// Uses the refresh token as the broker would; its error, or `None` when it was taken.
    pub(crate) async fn refresh_error(&self, refresh_token: &str) -> Option<String> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        let (_, answer) = self.as_client("/token", &form).await;
        answer["error"].as_str().map(str::to_owned)
    }

    /// A POST with the broker's credentials at the provider.
    async fn as_client(&self, path: &str, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let basic = STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
        let request = post(self.url(path), form).authorization(format!("Basic {basic}").parse().unwrap());
        let reply = self.send(request).await;
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.issuer.join(path).unwrap()
    }

    pub(crate) async fn send(&self, request: Request) -> Reply {
        self.outbound.send(request).await.unwrap()
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn post(url: Url, form: &[(&str, &str)]) -> Request {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    Request::post_form(url, Zeroizing::new(body.into_bytes()))
}

pub(crate) fn outbound() -> Outbound {
    // Some doors answer when something has happened.
    let policy = Policy {
        allow_http_loopback: true,
        timeout: Duration::from_secs(300),
        max_response: 64 << 20,
        ..Policy::default()
    };
    Outbound::new(&policy).unwrap()
}
