//! Platform tokens: whose calls are served, and what is said of others' tokens.

use claviger::{
    client::ClientError,
    dev::{PlatformClaims, Signer},
    domain::PresentedToken,
    proto::v1::{self, ErrorReason},
};
use serde_json::json;

use crate::heard::Client;
use crate::world::{MINUTE, PLUGIN, World, ask, claims, reason};

const UNVERIFIED: ErrorReason = ErrorReason::TokenInvalid;

fn with(edit: impl FnOnce(&mut PlatformClaims)) -> PlatformClaims {
    let mut claims = claims();
    edit(&mut claims);
    claims
}

/// Tokens that are refused, and why.
fn refused(world: &World) -> Vec<(&'static str, PresentedToken, ErrorReason)> {
    let token = |edit: &dyn Fn(&mut PlatformClaims)| world.token("alice", &with(|claims| edit(claims)));
    let claim = |name: &'static str, value: serde_json::Value| {
        token(&|claims| drop(claims.claim_overrides.insert(name.to_owned(), value.clone())))
    };
    let header = |name: &'static str, value: serde_json::Value| {
        token(&|claims| drop(claims.header_overrides.insert(name.to_owned(), value.clone())))
    };
    let now = world.now().as_secs();
    let good = world.token("alice", &claims());
    let cut = good.expose().rsplit_once('.').unwrap().0.to_owned();
    vec![
        ("expired", claim("exp", json!(now - 61)), ErrorReason::TokenExpired),
        ("not begun", claim("nbf", json!(now + 120)), ErrorReason::TokenNotYetValid),
        ("from the future", claim("iat", json!(now + 120)), ErrorReason::TokenNotYetValid),
        ("for another audience", claim("aud", json!("another")), ErrorReason::AudienceMismatch),
        ("of an unknown issuer", claim("iss", json!("https://evil.example")), ErrorReason::IssuerUnknown),
        ("of the provider", claim("iss", json!(world.provider.issuer())), ErrorReason::IssuerUnknown),
        ("of nobody", claim("sub", json!(null)), ErrorReason::SubjectMissing),
        ("forged", token(&|claims| claims.signer = Signer::Forger), UNVERIFIED),
        ("an ID token by its type", header("typ", json!("JWT")), UNVERIFIED),
        ("an ID token by its nonce", claim("nonce", json!("n")), UNVERIFIED),
        ("unsigned", PresentedToken::new(format!("{cut}.")), UNVERIFIED),
        ("of no form", PresentedToken::new("not-a-token".to_owned()), UNVERIFIED),
        ("of a lesser algorithm", header("alg", json!("none")), UNVERIFIED),
        ("critically extended", header("crit", json!(["b64"])), UNVERIFIED),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_told_apart_only_after_its_signature() {
    let world = World::start().await;
    let alice = world.client("alice");
    for (what, token, expected) in refused(&world) {
        let own = world.client_with(&token).validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await;
        assert_eq!(own.as_ref().err().map(|error| error.code), Some(tonic::Code::Unauthenticated), "{what}");
        assert_eq!(reason(own), expected, "{what}, as the caller's own");
        let asked = v1::ValidatePlatformTokenRequest { token: token.expose().to_owned() };
        let answer = alice.validate_platform_token(asked).await.unwrap();
        let nothing = v1::ValidatePlatformTokenResponse { reason: expected.into(), ..Default::default() };
        assert!(answer == nothing, "{what}, as one that was given");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_token_is_refused() {
    let world = World::start().await;
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", world.grpc())).unwrap();
    let mut bare = v1::token_broker_service_client::TokenBrokerServiceClient::new(endpoint.connect_lazy());
    let refused = bare.get_plugin_token(ask(PLUGIN)).await.err().expect("a refusal");
    assert_eq!(ClientError::from(refused).reason, Some(ErrorReason::TokenMissing));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_as_long_as_where_it_stands_allows() {
    let world = World::start().await;
    let padded = |bytes: usize| {
        world.token(
            "alice",
            &with(|claims| drop(claims.claim_overrides.insert("pad".to_owned(), json!("x".repeat(bytes))))),
        )
    };
    // Encoding adds a third.
    let (short, long, longest) = (padded(5_000), padded(9_000), padded(13_000));
    assert!(short.expose().len() < 8 * 1024 && long.expose().len() > 8 * 1024 && longest.expose().len() > 16 * 1024);
    let validate = async |client: &Client, token: &str| {
        client.validate_platform_token(v1::ValidatePlatformTokenRequest { token: token.to_owned() }).await
    };
    assert!(validate(&world.client_with(&short), "").await.unwrap().valid);
    assert_eq!(reason(validate(&world.client_with(&long), "").await), UNVERIFIED);
    let alice = world.client("alice");
    assert!(validate(&alice, long.expose()).await.unwrap().valid);
    assert_eq!(validate(&alice, longest.expose()).await.unwrap().reason(), UNVERIFIED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_token_says_whose_it_is() {
    let world = World::start().await;
    let token = world.token(
        "alice",
        &with(|claims| {
            claims.agent = Some("helper".to_owned());
            claims.scopes = "one two".split(' ').map(|scope| scope.parse().unwrap()).collect();
        }),
    );
    let client = world.client_with(&token);
    let own = client.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
    assert!(own.valid);
    assert_eq!(own.reason(), ErrorReason::Unspecified);
    assert_eq!((own.tenant.as_str(), own.external_id.as_str(), own.agent.as_str()), ("acme", "alice", "helper"));
    assert_eq!((own.audience, own.scopes), (vec!["claviger".to_owned()], vec!["one".to_owned(), "two".to_owned()]));
    assert_eq!(own.roles, [i32::from(v1::Role::User)]);
    assert_eq!(own.expires_at.unwrap().seconds, world.now().as_secs() + 30 * 24 * 3600);
    assert!(!own.subject.contains("alice"), "the subject is a pseudonym");

    let bobs = v1::ValidatePlatformTokenRequest { token: world.token("bob", &claims()).expose().to_owned() };
    let other = client.validate_platform_token(bobs).await.unwrap();
    assert!(other.valid);
    assert_eq!(other.external_id, "bob");
    assert_ne!(other.subject, own.subject);
    let again = v1::ValidatePlatformTokenRequest { token: world.token("alice", &claims()).expose().to_owned() };
    assert_eq!(client.validate_platform_token(again).await.unwrap().subject, own.subject, "one person, one subject");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_good_lapses() {
    let world = World::start().await;
    let alice = world.client_with(&world.token("alice", &PlatformClaims::to("claviger")));
    assert!(alice.list_connections(v1::ListConnectionsRequest::default()).await.is_ok());
    world.clock.advance(10 * MINUTE + MINUTE);
    let refused = alice.list_connections(v1::ListConnectionsRequest::default()).await;
    assert_eq!(reason(refused), ErrorReason::TokenExpired, "the cache forgets nothing of the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_connection_does_not_exist() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let connection = world.connect(&alice, "alice").await;
    let get = || v1::GetConnectionRequest { connection_id: connection.connection_id.clone() };
    assert_eq!(alice.get_connection(get()).await.unwrap().connection.unwrap(), connection);
    let foreign = bob.get_connection(get()).await.expect_err("a refusal");
    let mut flipped = get();
    flipped.connection_id = format!("con_{}", "0".repeat(flipped.connection_id.len() - 4));
    let unknown = bob.get_connection(flipped).await.expect_err("a refusal");
    assert_eq!(foreign.reason, Some(ErrorReason::ConnectionNotFound));
    assert_eq!((foreign.code, foreign.message), (unknown.code, unknown.message), "and cannot be told from none");
    assert_eq!(bob.list_connections(v1::ListConnectionsRequest::default()).await.unwrap().connections, []);
    let revoke = v1::RevokeRequest {
        target: Some(v1::revoke_request::Target::ConnectionId(connection.connection_id.clone())),
        ..Default::default()
    };
    assert_eq!(reason(bob.revoke(revoke).await), ErrorReason::ConnectionNotFound);
    assert_eq!(reason(bob.get_plugin_token(ask(PLUGIN)).await), ErrorReason::ConsentRequired);
    assert!(alice.get_plugin_token(ask(PLUGIN)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_listed_newest_first_and_by_provider() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    world.clock.advance(MINUTE);
    world.connect(&alice, "bob").await;
    let list = async |provider: &str| {
        let request = v1::ListConnectionsRequest { provider: provider.to_owned() };
        let connections = alice.list_connections(request).await.unwrap().connections;
        connections.into_iter().map(|connection| connection.account).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ["bob", "alice"]);
    assert_eq!(list("dev").await, ["bob", "alice"]);
    assert_eq!(list("other").await, Vec::<String>::new());
}
