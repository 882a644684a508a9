use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use claviger::{
    domain::{AccessToken, AccountSource, IdToken, Nonce, Provider, Timestamp},
    oauth::{AccountError, Tokens, definitions::shipped},
};
use serde_json::{Value, json};

use crate::{NOW, World, provider, token_endpoint::Answer};

fn tokens(id_token: Option<String>) -> Tokens {
    Tokens {
        asked_at: Timestamp::from_secs(NOW),
        access: AccessToken::new("at-c4n4ry".to_owned()),
        refresh: None,
        id_token: id_token.map(IdToken::new),
        expires_in: None,
        scopes: None,
        refresh_expires_in: None,
    }
}

fn id_token(claims: &Value) -> String {
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(&claims.to_string()), part("signature"))
}

/// The answer for an ID token with `changes` to sound claims.
async fn account(changes: &[(&str, Value)]) -> Result<Option<String>, AccountError> {
    let world = World::start().await;
    let provider = world.discovered("");
    let mut claims = json!({
        "iss": world.endpoint.issuer(), "aud": "client", "sub": "alice", "nonce": "n0nce", "exp": NOW + 60,
    });
    for (name, value) in changes {
        claims[*name] = value.clone();
    }
    let nonce = Nonce::new("n0nce".to_owned());
    world.servers.account(&provider, &tokens(Some(id_token(&claims))), Some(&nonce)).await
}

#[tokio::test]
async fn the_account_is_the_claim_of_a_sound_id_token() {
    assert_eq!(account(&[]).await, Ok(Some("alice".to_owned())));
    assert_eq!(
        account(&[("aud", json!(["x", "client"])), ("azp", json!("client"))]).await,
        Ok(Some("alice".to_owned()))
    );
    assert_eq!(account(&[("exp", json!(NOW - 59))]).await, Ok(Some("alice".to_owned())));
}

#[tokio::test]
async fn a_late_settlement_judges_expiry_by_when_the_token_came() {
    let world = World::start().await;
    let claims = json!({ "iss": world.endpoint.issuer(), "aud": "client", "sub": "alice", "exp": NOW + 60 });
    world.clock.advance(std::time::Duration::from_secs(86_400));
    let account = world.servers.account(&world.discovered(""), &tokens(Some(id_token(&claims))), None).await;
    assert_eq!(account, Ok(Some("alice".to_owned())));
}

#[tokio::test]
async fn an_id_token_for_somebody_or_something_else_is_refused() {
    for (claim, value) in [
        ("iss", json!("https://evil.example")),
        ("iss", json!(null)),
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("aud", json!(null)),
        ("azp", json!("other")),
        ("nonce", json!("other")),
        ("nonce", json!(null)),
        ("exp", json!(NOW - 60)),
        ("exp", json!("never")),
    ] {
        assert_eq!(account(&[(claim, value.clone())]).await, Err(AccountError::IdTokenRefused { claim }), "{value}");
    }
    for sub in [json!(null), json!(""), json!("a\u{0}"), json!("x".repeat(256)), json!(1.5), json!({})] {
        assert_eq!(account(&[("sub", sub.clone())]).await, Err(AccountError::IdMissing), "{sub}");
    }
}

#[tokio::test]
async fn what_is_no_id_token_is_unreadable() {
    let world = World::start().await;
    let provider = world.discovered("");
    for text in ["", "a", "a.b.c", "a.e30", "a.e30.c.d", "a.e30.c.d.e", "a.W10.c", "a.eyJhIjoxLCJhIjoxfQ.c"] {
        let refused = world.servers.account(&provider, &tokens(Some(text.to_owned())), None).await;
        assert_eq!(refused, Err(AccountError::IdTokenUnreadable), "{text}");
    }
    let mut id_token_only = provider.clone();
    id_token_only.definition.account = Some(AccountSource { id_token: vec!["sub".to_owned()], userinfo: Vec::new() });
    assert_eq!(world.servers.account(&id_token_only, &tokens(None), None).await, Err(AccountError::IdTokenMissing));
    let without_issuer = world.servers.account(&world.pinned(), &tokens(Some("a.e30.c".to_owned())), None).await;
    assert_eq!(without_issuer, Err(AccountError::IssuerUnknown));
    let silent = Provider {
        definition: claviger::domain::Definition { account: None, ..provider.definition },
        ..world.pinned()
    };
    assert_eq!(world.servers.account(&silent, &tokens(None), None).await, Ok(None));
}

/// Microsoft's definition for this directory, discovered from this server.
fn microsoft(world: &World, directory: &str) -> Provider {
    let mut provider = provider(shipped("microsoft").unwrap());
    provider.definition.issuer = Some(format!("{}/{{directory}}/v2.0", world.endpoint.issuer()).parse().unwrap());
    provider.definition = provider.definition.in_directory(&directory.parse().unwrap());
    provider
}

#[tokio::test]
async fn an_entra_account_is_the_user_in_his_own_directory() {
    let (home, foreign) = ("72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad");
    let world = World::start().await;
    let base = world.endpoint.issuer();
    let issuer = |directory: &str| format!("{base}/{directory}/v2.0");
    let known = |directory: &str| Ok(Some(format!("{directory}/0af3")));
    let refused = |claim| Err(AccountError::IdTokenRefused { claim });
    for (configured, tid, iss, wanted) in [
        ("organizations", json!(home), issuer(home), known(home)),
        ("common", json!(foreign), issuer(foreign), known(foreign)),
        ("consumers", json!(foreign), issuer(foreign), known(foreign)),
        (home, json!(home), issuer(home), known(home)),
        (home, json!(foreign), issuer(foreign), refused("iss")),
        ("organizations", json!(home), issuer(foreign), refused("iss")),
        ("organizations", json!(home), issuer("{tenantid}"), refused("iss")),
        ("organizations", json!("{tenantid}"), issuer("{tenantid}"), refused("tid")),
        ("organizations", json!("organizations"), issuer("organizations"), refused("tid")),
        ("organizations", json!(null), issuer(home), refused("tid")),
    ] {
        let claims = json!({
            "iss": iss, "tid": tid, "oid": "0af3", "sub": "pairwise", "aud": "client", "exp": NOW + 60,
        });
        let tokens = tokens(Some(id_token(&claims)));
        let account = world.servers.account(&microsoft(&world, configured), &tokens, None).await;
        assert_eq!(account, wanted, "{configured} {tid} {iss}");
    }
}

#[tokio::test]
async fn no_two_lists_of_parts_make_one_account() {
    let world = World::start().await;
    let mut provider = world.pinned();
    provider.definition.endpoints.userinfo = Some(world.endpoint.url("/auth.test"));
    let parts = vec!["/team_id".to_owned(), "/user_id".to_owned()];
    provider.definition.account = Some(AccountSource { id_token: Vec::new(), userinfo: parts });
    for (body, wanted) in [
        (r#"{"ok":true,"team_id":"T1","user_id":"U1"}"#, Ok(Some("T1/U1".to_owned()))),
        (r#"{"ok":true,"team_id":"T1/U1","user_id":"U2"}"#, Err(AccountError::IdMissing)),
        (r#"{"ok":true,"team_id":"T1"}"#, Err(AccountError::IdMissing)),
        (r#"{"ok":false,"error":"invalid_auth"}"#, Err(AccountError::IdMissing)),
    ] {
        world.endpoint.answer("/auth.test", Answer::json(200, body));
        assert_eq!(world.servers.account(&provider, &tokens(None), None).await, wanted, "{body}");
    }
}

#[tokio::test]
async fn without_an_id_token_the_discovered_userinfo_endpoint_is_asked() {
    let mut world = World::start().await;
    let document = json!({ "issuer": world.endpoint.issuer(), "userinfo_endpoint": world.endpoint.url("/userinfo") });
    world.endpoint.answer("/.well-known/oauth-authorization-server", Answer::json(200, &document.to_string()));
    world.endpoint.answer("/userinfo", Answer::json(200, r#"{"sub":"alice"}"#));
    let provider = world.discovered("");
    assert_eq!(world.servers.account(&provider, &tokens(None), None).await, Ok(Some("alice".to_owned())));
    world.endpoint.received().await;
    assert_eq!(world.endpoint.received().await.header("authorization"), Some("Bearer at-c4n4ry"));
    // One that is there, and refused, is not asked about elsewhere.
    let refused = world.servers.account(&provider, &tokens(Some("a.e30.c".to_owned())), None).await;
    assert_eq!(refused, Err(AccountError::IdTokenRefused { claim: "iss" }));
    assert_eq!(world.endpoint.unread(), 0);
    let silent = World::start().await;
    let unknown = silent.servers.account(&silent.discovered(""), &tokens(None), None).await;
    assert_eq!(unknown, Err(AccountError::UserinfoUnknown));
}

fn github(world: &World) -> Provider {
    let mut provider = provider(shipped("github").unwrap());
    provider.definition.endpoints.userinfo = Some(world.endpoint.url("/user"));
    provider
}

#[tokio::test]
async fn github_is_asked_with_the_access_token() {
    let mut world = World::start().await;
    world.endpoint.answer("/user", Answer::json(200, r#"{"login":"octocat","id":583231}"#));
    assert_eq!(world.servers.account(&github(&world), &tokens(None), None).await, Ok(Some("583231".to_owned())));
    let request = world.endpoint.received().await;
    assert_eq!(request.method, "GET");
    assert_eq!(request.header("authorization"), Some("Bearer at-c4n4ry"));
    assert!(request.header("user-agent").unwrap().starts_with("claviger/"));
}

#[tokio::test]
async fn a_probe_without_an_account_says_why() {
    let world = World::start().await;
    let provider = github(&world);
    for (answer, wanted) in [
        (Answer::json(401, "{}"), AccountError::ProbeRefused { status: 401 }),
        (Answer::html(302).header("location", "/elsewhere"), AccountError::ProbeRefused { status: 302 }),
        (Answer::html(200), AccountError::IdMissing),
        (Answer::json(200, "{}"), AccountError::IdMissing),
    ] {
        world.endpoint.answer("/user", answer);
        let error = world.servers.account(&provider, &tokens(None), None).await.unwrap_err();
        assert_eq!(error, wanted);
    }
    world.endpoint.answer("/user", Answer::json(200, "{}").silent());
    let error = world.servers.account(&provider, &tokens(None), None).await.unwrap_err();
    assert!(matches!(error, AccountError::Unreachable(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("c4n4ry"));
}
