//! A caller whose token was refused gets another one, or is told the truth.

use claviger::{
    dev::Fault,
    domain::Rotation,
    proto::v1::{self, ErrorReason as Reason},
};
use futures_util::future::join_all;
use serde_json::{Map, json};

use super::{SECOND, Token, arm, oauth_error, token};
use crate::{
    heard::Client,
    observer::in_time,
    world::{PLUGIN, Settings, World, ask, reason},
};

fn rejecting(digest: &[u8]) -> v1::GetPluginTokenRequest {
    v1::GetPluginTokenRequest { rejected_token_sha256: digest.to_vec(), ..ask(PLUGIN) }
}

fn digest(token: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

/// Connected, with a token that is older than the cool-down.
async fn connected(world: &World) -> (Client, Token) {
    let client = world.client("alice");
    world.connect(&client, "alice").await;
    let first = token(&client).await.unwrap();
    world.clock.advance(31 * SECOND);
    (client, first)
}

#[tokio::test]
async fn two_hundred_callers_who_were_refused_cost_one_refresh_and_get_one_token() {
    let world = World::start().await;
    let (client, first) = connected(&world).await;
    let rejected = digest(&first.access_token);
    let calls = (0..200).map(|_| client.get_plugin_token(rejecting(&rejected)));
    let answers = in_time(join_all(calls)).await;
    let second = answers[0].as_ref().unwrap().access_token.clone();
    assert_ne!(second, first.access_token);
    for answer in answers {
        let answer = answer.unwrap();
        assert_eq!((answer.generation, &answer.access_token), (2, &second));
    }
    assert_eq!(world.refreshes(), 1);
}

#[tokio::test]
async fn a_digest_of_no_token_of_ours_costs_nothing() {
    let world = World::start().await;
    let (client, first) = connected(&world).await;
    for foreign in [digest("somebody else's"), digest("")] {
        let served = client.get_plugin_token(rejecting(&foreign)).await.unwrap();
        assert_eq!(served.access_token, first.access_token);
    }
    for length in [1, 31, 33, 64] {
        assert_eq!(reason(client.get_plugin_token(rejecting(&vec![0; length])).await), Reason::InvalidArgument);
    }
    assert_eq!(world.refreshes(), 0);
}

#[tokio::test]
async fn a_provider_that_gives_the_rejected_token_again_is_not_believed() {
    let world = World::start_with(Settings { rotation: Rotation::None, ..Settings::default() }).await;
    let (client, first) = connected(&world).await;
    let again = Map::from_iter([("access_token".to_owned(), json!(first.access_token))]);
    arm(&world, &Fault::Edit { set: again, remove: Vec::new() }, 1);
    let rejected = rejecting(&digest(&first.access_token));
    let refusal = client.get_plugin_token(rejected.clone()).await.err().unwrap();
    assert_eq!((refusal.reason, refusal.retry_after), (Some(Reason::RateLimited), Some(30 * SECOND)));
    assert_eq!(reason(client.get_plugin_token(rejected.clone()).await), Reason::RateLimited);
    assert_eq!(world.refreshes(), 1, "once a cool-down");
    world.clock.advance(30 * SECOND);
    let served = client.get_plugin_token(rejected).await.unwrap();
    assert!(world.accepts(&served) && served.access_token != first.access_token);
}

#[tokio::test]
async fn without_another_token_the_caller_hears_why() {
    for (fault, expected) in [
        (oauth_error(400, "invalid_grant"), Reason::ReauthorizationRequired),
        (oauth_error(401, "invalid_client"), Reason::ProviderSuspended),
        (oauth_error(429, "slow_down"), Reason::ProviderRateLimited),
        (oauth_error(418, "invalid_grant"), Reason::ProviderUnreachable),
    ] {
        let world = World::start().await;
        let (client, first) = connected(&world).await;
        arm(&world, &fault, 1000);
        for _ in 0..3 {
            let refused = client.get_plugin_token(rejecting(&digest(&first.access_token))).await;
            assert_eq!(reason(refused), expected, "{fault:?}");
        }
        assert_eq!(world.refreshes(), 1, "{fault:?}");
        let served = client.get_plugin_token(ask(PLUGIN)).await;
        match expected {
            Reason::ReauthorizationRequired => assert_eq!(reason(served), expected),
            _ => assert_eq!(served.unwrap().access_token, first.access_token, "who does not complain is served"),
        }
    }
}

#[tokio::test]
async fn a_token_that_nothing_can_refresh_is_the_users_to_renew() {
    let world = World::start().await;
    let without = Fault::Edit { set: Map::new(), remove: vec!["refresh_token".to_owned()] };
    world.provider.faults().arm(claviger::dev::Endpoint::Token, without, 1);
    let (client, first) = connected(&world).await;
    let refusal = client.get_plugin_token(rejecting(&digest(&first.access_token))).await.err().unwrap();
    assert_eq!(refusal.reason, Some(Reason::ReauthorizationRequired));
    assert_eq!(refusal.authentication_required.unwrap().provider, "dev");
    assert_eq!(world.refreshes(), 0);
}

#[tokio::test]
async fn who_has_seen_a_generation_gets_no_older_one() {
    let world = World::start().await;
    let (client, first) = connected(&world).await;
    let at_least = |generation| v1::GetPluginTokenRequest { min_generation: generation, ..ask(PLUGIN) };
    let second = client.get_plugin_token(rejecting(&digest(&first.access_token))).await.unwrap();
    for generation in [1, 2] {
        let served = client.get_plugin_token(at_least(generation)).await.unwrap();
        assert_eq!(served.access_token, second.access_token);
    }
    assert_eq!(reason(client.get_plugin_token(at_least(3)).await), Reason::InvalidArgument);
    assert_eq!(world.refreshes(), 1);
}
