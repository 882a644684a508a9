use std::time::Duration;

use claviger::{
    domain::{AccessToken, Provider, RefreshToken, RemoteRevocation, Revocation},
    oauth::{RevocationFailure, definitions::shipped},
};

use crate::{World, provider, token_endpoint::Answer};

const UNSUPPORTED: &str = r#"{"error":"unsupported_token_type"}"#;

async fn revoke(world: &World, provider: &Provider) -> Result<RemoteRevocation, RevocationFailure> {
    let (access, refresh) = (AccessToken::new("at\"c4n4ry".to_owned()), RefreshToken::new("rt-c4n4ry".to_owned()));
    world.servers.revoke(provider, Some(&access), Some(&refresh)).await
}

#[tokio::test]
async fn the_refresh_token_goes_first() {
    let mut world = World::start().await;
    world.endpoint.answer("/revoke", Answer::json(200, ""));
    world.endpoint.answer("/revoke", Answer::json(200, ""));
    assert_eq!(revoke(&world, &world.pinned()).await, Ok(RemoteRevocation::Confirmed));
    for (token, hint) in [("rt-c4n4ry", "refresh_token"), ("at\"c4n4ry", "access_token")] {
        let request = world.endpoint.received().await;
        assert_eq!(request.method, "POST");
        assert_eq!(request.form("token").as_deref(), Some(token));
        assert_eq!(request.form("token_type_hint").as_deref(), Some(hint));
    }
}

#[tokio::test]
async fn each_pair_of_answers_has_its_outcome() {
    use RemoteRevocation::{Confirmed, Failed, Unsupported};
    let gone = (200, "");
    for (refresh, access, wanted) in [
        (gone, gone, Confirmed),
        (gone, (400, UNSUPPORTED), Confirmed),
        ((400, UNSUPPORTED), gone, Unsupported),
        ((400, UNSUPPORTED), (400, UNSUPPORTED), Unsupported),
        ((400, r#"{"error":"invalid_token"}"#), gone, Confirmed),
        ((401, r#"{"error":"invalid_client"}"#), gone, Failed),
        (gone, (400, r#"{"error":"invalid_request"}"#), Failed),
    ] {
        let world = World::start().await;
        for (status, body) in [refresh, access] {
            world.endpoint.answer("/revoke", Answer::json(status, body));
        }
        assert_eq!(revoke(&world, &world.pinned()).await, Ok(wanted), "{refresh:?} {access:?}");
    }
}

#[tokio::test]
async fn without_a_verdict_the_tokens_are_taken_to_be_valid_still() {
    let world = World::start().await;
    for (answer, status, retry_after) in [
        (Answer::html(503).header("retry-after", "7"), 503, Some(7)),
        (Answer::json(429, "{}").header("retry-after", "0"), 429, Some(1)),
        (Answer::json(500, "{}"), 500, None),
        (Answer::html(403), 403, None),
        (Answer::json(403, r#"{"message":"blocked"}"#), 403, None),
        (Answer::json(400, r#"{"error":"temporarily_unavailable"}"#), 400, None),
        (Answer::html(404), 404, None),
        (Answer::html(302), 302, None),
    ] {
        world.endpoint.answer("/revoke", answer);
        let failure = revoke(&world, &world.pinned()).await.unwrap_err();
        assert_eq!(failure.retry_after(), retry_after.map(Duration::from_secs), "{status}");
        assert!(
            matches!(failure, RevocationFailure::NoVerdict { status: found, .. } if found == status),
            "{failure:?}"
        );
    }
    world.endpoint.answer("/revoke", Answer::json(200, "").silent());
    let failure = revoke(&world, &world.pinned()).await.unwrap_err();
    assert!(matches!(failure, RevocationFailure::Unreachable(_)), "{failure:?}");
    assert!(!format!("{failure} {failure:?}").contains("c4n4ry"));
}

#[tokio::test]
async fn the_endpoint_is_discovered_and_may_be_missing() {
    let world = World::start().await;
    assert_eq!(revoke(&world, &world.discovered("")).await, Err(RevocationFailure::Undiscovered));
    let world = World::start().await;
    let document = format!(r#"{{"issuer":"{}"}}"#, world.endpoint.issuer());
    world.endpoint.answer("/.well-known/oauth-authorization-server", Answer::json(200, &document));
    assert_eq!(revoke(&world, &world.discovered("")).await, Ok(RemoteRevocation::Unsupported));
    let mut silent = world.pinned();
    silent.definition.revocation = Revocation::None;
    assert_eq!(revoke(&world, &silent).await, Ok(RemoteRevocation::Unsupported));
    assert_eq!(world.servers.revoke(&world.pinned(), None, None).await, Ok(RemoteRevocation::Confirmed));
}

fn github(world: &World) -> Provider {
    let mut provider = provider(shipped("github").unwrap());
    provider.definition.endpoints.revocation = Some(world.endpoint.url("/applications/{client_id}/grant"));
    provider
}

#[tokio::test]
async fn github_deletes_the_grant() {
    let mut world = World::start().await;
    let mut provider = github(&world);
    provider.client_id = "Iv1/a b".to_owned();
    let path = "/applications/Iv1%2Fa%20b/grant";
    world.endpoint.answer(path, Answer::json(204, ""));
    assert_eq!(revoke(&world, &provider).await, Ok(RemoteRevocation::Confirmed));
    let request = world.endpoint.received().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("DELETE", path));
    assert_eq!(request.body, r#"{"access_token":"at\"c4n4ry"}"#);
    assert!(request.header("authorization").unwrap().starts_with("Basic "));
    assert_eq!(world.endpoint.unread(), 0);
}

#[tokio::test]
async fn github_answers_have_their_outcomes() {
    let world = World::start().await;
    let provider = github(&world);
    let path = "/applications/client/grant";
    for (status, body, wanted) in [
        (404, r#"{"message":"Not Found"}"#, RemoteRevocation::Confirmed),
        (401, r#"{"message":"Bad credentials"}"#, RemoteRevocation::Failed),
        (422, r#"{"message":"Validation Failed"}"#, RemoteRevocation::Failed),
    ] {
        world.endpoint.answer(path, Answer::json(status, body));
        assert_eq!(revoke(&world, &provider).await, Ok(wanted), "{status}");
    }
    for status in [404, 403, 500, 502] {
        world.endpoint.answer(path, Answer::html(status));
        assert!(revoke(&world, &provider).await.is_err(), "{status}");
    }
    world
        .endpoint
        .answer(path, Answer::json(403, r#"{"message":"API rate limit exceeded"}"#).header("retry-after", "60"));
    let limited = revoke(&world, &provider).await.unwrap_err();
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(60)));
    let public = Provider { client_secret: None, ..provider };
    assert_eq!(revoke(&world, &public).await, Ok(RemoteRevocation::Failed));
}

fn slack(world: &World) -> Provider {
    let mut provider = provider(shipped("slack").unwrap());
    provider.definition.endpoints.revocation = Some(world.endpoint.url("/api/auth.revoke"));
    provider
}

#[tokio::test]
async fn slack_takes_the_access_token_and_nothing_else() {
    let mut world = World::start().await;
    world.endpoint.answer("/api/auth.revoke", Answer::json(200, r#"{"ok":true,"revoked":true}"#));
    let access = AccessToken::new("xoxp-1".to_owned());
    let revoked = world.servers.revoke(&slack(&world), Some(&access), None).await;
    assert_eq!(revoked, Ok(RemoteRevocation::Confirmed));
    let request = world.endpoint.received().await;
    assert_eq!((request.method.as_str(), request.body.as_str()), ("POST", ""));
    assert_eq!(request.header("authorization"), Some("Bearer xoxp-1"));
}

#[tokio::test]
async fn slack_answers_have_their_outcomes() {
    use RemoteRevocation::{Confirmed, Failed, Unsupported};
    let world = World::start().await;
    let provider = slack(&world);
    let (access, refresh) = (AccessToken::new("xoxe.xoxp-1".to_owned()), RefreshToken::new("xoxe-1".to_owned()));
    for (status, body, alone, with_refresh_token) in [
        (200, r#"{"ok":true,"revoked":true}"#, Some(Confirmed), Some(Unsupported)),
        (200, r#"{"ok":false,"error":"token_revoked"}"#, Some(Confirmed), Some(Unsupported)),
        (200, r#"{"ok":false,"error":"token_expired"}"#, Some(Failed), Some(Failed)),
        (200, r#"{"ok":false,"error":"two_factor_setup_required"}"#, Some(Failed), Some(Failed)),
        (200, r#"{"ok":false,"error":"ratelimited"}"#, None, None),
        (200, r#"{"ok":false,"error":"internal_error"}"#, None, None),
        (200, r#"{"ok":false,"error":"something_new"}"#, None, None),
        (200, "<html>", None, None),
        (403, "<html>token_revoked</html>", None, None),
        (503, r#"{"ok":false,"error":"token_revoked"}"#, None, None),
    ] {
        for (refresh, wanted) in [(None, alone), (Some(&refresh), with_refresh_token)] {
            world.endpoint.answer("/api/auth.revoke", Answer::json(status, body));
            assert_eq!(world.servers.revoke(&provider, Some(&access), refresh).await.ok(), wanted, "{status} {body}");
        }
    }
}
