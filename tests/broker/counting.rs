//! What became of every refresh token that was sent is counted, by provider and outcome.

use claviger::{
    dev::{Answer, Endpoint, Fault, HoldPoint},
    domain::Rotation,
    proto::v1,
};
use http::StatusCode;
use serde_json::json;

use crate::{
    observer::in_time,
    world::{MINUTE, PLUGIN, Settings, World},
};

fn count(world: &World, name: &str) -> u64 {
    let text = world.broker().metrics_text();
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(written, _)| written == name));
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn refreshes(world: &World, outcome: &str) -> u64 {
    count(world, &format!(r#"claviger_refreshes_total{{provider="dev",outcome="{outcome}"}}"#))
}

async fn ask(world: &World) {
    let request = v1::GetPluginTokenRequest { plugin: PLUGIN.to_owned(), ..Default::default() };
    let _ = world.client("alice").get_plugin_token(request).await;
}

async fn with(rotation: Rotation) -> World {
    let world = World::start_with(Settings { rotation, ..Settings::default() }).await;
    world.connect(&world.client("alice"), "alice").await;
    world
}

#[tokio::test]
async fn every_refresh_is_counted_by_what_came_of_it() {
    let answer = |status, body: &serde_json::Value| Fault::Answer(Answer::json(status, body));
    for (outcome, fault) in [
        ("unknown", Fault::Answer(Answer::new(StatusCode::FORBIDDEN, "<html>"))),
        ("rate_limited", answer(StatusCode::TOO_MANY_REQUESTS, &json!({}))),
        ("configuration", answer(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }))),
        ("reauthorize", answer(StatusCode::BAD_REQUEST, &json!({ "error": "login_required" }))),
        ("terminal", answer(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_grant" }))),
        ("ambiguous", Fault::CommitThenDrop),
    ] {
        let world = with(Rotation::Strict).await;
        ask(&world).await;
        assert_eq!(refreshes(&world, outcome), 0);
        world.provider.faults().arm(Endpoint::Token, fault, 1);
        world.clock.advance(60 * MINUTE);
        ask(&world).await;
        assert_eq!(refreshes(&world, outcome), 1, "{outcome}: {}", world.broker().metrics_text());
        assert_eq!(refreshes(&world, "refreshed"), 0, "{outcome}");
    }
    let world = with(Rotation::Strict).await;
    world.clock.advance(60 * MINUTE);
    ask(&world).await;
    assert_eq!(refreshes(&world, "refreshed"), 1);
    world.provider.shutdown().await;
    world.clock.advance(60 * MINUTE);
    ask(&world).await;
    assert_eq!(refreshes(&world, "transient"), 1, "what was not sent spends nothing");
}

#[tokio::test]
async fn a_refresh_that_its_process_did_not_survive_is_counted_by_the_next() {
    let mut world = with(Rotation::Strict).await;
    world.clock.advance(60 * MINUTE);
    let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Answer);
    let asked = tokio::spawn({
        let client = world.client("alice");
        let request = v1::GetPluginTokenRequest { plugin: PLUGIN.to_owned(), ..Default::default() };
        async move { client.get_plugin_token(request).await }
    });
    in_time(hold.arrived(1)).await;
    world.crash().await;
    asked.abort();
    drop(hold);
    world.run().await;
    ask(&world).await;
    assert_eq!(refreshes(&world, "interrupted"), 1, "{}", world.broker().metrics_text());
    world.clock.advance(2 * MINUTE);
    ask(&world).await;
    assert_eq!(count(&world, r#"claviger_rotations_lost_total{provider="dev"}"#), 1);
}
