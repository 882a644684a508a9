//! The shipped definitions behind the whole broker: connect, get, refresh and revoke at the providers that the
//! development server plays.

use claviger::{
    config::{Config, ProviderSection},
    domain::{Endpoints, ScopeSet},
    proto::v1::{ErrorReason as Reason, LocalOutcome as Local, RemoteOutcome as Remote},
};

use crate::{
    observer::in_time,
    world::{MINUTE, PLUGIN, Settings, World, ask, reason, revoke_all},
};

/// Past the point from which on a token of ten minutes is renewed.
const IN_MARGIN: u32 = 9;

/// A world whose one provider is this one.
async fn world(scopes: &'static str, change: impl Fn(&mut ProviderSection, &str) + Send + Sync + 'static) -> World {
    let configure = move |config: &mut Config| {
        let base = config.providers[0].issuer.take().expect("the world names its provider's issuer");
        config.providers[0].rotation = None;
        change(&mut config.providers[0], base.as_str());
        for plugin in &mut config.plugins {
            plugin.scopes = ScopeSet::parse(scopes, ' ').unwrap();
        }
    };
    World::start_with(Settings { configure: Box::new(configure), ..Settings::default() }).await
}

/// The whole life of one connection.
async fn lives(world: &World, account: &str, remote: Remote, told: &str) {
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    assert_eq!(connection.account, account);
    let first = in_time(client.get_plugin_token(ask(PLUGIN))).await.unwrap();
    assert!(world.accepts(&first));
    world.clock.advance(IN_MARGIN * MINUTE + MINUTE / 2);
    let second = in_time(client.get_plugin_token(ask(PLUGIN))).await.unwrap();
    assert!(world.accepts(&second));
    assert_ne!(second.access_token, first.access_token);
    assert_eq!((second.generation, world.refreshes()), (first.generation + 1, 1));
    // With what the first refresh left behind.
    world.clock.advance(IN_MARGIN * MINUTE + MINUTE / 2);
    let third = in_time(client.get_plugin_token(ask(PLUGIN))).await.unwrap();
    assert_eq!((third.generation, world.refreshes()), (second.generation + 1, 2));
    let revoked = in_time(client.revoke(revoke_all())).await.unwrap().results;
    assert_eq!((revoked[0].local_outcome(), revoked[0].remote_outcome()), (Local::Stopped, remote));
    assert!(revoked[0].side_effects.contains(told), "{}", revoked[0].side_effects);
    assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
    // Where the provider cannot end a token, its words say so, and the broker has forgotten it all the same.
    assert_eq!(world.accepts(&third), told.contains("no way"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_google_account_is_connected_refreshed_and_revoked() {
    let world = world("email https://www.googleapis.com/auth/calendar.readonly", |provider, base| {
        provider.definition = "google".to_owned();
        provider.issuer = Some(format!("{base}/google").parse().unwrap());
    });
    let world = world.await;
    lives(&world, "alice", Remote::Confirmed, "whole access").await;
    assert_eq!(world.live_refresh_tokens(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microsoft_account_is_connected_refreshed_and_forgotten() {
    let world = world("https://graph.microsoft.com/Mail.Read User.Read", |provider, base| {
        provider.definition = "microsoft".to_owned();
        provider.issuer = Some(format!("{base}/entra/{{directory}}/v2.0").parse().unwrap());
        provider.directory = Some("organizations".parse().unwrap());
    });
    let account = format!("{}/00000000-0000-0000-66f3-3332eca7ea81", claviger::dev::ENTRA_DIRECTORY);
    lives(&world.await, &account, Remote::Unsupported, "no way to end one token").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slack_account_is_connected_refreshed_and_revoked() {
    let world = world("chat:write search:read", |provider, base| {
        let at = |path: &str| Some(format!("{base}/slack{path}").parse().unwrap());
        provider.definition = "slack".to_owned();
        provider.endpoints = Endpoints {
            authorization: at("/oauth/v2/authorize"),
            token: at("/api/oauth.v2.access"),
            revocation: at("/api/auth.revoke"),
            userinfo: at("/api/auth.test"),
        };
    });
    lives(&world.await, "T9TK3CUKW/U0ALICE", Remote::Unsupported, "this token only").await;
}
