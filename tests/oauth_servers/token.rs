use std::time::Duration;

use claviger::{
    domain::{
        AuthorizationCode, ClientAuthentication, ClientSecret, CodeVerifier, Provider, RefreshToken, ReplyClass,
        ScopeSet, Timestamp,
    },
    oauth::{Evidence, TokenFailure, Tokens, definitions::shipped},
};

use crate::{
    NOW, World, provider,
    token_endpoint::{Answer, Gate},
};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const TOKENS: &str = r#"{"access_token":"at","refresh_token":"rt2","token_type":"bearer","expires_in":60}"#;

async fn exchange(world: &World, provider: &Provider) -> Result<Tokens, TokenFailure> {
    let (code, verifier) = (AuthorizationCode::new("c0de".to_owned()), CodeVerifier::new(VERIFIER.to_owned()));
    let redirect_uri = "https://broker.example/oauth/callback?x=1".parse().unwrap();
    world.servers.exchange(provider, &world.endpoint.url("/token"), &code, &verifier, &redirect_uri).await
}

async fn refresh(world: &World, provider: &Provider) -> Result<Tokens, TokenFailure> {
    world.servers.refresh(provider, &RefreshToken::new("rt-c4n4ry".to_owned()), &ScopeSet::default(), None, 0).await
}

async fn failed_refresh(world: &World, provider: &Provider) -> TokenFailure {
    refresh(world, provider).await.map(drop).unwrap_err()
}

#[tokio::test]
async fn an_exchange_is_one_post_with_everything_the_rfcs_ask_for() {
    let mut world = World::start().await;
    let mut provider = world.pinned();
    provider.definition.token_parameters.insert("audience".to_owned(), "api".to_owned());
    world.endpoint.answer("/token", Answer::json(200, TOKENS));
    let tokens =
        exchange(&world, &provider).await.map_err(|failure| failure.to_string()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(tokens.access.expose(), "at");
    assert_eq!(tokens.asked_at, Timestamp::from_secs(NOW));
    let request = world.endpoint.received().await;
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    // base64("client:s3cret")
    assert_eq!(request.header("authorization"), Some("Basic Y2xpZW50OnMzY3JldA=="));
    for (name, wanted) in [
        ("grant_type", Some("authorization_code")),
        ("code", Some("c0de")),
        ("code_verifier", Some(VERIFIER)),
        ("redirect_uri", Some("https://broker.example/oauth/callback?x=1")),
        ("audience", Some("api")),
        ("client_secret", None),
    ] {
        assert_eq!(request.form(name).as_deref(), wanted, "{name}");
    }
    assert_eq!(world.endpoint.unread(), 0);
}

#[tokio::test]
async fn a_refresh_sends_the_token_and_the_narrower_scopes_alone() {
    let mut world = World::start().await;
    let mut provider = world.pinned();
    provider.definition.scope_separator = ',';
    world.endpoint.answer("/token", Answer::json(200, TOKENS));
    world.endpoint.answer("/token", Answer::json(400, r#"{"error":"invalid_scope"}"#));
    assert!(refresh(&world, &provider).await.is_ok());
    let request = world.endpoint.received().await;
    assert_eq!(request.form("grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(request.form("refresh_token").as_deref(), Some("rt-c4n4ry"));
    assert_eq!(request.form("scope"), None);
    let (granted, scopes) = (ScopeSet::parse("a b c", ' ').unwrap(), ScopeSet::parse("b a", ' ').unwrap());
    let refused =
        world.servers.refresh(&provider, &RefreshToken::new("rt".to_owned()), &granted, Some(&scopes), 0).await;
    assert_eq!(refused.map(drop).unwrap_err().class, ReplyClass::Transient);
    assert_eq!(world.endpoint.received().await.form("scope").as_deref(), Some("a,b"));
}

#[tokio::test]
async fn a_refresh_repeats_the_scopes_where_the_server_forgets_them() {
    let mut world = World::start().await;
    let mut provider = world.pinned();
    provider.definition.refresh_repeats_scopes = true;
    let granted = ScopeSet::parse("Mail.Read openid", ' ').unwrap();
    let refresh = async |narrower: Option<&ScopeSet>| {
        let token = RefreshToken::new("rt".to_owned());
        world.servers.refresh(&provider, &token, &granted, narrower, 0).await.map(drop).unwrap_err().class
    };
    for _ in 0..2 {
        world.endpoint.answer("/token", Answer::json(400, r#"{"error":"invalid_scope"}"#));
    }
    assert_eq!(refresh(None).await, ReplyClass::Reauthorize);
    assert_eq!(refresh(Some(&ScopeSet::parse("Mail.Read", ' ').unwrap())).await, ReplyClass::Transient);
    let first = world.endpoint.received().await;
    assert_eq!(first.form("scope").as_deref(), Some("Mail.Read offline_access openid"));
    assert_eq!(world.endpoint.received().await.form("scope").as_deref(), Some("Mail.Read"));
}

#[tokio::test]
async fn the_client_proves_itself_as_the_definition_says() {
    let mut world = World::start().await;
    let odd = Some(ClientSecret::new("p:w+d é".to_owned()));
    // base64 of the form-encoded pair `c%3Al%2F+%C3%A9:p%3Aw%2Bd+%C3%A9` (RFC 6749 §2.3.1)
    let basic = Some("Basic YyUzQWwlMkYrJUMzJUE5OnAlM0F3JTJCZCslQzMlQTk=");
    for (authentication, secret, header, in_body) in [
        (ClientAuthentication::Basic, odd.clone(), basic, (None, None)),
        (ClientAuthentication::Basic, Some(ClientSecret::new(String::new())), None, (Some("c:l/ é"), None)),
        (ClientAuthentication::Basic, None, None, (Some("c:l/ é"), None)),
        (ClientAuthentication::Post, odd.clone(), None, (Some("c:l/ é"), Some("p:w+d é"))),
        (ClientAuthentication::Post, Some(ClientSecret::new(String::new())), None, (Some("c:l/ é"), None)),
        (ClientAuthentication::None, odd.clone(), None, (Some("c:l/ é"), None)),
    ] {
        let mut provider = world.pinned();
        provider.definition.client_authentication = authentication;
        provider.client_id = "c:l/ é".to_owned();
        provider.client_secret = secret;
        world.endpoint.answer("/token", Answer::json(200, TOKENS));
        world.endpoint.answer("/revoke", Answer::json(200, "{}"));
        assert!(refresh(&world, &provider).await.is_ok());
        let token = RefreshToken::new("rt".to_owned());
        world.servers.revoke(&provider, None, Some(&token)).await.unwrap();
        for _ in ["/token", "/revoke"] {
            let request = world.endpoint.received().await;
            assert_eq!(request.header("authorization"), header, "{authentication:?} {}", request.path);
            let body = (request.form("client_id"), request.form("client_secret"));
            assert_eq!((body.0.as_deref(), body.1.as_deref()), in_body, "{authentication:?} {}", request.path);
        }
    }
}

#[tokio::test]
async fn every_way_to_fail_is_one_request_and_one_class() {
    let mut world = World::start().await;
    let provider = world.pinned();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let answered = |status| Evidence::Answered { status };
    let grant = r#"{"error":"invalid_grant","error_description":"rt-c4n4ry"}"#;
    for (answer, class, evidence, retry_after) in [
        (Answer::json(400, grant), ReplyClass::Terminal, answered(400), None),
        (Answer::json(403, grant), ReplyClass::Terminal, answered(403), None),
        (Answer::html(400), ReplyClass::Unknown, answered(400), None),
        (Answer::html(403), ReplyClass::Unknown, answered(403), None),
        (Answer::json(401, r#"{"error":"invalid_client"}"#), ReplyClass::Configuration, answered(401), None),
        (Answer::json(429, "{}").header("retry-after", "7"), ReplyClass::RateLimited, answered(429), seconds(7)),
        (Answer::html(429), ReplyClass::RateLimited, answered(429), None),
        (Answer::html(503).header("retry-after", "1000000000"), ReplyClass::RateLimited, answered(503), seconds(3600)),
        (Answer::html(503), ReplyClass::Ambiguous, answered(503), None),
        (Answer::json(502, grant), ReplyClass::Ambiguous, answered(502), None),
        (Answer::html(200), ReplyClass::Ambiguous, answered(200), None),
        (Answer::json(200, "{}"), ReplyClass::Ambiguous, answered(200), None),
        (Answer::json(200, TOKENS).truncated(20), ReplyClass::Ambiguous, Evidence::AnswerLost, None),
        (Answer::json(200, TOKENS).silent(), ReplyClass::Ambiguous, Evidence::AnswerLost, None),
        (Answer::json(200, &" ".repeat(40_000)), ReplyClass::Ambiguous, Evidence::AnswerLost, None),
        (Answer::html(302).header("location", "/elsewhere"), ReplyClass::Unknown, answered(302), None),
        (Answer::html(307).header("location", "/elsewhere"), ReplyClass::Unknown, answered(307), None),
    ] {
        world.endpoint.answer("/token", answer);
        let failure = failed_refresh(&world, &provider).await;
        assert_eq!((failure.class, failure.evidence, failure.retry_after), (class, evidence, retry_after));
        assert!(!format!("{failure} {failure:?}").contains("c4n4ry"), "{failure:?}");
        assert_eq!(world.endpoint.received().await.path, "/token");
        assert_eq!(world.endpoint.unread(), 0, "{failure:?}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_ambiguous() {
    let world = World::with_timeout(Duration::from_secs(3)).await;
    let gate = Gate::closed();
    world.endpoint.answer("/token", Answer::json(200, TOKENS).behind(&gate));
    let failure = failed_refresh(&world, &world.pinned()).await;
    assert_eq!((failure.class, failure.evidence), (ReplyClass::Ambiguous, Evidence::AnswerLost));
    gate.open();
}

#[tokio::test]
async fn what_was_never_sent_spends_nothing() {
    let world = World::start().await;
    let mut provider = world.pinned();
    // Port 1 of the loopback address: nobody listens there.
    provider.definition.endpoints.token = Some("http://127.0.0.1:1/token".parse().unwrap());
    let failure = failed_refresh(&world, &provider).await;
    assert_eq!((failure.class, failure.evidence), (ReplyClass::Transient, Evidence::NotSent));
    provider.definition.endpoints.token = Some("http://as.example/token".parse().unwrap());
    let failure = failed_refresh(&world, &provider).await;
    assert_eq!((failure.class, failure.evidence), (ReplyClass::Configuration, Evidence::NotSent));
    provider.definition.endpoints.token = None;
    let failure = failed_refresh(&world, &provider).await;
    assert_eq!((failure.class, failure.evidence), (ReplyClass::Configuration, Evidence::NotSent));
}

#[tokio::test]
async fn github_answers_success_for_both() {
    let mut world = World::start().await;
    let provider = provider(shipped("github").unwrap());
    world.endpoint.answer("/token", Answer::json(200, r#"{"error":"bad_verification_code","error_uri":"x"}"#));
    world
        .endpoint
        .answer("/token", Answer::json(200, r#"{"access_token":"gho_1","scope":"repo,gist","token_type":"bearer"}"#));
    let failure = exchange(&world, &provider).await.map(drop).unwrap_err();
    assert_eq!(failure.class, ReplyClass::Terminal);
    assert_eq!(failure.to_string(), "no tokens: answered with 200, bad_verification_code");
    let tokens = exchange(&world, &provider).await.map_err(|failure| failure.class).ok().unwrap();
    assert_eq!(tokens.scopes, Some(ScopeSet::parse("gist repo", ' ').unwrap()));
    assert!(tokens.refresh.is_none() && tokens.expires_in.is_none());
    let request = world.endpoint.received().await;
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(request.form("client_secret").as_deref(), Some("s3cret"));
}
