//! The development authorization server, over real sockets, with a clock that tests move.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

mod faults;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use claviger::{
    dev::{
        Answer, Arm, CLIENT_ID, Count, DevError, DevProvider, Endpoint, Fault, GrantType, HoldPoint,
        MissingRefreshToken, NAMED_FAULTS, Options, PUBLIC_CLIENT_ID, PlatformClaims, RetryAfter, SIGN_IN_CLIENT_ID,
        Signer, SigningAlgorithm, StateError, TokenOutcome, TokenRefusal,
        visitor::{Decision, Visitor, VisitorError},
    },
    domain::{BoxFuture, ClientSecret, Clock, PresentedToken, RefreshToken, Rotation, Timestamp},
    outbound::{Outbound, OutboundError, Policy, Reply, Request},
};
use http::{
    HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, jwk::JwkSet};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use url::Url;
use zeroize::Zeroizing;

const CALLBACK: &str = "http://127.0.0.1:9999/oauth/callback";
const VERIFIER: &str = "a-code-verifier-of-forty-three-characters-at-least";
const SECRET: &str = "a secret: with a colon & an ampersand";

/// Moves when a test says so. Nobody sleeps on it here: a shutdown waits for its requests, however long.
#[derive(Clone)]
struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(Self::START.as_millis())))
    }

    fn advance(&self, by: Duration) {
        self.0.store(self.now().plus(by).as_millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, _: Timestamp) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// A server and everything that a client needs to talk to it.
struct Dev {
    provider: DevProvider,
    clock: ManualClock,
    outbound: Outbound,
}

impl Dev {
    async fn start() -> Self {
        Self::with(options()).await
    }

    async fn rotating(rotation: Rotation) -> Self {
        Self::with(Options { rotation, ..options() }).await
    }

    async fn with(options: Options) -> Self {
        let clock = ManualClock::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = DevProvider::start(listener, options, Arc::new(clock.clone()), fill).await.unwrap();
        Self { provider, clock, outbound: loopback() }
    }

    fn url(&self, path: &str) -> Url {
        format!("{}{path}", self.provider.issuer()).parse().unwrap()
    }

    fn authorization_url(&self, changes: &[(&str, &str)]) -> Url {
        let mut parameters = BTreeMap::from([
            ("client_id", CLIENT_ID),
            ("redirect_uri", CALLBACK),
            ("response_type", "code"),
            ("scope", "openid profile calendar.read notes.read"),
            ("state", "the-state"),
            ("nonce", "the-nonce"),
            ("code_challenge_method", "S256"),
        ]);
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
        parameters.insert("code_challenge", &challenge);
        parameters.extend(changes.iter().copied());
        let mut url = self.url("/authorize");
        url.query_pairs_mut().extend_pairs(parameters.into_iter().filter(|(_, value)| !value.is_empty()));
        url
    }

    async fn visit(&self, url: &Url, user: &str, decision: Decision) -> Result<Url, VisitorError> {
        Visitor::new(self.outbound.clone()).visit(url, user, decision).await
    }

    async fn code(&self) -> String {
        let end = self.visit(&self.authorization_url(&[]), "alice", Decision::Approve).await.unwrap();
        query_of(&end)["code"].clone()
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Reply, OutboundError> {
        self.outbound.send(post(self.url(path), form)).await
    }

    async fn post_as_client(&self, path: &str, form: &[(&str, &str)]) -> Result<Reply, OutboundError> {
        let request = post(self.url(path), form).authorization(basic(CLIENT_ID, SECRET));
        self.outbound.send(request).await
    }

    async fn exchange(&self, code: &str) -> Result<Reply, OutboundError> {
        let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK)];
        self.post_as_client("/token", &[&form[..], &[("code_verifier", VERIFIER)]].concat()).await
    }

    async fn refresh(&self, token: &str) -> Result<Reply, OutboundError> {
        self.post_as_client("/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// The answer of a fresh authorization.
    async fn tokens(&self) -> Value {
        let reply = self.exchange(&self.code().await).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        json_of(&reply)
    }

    async fn refreshed(&self, token: &str) -> Value {
        let reply = self.refresh(token).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{:?}", json_of(&reply));
        json_of(&reply)
    }

    async fn get(&self, path: &str) -> Reply {
        self.outbound.send(Request::get(self.url(path))).await.unwrap()
    }

    async fn api(&self, path: &str, token: &Value) -> StatusCode {
        self.outbound.send(Request::get(self.url(path)).authorization(bearer(token))).await.unwrap().status
    }

    async fn remote(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let mut request = Request::get(self.url(path));
        request.method = method;
        if let Some(body) = body {
            request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request.body = Some(Zeroizing::new(body.to_string().into_bytes()));
        }
        self.outbound.send(request).await.unwrap()
    }

    async fn verified(&self, jwks: &str, audience: &str, token: &str) -> Option<(jsonwebtoken::Header, Value)> {
        let keys: JwkSet = serde_json::from_slice(&self.get(jwks).await.body).unwrap();
        let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
        let key = keys.find(&kid)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.algorithms = vec![jsonwebtoken::decode_header(token).ok()?.alg];
        validation.set_audience(&[audience]);
        validation.validate_exp = false;
        let data = decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).ok()?;
        Some((data.header, data.claims))
    }
}

fn options() -> Options {
    Options {
        client_secret: Some(ClientSecret::new(SECRET.to_owned())),
        redirect_uris: vec![CALLBACK.parse().unwrap()],
        sign_in_redirect_uris: vec![CALLBACK.parse().unwrap()],
        ..Options::default()
    }
}

fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).unwrap();
}

fn loopback() -> Outbound {
    Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap()
}

fn post(url: Url, form: &[(&str, &str)]) -> Request {
    let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    Request::post_form(url, Zeroizing::new(encoded.into_bytes()))
}

fn basic(id: &str, secret: &str) -> HeaderValue {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))).unwrap()
}

fn bearer(token: &Value) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {}", token.as_str().unwrap())).unwrap()
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn text<'a>(answer: &'a Value, member: &str) -> &'a str {
    answer[member].as_str().unwrap()
}

fn query_of(url: &Url) -> BTreeMap<String, String> {
    url.query_pairs().into_owned().collect()
}

fn error_of(reply: &Reply) -> (StatusCode, String) {
    (reply.status, text(&json_of(reply), "error").to_owned())
}

fn invalid_grant() -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, "invalid_grant".to_owned())
}

fn refresh_token(answer: &Value) -> RefreshToken {
    RefreshToken::new(text(answer, "refresh_token").to_owned())
}

mod code_flow {
    use super::*;

    #[tokio::test]
    async fn ends_with_tokens_that_work() {
        let dev = Dev::start().await;
        let end = dev.visit(&dev.authorization_url(&[]), "alice", Decision::Approve).await.unwrap();
        assert!(end.as_str().starts_with(CALLBACK));
        let query = query_of(&end);
        assert_eq!(query["state"], "the-state");
        assert_eq!(query["iss"], dev.provider.issuer());

        let reply = dev.exchange(&query["code"]).await.unwrap();
        assert_eq!(reply.headers[CACHE_CONTROL], "no-store");
        let answer = json_of(&reply);
        assert_eq!(answer["token_type"], "Bearer");
        assert_eq!(answer["expires_in"], 60);
        assert_eq!(answer["scope"], "calendar.read notes.read openid profile");
        assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::OK);
        let userinfo = Request::get(dev.url("/userinfo")).authorization(bearer(&answer["access_token"]));
        let userinfo = json_of(&dev.outbound.send(userinfo).await.unwrap());
        assert_eq!((&userinfo["sub"], &userinfo["name"]), (&json!("alice"), &json!("Alice Archer")));
    }

    #[tokio::test]
    async fn an_id_token_verifies_with_the_published_key_of_either_algorithm() {
        for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
            let dev = Dev::with(Options { id_token_algorithm: algorithm, ..options() }).await;
            let answer = dev.tokens().await;
            let (header, claims) = dev.verified("/jwks", CLIENT_ID, text(&answer, "id_token")).await.unwrap();
            assert_eq!(format!("{:?}", header.alg), algorithm.as_str());
            assert_eq!(claims["iss"], dev.provider.issuer());
            assert_eq!(claims["sub"], "alice");
            assert_eq!(claims["nonce"], "the-nonce");
            assert_eq!(claims["iat"], ManualClock::START.as_secs());
            let hash = digest(&SHA256, text(&answer, "access_token").as_bytes());
            assert_eq!(claims["at_hash"], URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]));
        }
    }

    #[tokio::test]
    async fn a_denial_is_told_to_the_client() {
        let dev = Dev::start().await;
        let end = dev.visit(&dev.authorization_url(&[]), "bob", Decision::Deny).await.unwrap();
        let query = query_of(&end);
        assert_eq!((query["error"].as_str(), query["state"].as_str()), ("access_denied", "the-state"));
        assert_eq!(query["iss"], dev.provider.issuer());
        assert!(!query.contains_key("code"));
        assert!(dev.provider.grants().is_empty());
    }

    #[tokio::test]
    async fn a_wrong_verifier_gets_nothing() {
        let dev = Dev::start().await;
        let code = dev.code().await;
        let form = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)];
        let wrong = VERIFIER.replace('a', "b");
        let reply = dev.post_as_client("/token", &[&form[..], &[("code_verifier", &wrong)]].concat()).await.unwrap();
        assert_eq!(error_of(&reply), invalid_grant());
        let last = dev.provider.token_requests().pop().unwrap();
        assert_eq!(last.outcome, TokenOutcome::Refused(TokenRefusal::WrongVerifier));

        let reply = dev.post_as_client("/token", &form).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::BAD_REQUEST, "invalid_request".to_owned()), "no verifier at all");
    }

    #[tokio::test]
    async fn a_replayed_code_ends_the_grant() {
        let dev = Dev::start().await;
        let code = dev.code().await;
        let answer = json_of(&dev.exchange(&code).await.unwrap());
        assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::OK);

        assert_eq!(error_of(&dev.exchange(&code).await.unwrap()), invalid_grant());
        assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::UNAUTHORIZED);
        assert_eq!(error_of(&dev.refresh(text(&answer, "refresh_token")).await.unwrap()), invalid_grant());
        assert!(dev.provider.grants()[0].ended_at.is_some());
    }

    #[tokio::test]
    async fn a_code_dies_after_ten_minutes() {
        let dev = Dev::start().await;
        let (in_time, too_late) = (dev.code().await, dev.code().await);
        dev.clock.advance(Duration::from_secs(599));
        assert_eq!(dev.exchange(&in_time).await.unwrap().status, StatusCode::OK);
        dev.clock.advance(Duration::from_secs(1));
        assert_eq!(error_of(&dev.exchange(&too_late).await.unwrap()), invalid_grant());
    }

    #[tokio::test]
    async fn a_code_is_bound_to_its_client_and_redirect_uri() {
        let dev = Dev::start().await;
        let code = dev.code().await;
        let mut form = vec![("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)];
        form.push(("redirect_uri", "http://127.0.0.1:9999/elsewhere"));
        assert_eq!(error_of(&dev.post_as_client("/token", &form).await.unwrap()), invalid_grant());
        form.pop();
        form.push(("client_id", PUBLIC_CLIENT_ID));
        assert_eq!(error_of(&dev.post("/token", &form).await.unwrap()), invalid_grant());
        form.pop();
        let reply = dev.post_as_client("/token", &form).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "OAuth 2.1 sends no redirect_uri here");
    }
}

mod authorization_requests {
    use super::*;

    #[tokio::test]
    async fn in_doubt_about_the_client_are_shown_and_not_redirected() {
        let dev = Dev::start().await;
        for change in [
            ("redirect_uri", "http://127.0.0.1:9999/oauth/callback/"),
            ("redirect_uri", "http://localhost:9999/oauth/callback"),
            ("redirect_uri", "http://user@127.0.0.1:9999/oauth/callback"),
            ("redirect_uri", "https://evil.example/oauth/callback"),
            ("redirect_uri", ""),
            ("client_id", "somebody"),
            ("client_id", SIGN_IN_CLIENT_ID),
        ] {
            let url = dev.authorization_url(&[change]);
            let reply = dev.outbound.send(Request::get(url)).await.unwrap();
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{change:?}");
            assert!(!reply.headers.contains_key(LOCATION));
        }
        // RFC 8252 §7.3: the operating system chooses a native application's port.
        let url = dev.authorization_url(&[("redirect_uri", "http://127.0.0.1:9998/oauth/callback")]);
        assert_eq!(dev.outbound.send(Request::get(url)).await.unwrap().status, StatusCode::OK);
        let url = dev.authorization_url(&[("client_id", "somebody")]);
        let visit = dev.visit(&url, "alice", Decision::Approve).await;
        assert!(matches!(visit, Err(VisitorError::DeadEnd { status: StatusCode::BAD_REQUEST })));
        let visit = dev.visit(&dev.authorization_url(&[]), "mallory", Decision::Approve).await;
        assert!(matches!(visit, Err(VisitorError::DeadEnd { status: StatusCode::BAD_REQUEST })), "no such user");
    }

    #[tokio::test]
    async fn of_a_known_client_are_refused_by_redirect() {
        let dev = Dev::start().await;
        for (changes, error) in [
            (vec![("code_challenge", "")], "invalid_request"),
            (vec![("code_challenge", "too-short")], "invalid_request"),
            (vec![("code_challenge_method", "plain")], "invalid_request"),
            (vec![("code_challenge_method", "")], "invalid_request"),
            (vec![("response_type", "token")], "unsupported_response_type"),
            (vec![("response_type", "")], "invalid_request"),
            (vec![("response_mode", "fragment")], "invalid_request"),
            (vec![("scope", "calendar.read root")], "invalid_scope"),
            (vec![("scope", "")], "invalid_scope"),
            (vec![("request", "e30.e30.")], "request_not_supported"),
            (vec![("prompt", "none")], "login_required"),
        ] {
            let reply = dev.outbound.send(Request::get(dev.authorization_url(&changes))).await.unwrap();
            assert_eq!(reply.status, StatusCode::SEE_OTHER, "{changes:?}");
            let location: Url = reply.headers[LOCATION].to_str().unwrap().parse().unwrap();
            assert!(location.as_str().starts_with(CALLBACK));
            let query = query_of(&location);
            assert_eq!(query["error"], error, "{changes:?}");
            assert_eq!((&query["state"], &query["iss"]), (&"the-state".to_owned(), &dev.provider.issuer()));
        }
    }

    #[tokio::test]
    async fn with_a_repeated_parameter_are_refused() {
        let dev = Dev::start().await;
        let mut url = dev.authorization_url(&[]);
        url.query_pairs_mut().append_pair("nonce", "another");
        let reply = dev.outbound.send(Request::get(url)).await.unwrap();
        assert!(reply.headers[LOCATION].to_str().unwrap().contains("error=invalid_request"));

        let mut url = dev.authorization_url(&[]);
        url.query_pairs_mut().append_pair("redirect_uri", CALLBACK);
        let reply = dev.outbound.send(Request::get(url)).await.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "which redirect URI would be a guess");
    }
}

mod pages {
    use super::*;

    #[tokio::test]
    async fn allow_no_script_and_escape_what_they_carry() {
        let dev = Dev::start().await;
        let url = dev.authorization_url(&[("state", "\"><script>alert(1)</script>")]);
        // As a browser would not send it: unescaped.
        let raw = url.as_str().replace("%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E", "x'><b>&quot;");
        for url in [url, raw.parse().unwrap()] {
            let reply = dev.outbound.send(Request::get(url)).await.unwrap();
            let page = String::from_utf8(reply.body.to_vec()).unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
            let policy = reply.headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; style-src 'self'; form-action 'self' http://127.0.0.1:9999;")
            );
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("script-src"));
            assert_eq!(reply.headers["x-content-type-options"], "nosniff");
            assert_eq!(reply.headers["referrer-policy"], "no-referrer");
        }
    }

    #[tokio::test]
    async fn say_scopes_in_words() {
        let dev = Dev::start().await;
        let login = dev.outbound.send(Request::get(dev.authorization_url(&[]))).await.unwrap();
        let (cookie, form) = (cookie_of(&login), hidden_fields(&login));
        let form = [("csrf", form["csrf"].as_str()), ("request", &form["request"]), ("user", "bob")];
        let mut request = post(dev.url("/login"), &form);
        request.headers.insert(COOKIE, cookie);
        let logged_in = dev.outbound.send(request).await.unwrap();
        let mut consent = Request::get(logged_in.headers[LOCATION].to_str().unwrap().parse().unwrap());
        consent.headers.insert(COOKIE, cookie_of(&logged_in));
        let page = String::from_utf8(dev.outbound.send(consent).await.unwrap().body.to_vec()).unwrap();
        for words in ["Bob Baker", "Claviger (development)", "read your calendar", "know who you are"] {
            assert!(page.contains(words), "{words} is not in {page}");
        }
    }

    #[tokio::test]
    async fn take_a_form_only_from_the_browser_that_it_was_shown_to() {
        let dev = Dev::start().await;
        let url = dev.authorization_url(&[]);
        let (mine, other) = (
            dev.outbound.send(Request::get(url.clone())).await.unwrap(),
            dev.outbound.send(Request::get(url)).await.unwrap(),
        );
        let fields = hidden_fields(&mine);
        let form = [("csrf", fields["csrf"].as_str()), ("request", &fields["request"]), ("user", "alice")];
        let name = cookie_of(&mine).to_str().unwrap().split('=').next().unwrap().to_owned();
        let forged = HeaderValue::try_from(format!("{name}=a.alice.1.x")).unwrap();
        for cookie in [None, Some(cookie_of(&other)), Some(forged)] {
            let mut request = post(dev.url("/login"), &form);
            if let Some(cookie) = cookie {
                request.headers.insert(COOKIE, cookie);
            }
            assert_eq!(dev.outbound.send(request).await.unwrap().status, StatusCode::BAD_REQUEST);
        }
        let mut request = post(dev.url("/login"), &form);
        request.headers.insert(COOKIE, cookie_of(&mine));
        let logged_in = dev.outbound.send(request).await.unwrap();
        assert_eq!(logged_in.status, StatusCode::SEE_OTHER);
        assert_ne!(cookie_of(&logged_in), cookie_of(&mine), "a planted session must not become a logged-in one");
    }

    #[tokio::test]
    async fn take_no_form_without_its_csrf_token() {
        let dev = Dev::start().await;
        let mine = dev.outbound.send(Request::get(dev.authorization_url(&[]))).await.unwrap();
        let fields = hidden_fields(&mine);
        for csrf in ["", "AAAA"] {
            let mut request =
                post(dev.url("/login"), &[("csrf", csrf), ("request", &fields["request"]), ("user", "alice")]);
            request.headers.insert(COOKIE, cookie_of(&mine));
            assert_eq!(dev.outbound.send(request).await.unwrap().status, StatusCode::BAD_REQUEST);
        }
    }

    #[tokio::test]
    async fn believe_no_cookie_that_the_server_did_not_sign() {
        let dev = Dev::start().await;
        let authorization = dev.authorization_url(&[]);
        let login = cookie_of(&dev.outbound.send(Request::get(authorization.clone())).await.unwrap());
        let (name, value) = login.to_str().unwrap().split_once('=').unwrap();
        let tag = value.rsplit('.').next().unwrap();
        let forged = format!("{name}=session.alice.{}.{tag}", ManualClock::START.as_secs());
        let mut consent = Request::get(authorization.as_str().replace("/authorize", "/consent").parse().unwrap());
        consent.headers.insert(COOKIE, HeaderValue::try_from(forged).unwrap());
        let reply = dev.outbound.send(consent).await.unwrap();
        assert!(reply.headers[LOCATION].to_str().unwrap().starts_with(dev.url("/authorize?").as_str()));
    }

    #[tokio::test]
    async fn ask_for_a_login_again_after_an_hour() {
        let dev = Dev::start().await;
        let login = dev.outbound.send(Request::get(dev.authorization_url(&[]))).await.unwrap();
        let fields = hidden_fields(&login);
        let form = [("csrf", fields["csrf"].as_str()), ("request", &fields["request"]), ("user", "alice")];
        let mut request = post(dev.url("/login"), &form);
        request.headers.insert(COOKIE, cookie_of(&login));
        let logged_in = dev.outbound.send(request).await.unwrap();
        dev.clock.advance(Duration::from_secs(3600));
        let mut consent = Request::get(logged_in.headers[LOCATION].to_str().unwrap().parse().unwrap());
        consent.headers.insert(COOKIE, cookie_of(&logged_in));
        let reply = dev.outbound.send(consent).await.unwrap();
        assert!(reply.headers[LOCATION].to_str().unwrap().starts_with(dev.url("/authorize?").as_str()));
    }

    fn cookie_of(reply: &Reply) -> HeaderValue {
        let line = reply.headers[SET_COOKIE].to_str().unwrap();
        assert!(line.contains("HttpOnly") && line.contains("SameSite=Lax"));
        HeaderValue::from_str(line.split(';').next().unwrap()).unwrap()
    }

    fn hidden_fields(reply: &Reply) -> BTreeMap<String, String> {
        let page = String::from_utf8(reply.body.to_vec()).unwrap();
        let quoted = |tag: &str, name: &str| {
            let value = tag.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
            value.replace("&amp;", "&")
        };
        page.split("type=\"hidden\"").skip(1).map(|tag| (quoted(tag, "name"), quoted(tag, "value"))).collect()
    }
}

mod rotation {
    use super::*;

    #[tokio::test]
    async fn strict_replaces_the_token_and_punishes_reuse() {
        let dev = Dev::rotating(Rotation::Strict).await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        assert_ne!(first["refresh_token"], second["refresh_token"]);
        assert!(!dev.provider.is_refresh_token_live(&refresh_token(&first)));
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&second)));
        let grant = dev.provider.grants()[0].id.clone();
        assert_eq!(dev.provider.live_refresh_tokens(&grant), 1);

        assert_eq!(error_of(&dev.refresh(text(&first, "refresh_token")).await.unwrap()), invalid_grant());
        let last = dev.provider.token_requests().pop().unwrap();
        assert_eq!(last.outcome, TokenOutcome::Refused(TokenRefusal::ReusedRefreshToken));
        assert_eq!(error_of(&dev.refresh(text(&second, "refresh_token")).await.unwrap()), invalid_grant());
        assert_eq!(dev.api("/api/calendar", &second["access_token"]).await, StatusCode::UNAUTHORIZED);
        assert_eq!(dev.provider.live_refresh_tokens(&grant), 0);
    }

    #[tokio::test]
    async fn grace_takes_the_old_token_for_a_while() {
        let dev = Dev::rotating(Rotation::Grace { seconds: 10 }).await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        dev.clock.advance(Duration::from_secs(9));
        let third = dev.refreshed(text(&first, "refresh_token")).await;
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&second)));
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&third)));
        dev.clock.advance(Duration::from_secs(1));
        assert_eq!(error_of(&dev.refresh(text(&first, "refresh_token")).await.unwrap()), invalid_grant());
        assert!(!dev.provider.is_refresh_token_live(&refresh_token(&third)), "too late is reuse");
    }

    #[tokio::test]
    async fn reuse_keeps_the_old_token_beside_the_new() {
        let dev = Dev::rotating(Rotation::Reuse).await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        assert_ne!(first["refresh_token"], second["refresh_token"]);
        dev.refreshed(text(&first, "refresh_token")).await;
        dev.refreshed(text(&second, "refresh_token")).await;
    }

    #[tokio::test]
    async fn none_hands_out_no_other_token() {
        let dev = Dev::rotating(Rotation::None).await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        assert_eq!(second.get("refresh_token"), None);
        dev.refreshed(text(&first, "refresh_token")).await;
    }

    #[tokio::test]
    async fn a_refresh_may_narrow_scopes_and_never_widen_them() {
        let dev = Dev::start().await;
        let first = dev.tokens().await;
        let form = [("grant_type", "refresh_token"), ("refresh_token", text(&first, "refresh_token"))];
        let reply = dev.post_as_client("/token", &[&form[..], &[("scope", "notes.write")]].concat()).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::BAD_REQUEST, "invalid_scope".to_owned()));
        let reply = dev.post_as_client("/token", &[&form[..], &[("scope", "notes.read")]].concat()).await.unwrap();
        let narrow = json_of(&reply);
        assert_eq!(narrow["scope"], "notes.read");
        assert_eq!(dev.api("/api/notes", &narrow["access_token"]).await, StatusCode::OK);
        assert_eq!(dev.api("/api/calendar", &narrow["access_token"]).await, StatusCode::FORBIDDEN);
        let wide = dev.refreshed(text(&narrow, "refresh_token")).await;
        assert_eq!(wide["scope"], first["scope"], "the grant itself stays as wide");
    }

    #[tokio::test]
    async fn a_refreshed_id_token_names_the_same_user_and_no_nonce() {
        let dev = Dev::start().await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        let (_, claims) = dev.verified("/jwks", CLIENT_ID, text(&second, "id_token")).await.unwrap();
        assert_eq!((&claims["sub"], claims.get("nonce")), (&json!("alice"), None));
    }

    #[tokio::test]
    async fn of_two_uses_at_once_strict_answers_one() {
        let dev = Dev::start().await;
        let first = dev.tokens().await;
        let token = text(&first, "refresh_token");
        let (one, other) = tokio::join!(dev.refresh(token), dev.refresh(token));
        let statuses = [one.unwrap().status, other.unwrap().status];
        assert!(statuses.contains(&StatusCode::OK) && statuses.contains(&StatusCode::BAD_REQUEST), "{statuses:?}");
    }
}

mod tokens {
    use super::*;

    #[tokio::test]
    async fn an_access_token_expires_by_the_clock() {
        let dev = Dev::start().await;
        let answer = dev.tokens().await;
        dev.clock.advance(Duration::from_millis(59_999));
        assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::OK);
        dev.clock.advance(Duration::from_millis(1));
        let request = Request::get(dev.url("/api/calendar")).authorization(bearer(&answer["access_token"]));
        let reply = dev.outbound.send(request).await.unwrap();
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert_eq!(reply.headers[WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
        dev.clock.advance(Duration::from_secs(3600 * 24 * 365));
        dev.refreshed(text(&answer, "refresh_token")).await;
    }

    #[tokio::test]
    async fn an_api_wants_its_own_scope() {
        let dev = Dev::start().await;
        let answer = dev.tokens().await;
        assert_eq!(dev.get("/api/calendar").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(dev.api("/api/nothing", &answer["access_token"]).await, StatusCode::NOT_FOUND);
        let write = |path| post(dev.url(path), &[]).authorization(bearer(&answer["access_token"]));
        let reply = dev.outbound.send(write("/api/notes")).await.unwrap();
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "notes.write was not granted");
        let reply = dev.outbound.send(write("/api/calendar")).await.unwrap();
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(dev.api("/api/calendar", &answer["refresh_token"]).await, StatusCode::UNAUTHORIZED);
        assert_eq!(dev.api("/platform/userinfo", &answer["access_token"]).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn revoking_a_refresh_token_ends_everything() {
        let dev = Dev::start().await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        let form = [("token", text(&second, "refresh_token")), ("token_type_hint", "refresh_token")];
        assert_eq!(dev.post_as_client("/revoke", &form).await.unwrap().status, StatusCode::OK);
        assert!(!dev.provider.is_refresh_token_live(&refresh_token(&second)));
        for answer in [&first, &second] {
            assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(dev.post_as_client("/revoke", &form).await.unwrap().status, StatusCode::OK, "twice is no error");
    }

    #[tokio::test]
    async fn revoking_an_access_token_leaves_the_rest() {
        let dev = Dev::start().await;
        let answer = dev.tokens().await;
        let form = [("token", text(&answer, "access_token"))];
        assert_eq!(dev.post_as_client("/revoke", &form).await.unwrap().status, StatusCode::OK);
        assert_eq!(dev.api("/api/calendar", &answer["access_token"]).await, StatusCode::UNAUTHORIZED);
        dev.refreshed(text(&answer, "refresh_token")).await;
    }

    #[tokio::test]
    async fn revoking_is_for_the_client_that_holds_the_token() {
        let dev = Dev::start().await;
        let answer = dev.tokens().await;
        let token = text(&answer, "refresh_token");
        let reply = dev.post("/revoke", &[("token", token)]).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::UNAUTHORIZED, "invalid_client".to_owned()));
        let reply = dev.post("/revoke", &[("token", token), ("client_id", PUBLIC_CLIENT_ID)]).await.unwrap();
        assert_eq!(error_of(&reply), invalid_grant());
        assert!(dev.provider.is_refresh_token_live(&refresh_token(&answer)));
        let reply = dev.post_as_client("/revoke", &[("token", "never issued")]).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
    }

    #[tokio::test]
    async fn introspection_tells_live_from_dead() {
        let dev = Dev::start().await;
        let first = dev.tokens().await;
        let second = dev.refreshed(text(&first, "refresh_token")).await;
        let introspect = async |token: &Value| {
            json_of(&dev.post_as_client("/introspect", &[("token", token.as_str().unwrap())]).await.unwrap())
        };
        let access = introspect(&second["access_token"]).await;
        assert_eq!((&access["active"], &access["sub"]), (&json!(true), &json!("alice")));
        assert_eq!(access["exp"], ManualClock::START.as_secs() + 60);
        assert_eq!(introspect(&second["refresh_token"]).await["active"], true);
        assert_eq!(introspect(&first["refresh_token"]).await, json!({ "active": false }));
        dev.clock.advance(Duration::from_secs(60));
        assert_eq!(introspect(&second["access_token"]).await, json!({ "active": false }));
        let reply = dev.post("/introspect", &[("token", "x"), ("client_id", PUBLIC_CLIENT_ID)]).await.unwrap();
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    }
}

mod clients {
    use super::*;

    const FORM: [(&str, &str); 2] = [("grant_type", "refresh_token"), ("refresh_token", "unknown")];

    #[tokio::test]
    async fn authenticate_in_one_way_at_a_time() {
        let dev = Dev::start().await;
        let with = |more: &[(&'static str, &'static str)]| [&FORM[..], more].concat();
        let reply = dev.post("/token", &with(&[("client_id", CLIENT_ID), ("client_secret", SECRET)])).await.unwrap();
        assert_eq!(error_of(&reply), invalid_grant(), "authenticated in the form; only the token is wrong");
        let reply = dev.post_as_client("/token", &FORM).await.unwrap();
        assert_eq!(error_of(&reply), invalid_grant(), "authenticated by Basic; only the token is wrong");
        let reply = dev.post("/token", &with(&[("client_id", PUBLIC_CLIENT_ID)])).await.unwrap();
        assert_eq!(error_of(&reply), invalid_grant(), "public; only the token is wrong");
        let reply = dev.post_as_client("/token", &with(&[("client_secret", SECRET)])).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::BAD_REQUEST, "invalid_request".to_owned()));
        let reply = dev.post_as_client("/token", &with(&[("refresh_token", "again")])).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::BAD_REQUEST, "invalid_request".to_owned()));
    }

    #[tokio::test]
    async fn that_cannot_prove_themselves_are_refused() {
        let dev = Dev::start().await;
        let refused = (StatusCode::UNAUTHORIZED, "invalid_client".to_owned());
        for header in [
            basic(CLIENT_ID, "wrong"),
            basic(CLIENT_ID, ""),
            basic("somebody", SECRET),
            basic(SIGN_IN_CLIENT_ID, SECRET),
            HeaderValue::from_static("Basic !!!"),
            HeaderValue::from_static("Bearer x"),
        ] {
            let reply = dev.outbound.send(post(dev.url("/token"), &FORM).authorization(header)).await.unwrap();
            assert_eq!(error_of(&reply), refused);
            assert!(reply.headers.contains_key(WWW_AUTHENTICATE));
        }
        for id in [CLIENT_ID, "somebody", ""] {
            let reply = dev.post("/token", &[&FORM[..], &[("client_id", id)]].concat()).await.unwrap();
            assert_eq!(error_of(&reply), refused, "{id}");
        }
    }

    #[tokio::test]
    async fn send_forms_and_nothing_else() {
        let dev = Dev::start().await;
        let mut request = post(dev.url("/token"), &FORM).authorization(basic(CLIENT_ID, SECRET));
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let reply = dev.outbound.send(request).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::BAD_REQUEST, "invalid_request".to_owned()));
    }

    #[tokio::test]
    async fn a_public_client_finishes_with_pkce_alone() {
        let dev = Dev::start().await;
        let url = dev.authorization_url(&[("client_id", PUBLIC_CLIENT_ID)]);
        let end = dev.visit(&url, "bob", Decision::Approve).await.unwrap();
        let code = &query_of(&end)["code"];
        let form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", VERIFIER)];
        let reply = dev.post("/token", &[&form[..], &[("client_id", PUBLIC_CLIENT_ID)]].concat()).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
    }
}

mod issuers {
    use super::*;

    #[tokio::test]
    async fn publish_the_same_metadata_under_both_names() {
        let dev = Dev::start().await;
        let document = json_of(&dev.get("/.well-known/openid-configuration").await);
        assert_eq!(document, json_of(&dev.get("/.well-known/oauth-authorization-server").await));
        assert_eq!(document["issuer"], dev.provider.issuer());
        assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(document["authorization_response_iss_parameter_supported"], true);
        let platform = json_of(&dev.get("/platform/.well-known/openid-configuration").await);
        assert_eq!(platform["issuer"], dev.provider.platform_issuer());
        for path in ["/.well-known/oauth-authorization-server/platform", "/.well-known/openid-configuration/platform"] {
            assert_eq!(platform, json_of(&dev.get(path).await));
        }
        let keys = json_of(&dev.get("/jwks").await);
        assert!(keys["keys"].as_array().unwrap().iter().all(|key| key.get("d").is_none()));
        assert_ne!(keys, json_of(&dev.get("/platform/jwks").await));
    }

    #[tokio::test]
    async fn the_platforms_tokens_are_its_own() {
        let dev = Dev::start().await;
        let claims = PlatformClaims { agent: Some("helper".to_owned()), ..PlatformClaims::to("claviger") };
        for algorithm in [SigningAlgorithm::Es256, SigningAlgorithm::Rs256] {
            let token = mint(&dev, &PlatformClaims { algorithm, ..claims.clone() });
            let (header, claims) = dev.verified("/platform/jwks", "claviger", token.expose()).await.unwrap();
            assert_eq!(header.typ.as_deref(), Some("at+jwt"));
            assert_eq!(claims["iss"], dev.provider.platform_issuer());
            assert_eq!((&claims["sub"], &claims["azp"]), (&json!("alice"), &json!("helper")));
            assert_eq!(claims["exp"], ManualClock::START.as_secs() + 600);
            assert!(dev.verified("/jwks", "claviger", token.expose()).await.is_none());
        }
    }

    #[tokio::test]
    async fn odd_platform_tokens_are_as_odd_as_asked() {
        let dev = Dev::start().await;
        let with = |signer| PlatformClaims { signer, ..PlatformClaims::to("claviger") };
        let forged = mint(&dev, &with(Signer::Forger));
        assert!(dev.verified("/platform/jwks", "claviger", forged.expose()).await.is_none());
        let provider = mint(&dev, &with(Signer::Provider));
        assert!(
            dev.verified("/jwks", "claviger", provider.expose()).await.is_some(),
            "a real key, of the wrong issuer"
        );
        let odd = PlatformClaims {
            claim_overrides: members(&json!({ "sub": null, "tid": "t1" })),
            header_overrides: members(&json!({ "typ": "JWT" })),
            ..PlatformClaims::to("claviger")
        };
        let (header, claims) = dev.verified("/platform/jwks", "claviger", mint(&dev, &odd).expose()).await.unwrap();
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        assert_eq!((claims.get("sub"), &claims["tid"]), (None, &json!("t1")));
    }

    #[tokio::test]
    async fn the_platform_signs_users_in_without_consent_or_refresh() {
        let dev = Dev::start().await;
        let changes = [("client_id", SIGN_IN_CLIENT_ID), ("scope", "openid profile")];
        let url = dev.authorization_url(&changes).as_str().replace("/authorize", "/platform/authorize");
        let end = dev.visit(&url.parse().unwrap(), "bob", Decision::Deny).await.unwrap();
        let query = query_of(&end);
        assert_eq!(query["iss"], dev.provider.platform_issuer());
        let form = [("grant_type", "authorization_code"), ("code", &query["code"]), ("code_verifier", VERIFIER)];
        let request = post(dev.url("/token"), &form).authorization(basic(SIGN_IN_CLIENT_ID, SECRET));
        assert_eq!(dev.outbound.send(request).await.unwrap().status, StatusCode::UNAUTHORIZED, "not the provider's");
        let request = post(dev.url("/platform/token"), &form).authorization(basic(SIGN_IN_CLIENT_ID, SECRET));
        let answer = json_of(&dev.outbound.send(request).await.unwrap());
        assert_eq!(answer.get("refresh_token"), None);
        let id_token = text(&answer, "id_token");
        let (_, claims) = dev.verified("/platform/jwks", SIGN_IN_CLIENT_ID, id_token).await.unwrap();
        assert_eq!((&claims["sub"], &claims["iss"]), (&json!("bob"), &json!(dev.provider.platform_issuer())));
        assert_eq!(dev.api("/userinfo", &answer["access_token"]).await, StatusCode::UNAUTHORIZED);
    }

    fn mint(dev: &Dev, claims: &PlatformClaims) -> PresentedToken {
        dev.provider.mint_platform_token("alice", claims).unwrap()
    }

    fn members(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }
}

mod state {
    use super::*;

    #[tokio::test]
    async fn survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("dev");
        let kept = || Options { directory: Some(place.clone()), client_secret: None, ..options() };
        let dev = Dev::with(kept()).await;
        let secret = dev.provider.client_secret();
        let url = dev.authorization_url(&[]);
        let code = query_of(&dev.visit(&url, "alice", Decision::Approve).await.unwrap())["code"].clone();
        let keys = dev.get("/jwks").await.body;
        let form = [("grant_type", "authorization_code"), ("code", &code), ("code_verifier", VERIFIER)];
        let request = post(dev.url("/token"), &form).authorization(basic(CLIENT_ID, secret.expose()));
        let first = json_of(&dev.outbound.send(request).await.unwrap());
        let pending = dev.code().await;
        dev.provider.shutdown().await;
        assert_modes_are_private(&place);
        assert_secrets_are_absent(&place, &[text(&first, "refresh_token"), text(&first, "access_token"), &pending]);

        let dev = Dev::with(kept()).await;
        assert!(dev.provider.client_secret() == secret);
        assert_eq!(dev.get("/jwks").await.body, keys);
        assert_eq!(dev.api("/api/calendar", &first["access_token"]).await, StatusCode::OK);
        let form = [("grant_type", "refresh_token"), ("refresh_token", text(&first, "refresh_token"))];
        let request = || post(dev.url("/token"), &form).authorization(basic(CLIENT_ID, secret.expose()));
        let reply = dev.outbound.send(request()).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(error_of(&dev.outbound.send(request()).await.unwrap()), invalid_grant(), "rotation is remembered");
        let form = [("grant_type", "authorization_code"), ("code", &pending), ("code_verifier", VERIFIER)];
        let request = post(dev.url("/token"), &form).authorization(basic(CLIENT_ID, secret.expose()));
        assert_eq!(dev.outbound.send(request).await.unwrap().status, StatusCode::OK);
    }

    #[tokio::test]
    async fn in_a_directory_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = refused(Options { directory: Some(directory.path().to_owned()), ..options() }).await;
        assert!(matches!(error, DevError::State(StateError::OpenToOthers { mode: 0o755, .. })));
    }

    #[tokio::test]
    async fn that_cannot_be_read_is_not_overwritten() {
        let directory = private_directory();
        let file = directory.path().join("identity.json");
        fs::write(&file, "{\"client_secret\": \"half a fi").unwrap();
        let error = refused(Options { directory: Some(directory.path().to_owned()), ..options() }).await;
        assert!(matches!(&error, DevError::State(StateError::Unreadable { path }) if *path == file));
        assert!(!error.to_string().contains("half"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"client_secret\": \"half a fi");
    }

    #[tokio::test]
    async fn that_cannot_be_written_changes_nothing() {
        let directory = private_directory();
        let dev = Dev::with(Options { directory: Some(directory.path().to_owned()), ..options() }).await;
        let answer = dev.tokens().await;
        // A directory in the way of the temporary file: even root cannot write there.
        fs::create_dir(directory.path().join("grants.json.new")).unwrap();
        let reply = dev.refresh(text(&answer, "refresh_token")).await.unwrap();
        assert_eq!(error_of(&reply), (StatusCode::SERVICE_UNAVAILABLE, "server_error".to_owned()));
        fs::remove_dir(directory.path().join("grants.json.new")).unwrap();
        dev.refreshed(text(&answer, "refresh_token")).await;
    }

    #[tokio::test]
    async fn is_not_served_beyond_loopback() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let started = DevProvider::start(listener, options(), Arc::new(ManualClock::new()), fill).await;
        assert!(matches!(started, Err(DevError::NotLoopback { address: refused }) if refused == address));
    }

    #[tokio::test]
    async fn is_not_served_under_a_foreign_name() {
        let dev = Dev::start().await;
        let port = dev.provider.address().port();
        for (host, status) in [
            (format!("rebound.example:{port}"), StatusCode::MISDIRECTED_REQUEST),
            ("localhost".to_owned(), StatusCode::MISDIRECTED_REQUEST),
            (format!("localhost:{port}"), StatusCode::OK),
        ] {
            let mut request = Request::get(dev.url("/jwks"));
            request.headers.insert(HOST, HeaderValue::from_str(&host).unwrap());
            assert_eq!(dev.outbound.send(request).await.unwrap().status, status, "{host}");
        }
    }

    #[tokio::test]
    async fn a_stopped_server_is_gone() {
        let dev = Dev::start().await;
        let hold = dev.provider.faults().hold(Endpoint::Jwks, HoldPoint::Request);
        let (reply, ()) = tokio::join!(dev.get("/jwks"), async {
            hold.arrived(1).await;
            dev.provider.shutdown().await;
        });
        assert_eq!(reply.status, StatusCode::OK, "what ran was finished");
        let error = dev.outbound.send(Request::get(dev.url("/jwks"))).await.err().unwrap();
        assert!(!error.was_sent());
    }

    fn private_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        directory
    }

    #[tokio::test]
    async fn a_dropped_server_stops() {
        let Dev { provider, outbound, .. } = Dev::start().await;
        let url: Url = provider.issuer().parse().unwrap();
        drop(provider);
        while outbound.send(Request::get(url.clone())).await.is_ok() {}
    }

    async fn refused(options: Options) -> DevError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        DevProvider::start(listener, options, Arc::new(ManualClock::new()), fill).await.err().unwrap()
    }

    fn assert_modes_are_private(directory: &Path) {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory), 0o700);
        let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|file| mode(file) == 0o600));
    }

    fn assert_secrets_are_absent(directory: &Path, secrets: &[&str]) {
        for entry in fs::read_dir(directory).unwrap() {
            let content = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(secrets.iter().all(|secret| !content.contains(secret)));
        }
    }
}
