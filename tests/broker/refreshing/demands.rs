//! What a provider demands when it refuses a refresh reaches the next authorization; what only looks like a refusal is
//! not taken for one too soon.

use claviger::{
    config::Config,
    dev::{Answer, Fault},
    domain::ScopeSet,
    proto::v1::{self, CredentialState as State, ErrorReason as Reason},
};
use http::StatusCode;
use serde_json::json;
use url::Url;

use super::{IN_MARGIN, MINUTE, arm, look, oauth_error, token};
use crate::{
    heard::Client,
    observer::in_time,
    world::{PLUGIN, Settings, World, parameter, reason, start},
};

const CLAIMS: &str = r#"{"access_token":{"capolids":{"essential":true,"values":["c1"]}}}"#;

fn demanding() -> Fault {
    let body = json!({
        "error": "interaction_required", "claims": CLAIMS, "acr_values": "urn:phishing-resistant", "max_age": "300",
    });
    Fault::Answer(Answer::json(StatusCode::BAD_REQUEST, &body))
}

async fn refused(world: &World, client: &Client, fault: &Fault) -> v1::AuthenticationRequired {
    arm(world, fault, 1);
    world.clock.advance(IN_MARGIN);
    let error = token(client).await.err().unwrap();
    assert_eq!(error.reason, Some(Reason::ReauthorizationRequired));
    *error.authentication_required.unwrap()
}

#[tokio::test]
async fn what_the_provider_demands_is_told_and_asked_for_once() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    let required = refused(&world, &client, &demanding()).await;
    let told = (required.claims.as_str(), required.acr_values.as_str(), required.max_age.unwrap().seconds);
    assert_eq!(told, (CLAIMS, "urn:phishing-resistant", 300));

    // Also after a restart: the next process has nothing but what is stored.
    drop(client);
    world.restart().await;
    let client = world.client("alice");
    let started = client.start_authorization(start(PLUGIN)).await.unwrap();
    let url: Url = started.authorization_url.parse().unwrap();
    assert_eq!(started.flow_id, required.flow_id);
    assert_eq!(parameter(&url, "claims"), CLAIMS);
    assert_eq!(parameter(&url, "acr_values"), "urn:phishing-resistant");
    assert_eq!(parameter(&url, "max_age"), "300");

    let again = world.connect(&client, "alice").await;
    assert_eq!((again.connection_id.as_str(), again.generation), (connection.connection_id.as_str(), 2));
    let required = refused(&world, &client, &oauth_error(400, "invalid_grant")).await;
    assert_eq!((required.claims.as_str(), required.max_age), ("", None), "they were fulfilled");
}

#[tokio::test]
async fn another_accounts_authorization_is_not_asked_for_it() {
    let world = World::start().await;
    let client = world.client("alice");
    world.connect(&client, "alice").await;
    refused(&world, &client, &demanding()).await;
    let other = v1::StartAuthorizationRequest { account: "bob".to_owned(), ..start(PLUGIN) };
    let url: Url = client.start_authorization(other).await.unwrap().authorization_url.parse().unwrap();
    assert_eq!(parameter(&url, "claims"), "");
}

/// A world whose provider is Microsoft.
async fn microsoft() -> World {
    let configure = |config: &mut Config| {
        let provider = &mut config.providers[0];
        let base = provider.issuer.take().unwrap();
        provider.definition = "microsoft".to_owned();
        provider.rotation = None;
        provider.issuer = Some(format!("{}/entra/{{directory}}/v2.0", base.as_str()).parse().unwrap());
        provider.directory = Some("organizations".parse().unwrap());
        for plugin in &mut config.plugins {
            plugin.scopes = ScopeSet::parse("Mail.Read", ' ').unwrap();
        }
    };
    World::start_with(Settings { configure: Box::new(configure), ..Settings::default() }).await
}

fn throttled() -> Fault {
    let body = json!({
        "error": "invalid_grant",
        "error_description": "AADSTS50196: The server terminated an operation because it encountered a loop.",
        "error_codes": [50196],
    });
    Fault::Answer(Answer::json(StatusCode::BAD_REQUEST, &body))
}

/// Asks until the provider has been asked so often.
async fn asked(world: &World, client: &Client, times: u64) -> Reason {
    loop {
        let refusal = in_time(client.get_plugin_token(crate::world::ask(PLUGIN))).await;
        if world.refreshes() == times {
            return reason(refusal);
        }
        world.clock.advance(6 * MINUTE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_that_looks_like_a_dead_grant_passes_or_is_one() {
    let world = microsoft().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    arm(&world, &throttled(), 100);
    world.clock.advance(10 * MINUTE);
    for times in 1..=3 {
        assert_eq!(asked(&world, &client, times).await, Reason::ProviderUnreachable, "answer {times}");
        assert_eq!(look(&client, &connection).await.state(), State::RefreshFailing);
    }
    assert_eq!(asked(&world, &client, 4).await, Reason::ReauthorizationRequired);

    let world = microsoft().await;
    let client = world.client("alice");
    world.connect(&client, "alice").await;
    for refreshed in [2, 3] {
        arm(&world, &throttled(), 3);
        world.clock.advance(10 * MINUTE);
        let before = world.refreshes();
        assert_eq!(asked(&world, &client, before + 3).await, Reason::ProviderUnreachable);
        world.clock.advance(6 * MINUTE);
        assert_eq!(token(&client).await.unwrap().generation, refreshed, "a success begins the count anew");
    }
}
