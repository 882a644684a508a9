use std::{sync::Arc, time::Duration};

use claviger::{
    domain::{RefreshToken, ReplyClass, ScopeSet},
    oauth::{AuthorizeError, DiscoveryError, EndpointName, Evidence, RefusedMetadata},
};
use serde_json::{Value, json};

use crate::{
    World,
    token_endpoint::{Answer, Gate},
};

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// What a sound server under `path` publishes, with `changes` on top.
fn document(world: &World, path: &str, changes: &[(&str, Value)]) -> Answer {
    let issuer = format!("{}{path}", world.endpoint.issuer());
    let mut document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke"),
        "code_challenge_methods_supported": ["plain", "S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    for (name, value) in changes {
        document[*name] = value.clone();
    }
    Answer::json(200, &document.to_string())
}

async fn endpoints_with(changes: &[(&str, Value)]) -> Result<(), AuthorizeError> {
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", changes));
    world.servers.endpoints(&world.discovered("")).await.map(drop)
}

fn refusal(result: &Result<(), AuthorizeError>) -> Option<RefusedMetadata> {
    match result {
        Err(AuthorizeError::Discovery(DiscoveryError::Refused { refused, .. })) => Some(*refused),
        _ => None,
    }
}

#[tokio::test]
async fn a_sound_document_gives_all_endpoints() {
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", &[]));
    let provider = world.discovered("");
    let server = world.servers.endpoints(&provider).await.unwrap();
    assert_eq!(server.issuer, provider.definition.issuer);
    assert!(server.iss_parameter_supported);
    assert_eq!(server.authorization, world.endpoint.url("/authorize"));
    assert_eq!(server.token, world.endpoint.url("/token"));
    let metadata = world.servers.metadata(&server.issuer.unwrap()).await.unwrap();
    assert_eq!(metadata.revocation_endpoint, Some(world.endpoint.url("/revoke")));
    assert_eq!(metadata.userinfo_endpoint, None);
}

#[tokio::test]
async fn the_well_known_addresses_are_tried_in_order() {
    for (issuer, addresses) in [
        ("", vec![OAUTH.to_owned(), OPENID.to_owned()]),
        ("/", vec![OAUTH.to_owned(), OPENID.to_owned()]),
        ("/tenant1", vec![format!("{OAUTH}/tenant1"), format!("{OPENID}/tenant1"), format!("/tenant1{OPENID}")]),
    ] {
        let mut world = World::start().await;
        let last = addresses.last().unwrap();
        world.endpoint.answer(last, document(&world, issuer, &[]));
        world.servers.endpoints(&world.discovered(issuer)).await.unwrap();
        for address in addresses {
            let request = world.endpoint.received().await;
            assert_eq!((request.method.as_str(), request.path), ("GET", address));
        }
        assert_eq!(world.endpoint.unread(), 0);
    }
}

#[tokio::test]
async fn another_issuers_document_is_passed_over() {
    let evil = [("issuer", json!("https://honest.example"))];
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", &evil));
    world.endpoint.answer(OPENID, document(&world, "", &evil));
    let refused = world.servers.endpoints(&world.discovered("")).await.map(drop);
    assert_eq!(refusal(&refused), Some(RefusedMetadata::IssuerMismatch));
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", &evil));
    world.endpoint.answer(OPENID, document(&world, "", &[]));
    assert!(world.servers.endpoints(&world.discovered("")).await.is_ok());
}

#[tokio::test]
async fn issuers_are_compared_as_text() {
    let world = World::start().await;
    let slash = format!("{}/", world.endpoint.issuer());
    for issuer in [json!(slash), json!(slash.to_uppercase()), json!(null), json!([slash])] {
        let refused = refusal(&endpoints_with(&[("issuer", issuer.clone())]).await);
        assert_eq!(refused, Some(RefusedMetadata::IssuerMismatch), "{issuer}");
    }
}

#[tokio::test]
async fn endpoints_that_must_not_be_called_are_refused() {
    for (member, name) in [
        ("authorization_endpoint", EndpointName::Authorization),
        ("token_endpoint", EndpointName::Token),
        ("revocation_endpoint", EndpointName::Revocation),
        ("userinfo_endpoint", EndpointName::Userinfo),
    ] {
        for url in [
            json!("http://as.example/x"),
            json!("https://u:p@as.example/x"),
            json!("https://as.example/x#fragment"),
            json!("https://169.254.169.254/x"),
            json!("javascript:alert(1)"),
            json!("/relative"),
            json!(7),
        ] {
            let refused = refusal(&endpoints_with(&[(member, url.clone())]).await);
            assert_eq!(refused, Some(RefusedMetadata::Endpoint(name)), "{member} {url}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_on_an_unlisted_host_is_refused() {
    let foreign = [("token_endpoint", json!("https://token.example/t"))];
    let refused = refusal(&endpoints_with(&foreign).await);
    assert_eq!(refused, Some(RefusedMetadata::EndpointHost(EndpointName::Token)));
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", &foreign));
    let mut provider = world.discovered("");
    provider.definition.endpoint_hosts = vec!["Token.example".to_owned()];
    assert_eq!(world.servers.endpoints(&provider).await.unwrap().token.host_str(), Some("token.example"));
    provider.definition.endpoint_hosts.clear();
    provider.definition.endpoints.token = Some("https://pinned.example/t".parse().unwrap());
    assert_eq!(world.servers.endpoints(&provider).await.unwrap().token.host_str(), Some("pinned.example"));
}

#[tokio::test]
async fn another_port_of_the_host_is_another_place() {
    let token = "http://127.0.0.1:1/token";
    let refused = refusal(&endpoints_with(&[("token_endpoint", json!(token))]).await);
    assert_eq!(refused, Some(RefusedMetadata::EndpointHost(EndpointName::Token)));
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", &[("token_endpoint", json!(token))]));
    let mut provider = world.discovered("");
    provider.definition.endpoint_hosts = vec!["127.0.0.1".to_owned()];
    assert!(world.servers.endpoints(&provider).await.is_err(), "a host alone is its usual port");
    provider.definition.endpoint_hosts = vec!["127.0.0.1:1".to_owned()];
    assert_eq!(world.servers.endpoints(&provider).await.unwrap().token.as_str(), token);
}

#[tokio::test]
async fn what_many_directories_share_names_itself_by_a_template() {
    let shared = |world: &World, directory: &str| {
        let mut provider = world.discovered("/{directory}/v2.0");
        provider.definition = provider.definition.in_directory(&directory.parse().unwrap());
        provider
    };
    let address = "/organizations/v2.0/.well-known/openid-configuration";
    for (named, sound) in [("/{tenantid}/v2.0", true), ("/organizations/v2.0", false), ("/{directory}/v2.0", false)] {
        let world = World::start().await;
        let issuer = format!("{}{named}", world.endpoint.issuer());
        world.endpoint.answer(address, document(&world, "/organizations", &[("issuer", json!(issuer))]));
        let server = world.servers.endpoints(&shared(&world, "organizations")).await;
        assert_eq!(server.is_ok(), sound, "{named}");
        // No answer can name a template: there is nothing to hold it against.
        assert_eq!(server.ok().and_then(|server| server.issuer), None);
    }
    let world = World::start().await;
    let id = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let own = format!("/{id}/v2.0");
    world.endpoint.answer(&format!("/.well-known/openid-configuration{own}"), document(&world, &own, &[]));
    let server = world.servers.endpoints(&shared(&world, id)).await.unwrap();
    assert_eq!(server.issuer.unwrap().as_str(), format!("{}{own}", world.endpoint.issuer()));
}

#[tokio::test]
async fn a_missing_endpoint_is_named() {
    let refused = refusal(&endpoints_with(&[("authorization_endpoint", json!(null))]).await);
    assert_eq!(refused, Some(RefusedMetadata::EndpointMissing(EndpointName::Authorization)));
}

#[tokio::test]
async fn pkce_is_never_downgraded() {
    for (methods, asserted, sound) in [
        (json!(["S256"]), false, true),
        (json!(["plain"]), false, false),
        (json!(["plain"]), true, false),
        (json!([]), true, false),
        (json!("S256"), false, false),
        (json!(null), false, false),
        (json!(null), true, true),
    ] {
        let world = World::start().await;
        world.endpoint.answer(OAUTH, document(&world, "", &[("code_challenge_methods_supported", methods.clone())]));
        let mut provider = world.discovered("");
        provider.definition.pkce_asserted = asserted;
        let refused = refusal(&world.servers.endpoints(&provider).await.map(drop));
        assert_eq!(refused, (!sound).then_some(RefusedMetadata::Pkce), "{methods} {asserted}");
    }
}

#[tokio::test]
async fn html_duplicates_and_floods_are_no_metadata() {
    let world = World::start().await;
    let duplicate = format!(r#"{{"issuer":"{0}","issuer":"{0}"}}"#, world.endpoint.issuer());
    world.endpoint.answer(OAUTH, Answer::html(200));
    world.endpoint.answer(OPENID, Answer::json(200, &duplicate));
    let error = world.servers.endpoints(&world.discovered("")).await.map(drop).unwrap_err();
    assert!(matches!(error, AuthorizeError::Discovery(DiscoveryError::Absent { status: 200, .. })), "{error:?}");
    let world = World::start().await;
    for address in [OAUTH, OPENID] {
        world.endpoint.answer(address, Answer::json(200, &" ".repeat(300 * 1024)));
    }
    let error = world.servers.endpoints(&world.discovered("")).await.map(drop).unwrap_err();
    assert!(matches!(error, AuthorizeError::Discovery(DiscoveryError::Unreachable { .. })), "{error:?}");
}

#[tokio::test]
async fn a_document_serves_for_an_hour() {
    let world = World::start().await;
    let provider = world.discovered("");
    world.endpoint.answer(OAUTH, document(&world, "", &[]));
    for _ in 0..3 {
        world.servers.endpoints(&provider).await.unwrap();
    }
    assert_eq!(world.endpoint.unread(), 1);
    world.clock.advance(Duration::from_secs(3600));
    world.endpoint.answer(OAUTH, document(&world, "", &[("token_endpoint", json!(world.endpoint.url("/new")))]));
    let moved = world.servers.endpoints(&provider).await.unwrap();
    assert_eq!(moved.token, world.endpoint.url("/new"));
    assert_eq!(world.endpoint.unread(), 2);
}

#[tokio::test]
async fn the_last_good_document_outlives_an_outage_of_a_day() {
    let world = World::start().await;
    let provider = world.discovered("");
    world.endpoint.answer(OAUTH, document(&world, "", &[]));
    world.servers.endpoints(&provider).await.unwrap();
    world.clock.advance(Duration::from_secs(3600));
    world.endpoint.answer(OAUTH, Answer::json(200, "{}").silent());
    assert!(world.servers.endpoints(&provider).await.is_ok());
    assert!(world.servers.endpoints(&provider).await.is_ok());
    assert_eq!(world.endpoint.unread(), 2, "a server in trouble is not asked at every call");
    world.clock.advance(Duration::from_secs(60));
    world.endpoint.answer(OAUTH, document(&world, "", &[("token_endpoint", json!("http://as.example/"))]));
    let kept = world.servers.endpoints(&provider).await.unwrap();
    assert_eq!(kept.token, world.endpoint.url("/token"), "a bad document does not replace a good one");
    world.clock.advance(Duration::from_secs(23 * 3600));
    assert!(world.servers.endpoints(&provider).await.is_err());
}

#[tokio::test]
async fn a_failure_is_remembered_for_ten_seconds() {
    let world = World::start().await;
    let provider = world.discovered("");
    for _ in 0..3 {
        assert!(world.servers.endpoints(&provider).await.is_err());
    }
    assert_eq!(world.endpoint.unread(), 2, "one request to each address");
    world.clock.advance(Duration::from_secs(10));
    world.endpoint.answer(OAUTH, document(&world, "", &[]));
    assert!(world.servers.endpoints(&provider).await.is_ok());
}

#[tokio::test]
async fn many_callers_share_one_question() {
    let mut world = World::start().await;
    let gate = Gate::closed();
    world.endpoint.answer(OAUTH, document(&world, "", &[]).behind(&gate));
    let provider = Arc::new(world.discovered(""));
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (servers, provider) = (world.servers.clone(), provider.clone());
            tokio::spawn(async move { servers.endpoints(&provider).await.is_ok() })
        })
        .collect();
    assert_eq!(world.endpoint.received().await.path, OAUTH);
    gate.open();
    for caller in callers {
        assert!(caller.await.unwrap());
    }
    assert_eq!(world.endpoint.unread(), 0);
}

#[tokio::test]
async fn while_one_caller_asks_again_the_others_go_on() {
    let mut world = World::start().await;
    let provider = Arc::new(world.discovered(""));
    world.endpoint.answer(OAUTH, document(&world, "", &[]));
    world.servers.endpoints(&provider).await.unwrap();
    assert_eq!(world.endpoint.received().await.path, OAUTH);
    world.clock.advance(Duration::from_secs(3600));
    let gate = Gate::closed();
    world
        .endpoint
        .answer(OAUTH, document(&world, "", &[("token_endpoint", json!(world.endpoint.url("/new")))]).behind(&gate));
    let (servers, own) = (world.servers.clone(), provider.clone());
    let asking = tokio::spawn(async move { servers.endpoints(&own).await.unwrap().token });
    assert_eq!(world.endpoint.received().await.path, OAUTH);
    // The gate is closed: this one would hang if it waited.
    assert_eq!(world.servers.endpoints(&provider).await.unwrap().token, world.endpoint.url("/token"));
    gate.open();
    assert_eq!(asking.await.unwrap(), world.endpoint.url("/new"));
}

#[tokio::test]
async fn a_refresh_whose_endpoint_is_unknown_spends_nothing() {
    let refresh_token = RefreshToken::new("rt".to_owned());
    let world = World::start().await;
    let failure = world
        .servers
        .refresh(&world.discovered(""), &refresh_token, &ScopeSet::default(), None, 0)
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!((failure.class, failure.evidence), (ReplyClass::Transient, Evidence::NotSent));
    let world = World::start().await;
    world.endpoint.answer(OAUTH, document(&world, "", &[("token_endpoint", json!("http://as.example/"))]));
    let failure = world
        .servers
        .refresh(&world.discovered(""), &refresh_token, &ScopeSet::default(), None, 0)
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!((failure.class, failure.evidence), (ReplyClass::Configuration, Evidence::NotSent));
}
