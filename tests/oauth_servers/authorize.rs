use std::collections::BTreeMap;

use claviger::{
    domain::{CodeVerifier, FlowSecret, Hints, Nonce, Provider, ScopeSet},
    oauth::{AuthorizationRequest, AuthorizationUrl, AuthorizeError, definitions::shipped},
};

use crate::{World, provider};

// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn authorize(
    provider: &Provider,
    verifier: &str,
    scopes: &str,
    hints: Option<&Hints>,
) -> Result<AuthorizationUrl, AuthorizeError> {
    let world = World::start().await;
    let request = AuthorizationRequest {
        redirect_uri: &"https://broker.example/oauth/callback".parse().unwrap(),
        state: &FlowSecret::new("st4te".to_owned()),
        verifier: &CodeVerifier::new(verifier.to_owned()),
        nonce: &Nonce::new("n0nce".to_owned()),
        scopes: &ScopeSet::parse(scopes, ' ').unwrap(),
        login_hint: hints.map(|_| "alice"),
        hints,
    };
    world.servers.authorization_url(provider, &request).await
}

/// The query, each name once.
fn query(authorization: &AuthorizationUrl) -> BTreeMap<String, String> {
    let pairs: Vec<_> = authorization.url.query_pairs().into_owned().collect();
    let query: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(query.len(), pairs.len(), "{}", authorization.url);
    query
}

fn github() -> Provider {
    provider(shipped("github").unwrap())
}

#[tokio::test]
async fn the_url_holds_what_rfc_6749_and_7636_ask_for_and_nothing_else() {
    let authorization = authorize(&github(), VERIFIER, "repo gist", None).await.ok().unwrap();
    assert!(authorization.url.as_str().starts_with("https://github.com/login/oauth/authorize?"));
    let wanted = [
        ("client_id", "client"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("redirect_uri", "https://broker.example/oauth/callback"),
        ("response_type", "code"),
        ("scope", "gist repo"),
        ("state", "st4te"),
    ];
    assert_eq!(query(&authorization), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(authorization.server.token.as_str(), "https://github.com/login/oauth/access_token");
    assert_eq!(authorization.server.issuer, None);
}

#[tokio::test]
async fn scopes_are_united_and_joined_as_the_definition_says() {
    let mut provider = github();
    provider.definition.scope_separator = ',';
    provider.definition.always_scopes = ScopeSet::parse("openid user", ' ').unwrap();
    let authorization = authorize(&provider, VERIFIER, "user repo", None).await.ok().unwrap();
    assert_eq!(query(&authorization)["scope"], "openid,repo,user");
    assert_eq!(query(&authorization)["nonce"], "n0nce");
    provider.definition.always_scopes = ScopeSet::default();
    let authorization = authorize(&provider, VERIFIER, "", None).await.ok().unwrap();
    assert!(!query(&authorization).contains_key("scope"));
}

#[tokio::test]
async fn what_the_provider_demanded_wins_over_the_definition() {
    let mut provider = github();
    provider.definition.authorization_parameters =
        [("prompt", "consent"), ("max_age", "0")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let hints =
        Hints { claims: Some(r#"{"id_token":{}}"#.to_owned()), acr_values: Some("c1".to_owned()), max_age: Some(300) };
    let authorization = authorize(&provider, VERIFIER, "repo", Some(&hints)).await.ok().unwrap();
    let query = query(&authorization);
    for (name, wanted) in [
        ("prompt", "consent"),
        ("max_age", "300"),
        ("acr_values", "c1"),
        ("claims", r#"{"id_token":{}}"#),
        ("login_hint", "alice"),
    ] {
        assert_eq!(query[name], wanted, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_verifier_is_refused() {
    let (short, long, odd) = ("a".repeat(42), "a".repeat(129), "a".repeat(42) + "=");
    for verifier in [&short, &long, &odd] {
        let refused = authorize(&github(), verifier, "repo", None).await.map(drop);
        assert_eq!(refused, Err(AuthorizeError::Verifier), "{verifier}");
    }
    assert!(authorize(&github(), &"~".repeat(128), "repo", None).await.is_ok());
}

#[tokio::test]
async fn a_definition_that_overrides_the_protocol_sends_nobody_anywhere() {
    let mut provider = github();
    provider.definition.authorization_parameters.insert("redirect_uri".to_owned(), "https://evil.example".to_owned());
    let refused = authorize(&provider, VERIFIER, "repo", None).await.map(drop);
    assert!(matches!(refused, Err(AuthorizeError::Definition(_))), "{refused:?}");
}
