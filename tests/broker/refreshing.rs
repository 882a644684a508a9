//! Refreshing: one flight a credential, whatever becomes of its callers, its answer, or the process.

use std::time::Duration;

use claviger::{
    client::ClientError,
    dev::{
        Answer, Arm, Count, Endpoint, Fault, HoldPoint, MissingRefreshToken, TokenOutcome, TokenRefusal,
        visitor::Decision,
    },
    domain::{Rotation, Timestamp},
    proto::v1::{
        self, AuthorizationState, CredentialEventKind as Kind, CredentialState as State, ErrorReason as Reason,
    },
};
use http::{StatusCode, header::RETRY_AFTER};
use serde_json::json;

use crate::{
    heard::Client,
    observer::{Observer, in_time, kinds},
    world::{MINUTE, PLUGIN, Settings, World, ask, reason, start},
};

mod demands;
mod fairness;
mod forecast;
mod held;
mod keeping;
mod rejecting;
mod suspending;

/// Of the world's tokens, which live ten minutes, the last minute is the margin.
const IN_MARGIN: Duration = Duration::from_secs(541);
const LIFETIME: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

type Token = v1::GetPluginTokenResponse;

async fn token(client: &Client) -> Result<Token, ClientError> {
    in_time(client.get_plugin_token(ask(PLUGIN))).await
}

async fn generation(client: &Client) -> u64 {
    token(client).await.unwrap().generation
}

async fn look(client: &Client, connection: &v1::Connection) -> v1::Connection {
    let request = v1::GetConnectionRequest { connection_id: connection.connection_id.clone() };
    client.get_connection(request).await.unwrap().connection.unwrap()
}

/// Once a call is answered, the broker has read those that were sent before it over the same connection.
async fn earlier_calls_have_arrived(client: &Client) {
    client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
}

/// Moves the clock in steps, and lets every step be noticed.
async fn pass(world: &World, client: &Client, time: Duration, step: Duration) {
    let end = world.now().plus(time);
    while world.now() < end {
        world.clock.advance(step.min(end - world.now()));
        earlier_calls_have_arrived(client).await;
    }
}

async fn with_rotation(rotation: Rotation) -> World {
    World::start_with(Settings { rotation, ..Settings::default() }).await
}

/// The next refreshes fail, and the provider is there for everything else: nothing is wrong but with this connection.
fn arm(world: &World, fault: &Fault, count: u32) {
    world.provider.faults().add(Arm { count: Count::Times(count), ..Arm::refresh(fault.clone()) });
}

fn answer(status: u16, body: &str) -> Answer {
    Answer::new(StatusCode::from_u16(status).unwrap(), body)
}

fn oauth_error(status: u16, code: &str) -> Fault {
    Fault::Answer(Answer::json(StatusCode::from_u16(status).unwrap(), &json!({ "error": code })))
}

fn html() -> Fault {
    Fault::Answer(answer(400, "<html><body>Request blocked: invalid_grant</body></html>"))
}

/// The refresh took effect, and its answer is of no use.
fn lost() -> Vec<Fault> {
    let emptied = json!({ "access_token": "" }).as_object().cloned().unwrap();
    vec![
        Fault::CommitThenDrop,
        Fault::CommitThenTruncate,
        Fault::CommitThenAnswer(answer(502, "bad gateway")),
        Fault::Edit { set: emptied, remove: Vec::new() },
    ]
}

fn reuses(world: &World) -> usize {
    let reused = TokenOutcome::Refused(TokenRefusal::ReusedRefreshToken);
    world.provider.token_requests().iter().filter(|request| request.outcome == reused).count()
}

mod single_flight {
    use super::*;

    #[tokio::test]
    async fn two_hundred_callers_share_one_refresh_though_half_of_them_go_away() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
        world.clock.advance(LIFETIME);
        let mut calls: Vec<_> = (0..200)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { token(&client).await.unwrap() })
            })
            .collect();
        in_time(hold.arrived(1)).await;
        earlier_calls_have_arrived(&client).await;
        for call in calls.split_off(100) {
            call.abort();
            assert!(call.await.is_err_and(|error| error.is_cancelled()), "a call was answered before its refresh");
        }
        hold.release();
        let mut tokens = Vec::new();
        for call in calls {
            tokens.push(call.await.unwrap());
        }
        assert!(tokens.iter().all(|token| token.generation == 2 && token.access_token == tokens[0].access_token));
        assert!(world.accepts(&tokens[0]));
        assert_eq!(world.refreshes(), 1);
        assert_eq!(world.live_refresh_tokens(), 1);

        world.clock.advance(LIFETIME);
        assert_eq!(generation(&client).await, 3, "the rotated refresh token is the one that was stored");
        assert_eq!((world.refreshes(), world.live_refresh_tokens()), (2, 1));
    }

    #[tokio::test]
    async fn a_refresh_lands_though_every_caller_has_gone() {
        let mut world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        let hold = world.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
        // Before the scheduler's time: nobody waits for this refresh but its callers.
        world.clock.advance(2 * MINUTE);
        let longer = v1::GetPluginTokenRequest { min_remaining: Some(seconds(9 * 60)), ..ask(PLUGIN) };
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let (client, request) = (client.clone(), longer.clone());
                tokio::spawn(async move { client.get_plugin_token(request).await })
            })
            .collect();
        in_time(hold.arrived(1)).await;
        earlier_calls_have_arrived(&client).await;
        for call in calls {
            call.abort();
            assert!(call.await.is_err_and(|error| error.is_cancelled()));
        }
        hold.release();
        assert_eq!(observer.until(Kind::Refreshed).await[0].status.as_ref().unwrap().generation, 2);
        assert_eq!(generation(&client).await, 2);
        assert_eq!(world.refreshes(), 1);
        world.stop().await;
    }
}

mod ahead_of_expiry {
    use super::*;

    fn occurred(event: &v1::CredentialEvent) -> Timestamp {
        Timestamp::from_secs(event.occurred_at.unwrap().seconds)
    }

    #[tokio::test]
    async fn a_token_is_refreshed_in_time_without_a_caller_and_not_earlier() {
        let mut world = World::start().await;
        let client = world.client("alice");
        let connected = world.now();
        world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        pass(&world, &client, Duration::from_secs(540), Duration::from_secs(5)).await;
        let seen = observer.until(Kind::Refreshed).await;
        assert_eq!(kinds(&seen), [Kind::Refreshed]);
        // The margin is 60 s, the jitter up to a tenth of the lifetime more.
        let after = occurred(&seen[0]) - connected;
        assert!((480..=540).contains(&after.as_secs()), "{after:?}");
        assert_eq!(world.refreshes(), 1);
        world.stop().await;
    }

    #[tokio::test]
    async fn credentials_of_one_moment_are_not_refreshed_at_one_moment() {
        let mut world = World::start().await;
        let mut clients = Vec::new();
        for number in 0..6 {
            let client = world.client(&format!("user-{number}"));
            world.connect(&client, "alice").await;
            clients.push((Observer::of(&client).await, client));
        }
        pass(&world, &clients[0].1, Duration::from_secs(540), SECOND).await;
        let mut times = Vec::new();
        for (observer, _) in &mut clients {
            times.push(occurred(&observer.next().await));
        }
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 1, "six draws of sixty seconds fell together");
        world.stop().await;
    }

    #[tokio::test]
    async fn a_restart_catches_up_with_what_became_due() {
        let mut world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let observer = Observer::of(&client).await;
        world.stop().await;
        world.clock.advance(IN_MARGIN);
        world.run().await;
        let mut observer = Observer::after(observer, &world.client("alice")).await;
        assert_eq!(kinds(&observer.until(Kind::Refreshed).await), [Kind::Refreshed]);
        assert_eq!(world.refreshes(), 1);
        world.stop().await;
    }

    #[tokio::test]
    async fn a_credential_that_expired_while_nothing_ran_is_refreshed_at_start() {
        let mut world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let observer = Observer::of(&client).await;
        world.stop().await;
        world.clock.advance(60 * MINUTE);
        world.run().await;
        let client = world.client("alice");
        let mut observer = Observer::after(observer, &client).await;
        assert_eq!(kinds(&observer.until(Kind::Refreshed).await), [Kind::Expired, Kind::Refreshed]);
        assert_eq!(generation(&client).await, 2);
        assert_eq!(world.refreshes(), 1);
        world.stop().await;
    }
}

mod passing_failures {
    use super::*;

    /// The fault lasts until after the token's end: what callers and watchers see of it.
    async fn outlasts_the_token(fault: Fault, rotation: Rotation, expected: Reason) {
        let mut world = with_rotation(rotation).await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        arm(&world, &fault, 1000);
        world.clock.advance(IN_MARGIN);
        assert_eq!(generation(&client).await, 1, "{fault:?}: the old token lives and is served");
        let failing = observer.next().await;
        assert_eq!(failing.kind(), Kind::RefreshFailing, "{fault:?}");
        assert_eq!(failing.status.unwrap().reason(), expected, "{fault:?}");

        world.clock.advance(2 * MINUTE);
        let error = token(&client).await.err().unwrap();
        assert_eq!(error.reason, Some(expected), "{fault:?}");
        assert!(error.retry_after.is_some_and(|wait| !wait.is_zero()), "{fault:?}: {error:?}");
        assert_eq!(look(&client, &connection).await.state(), State::RefreshFailing);

        world.provider.faults().clear();
        world.clock.advance(10 * MINUTE);
        let seen = kinds(&observer.until(Kind::Refreshed).await);
        assert_eq!(seen, [Kind::Expired, Kind::Recovered, Kind::Refreshed], "{fault:?}: announced once each");
        let token = token(&client).await.unwrap();
        assert!(token.generation == 2 && world.accepts(&token), "{fault:?}");
        assert_eq!(world.live_refresh_tokens(), if rotation == Rotation::Strict { 1 } else { 2 });
        world.stop().await;
    }

    #[tokio::test]
    async fn a_provider_in_maintenance_is_left_alone_as_long_as_it_asks() {
        let busy = answer(503, "").with(RETRY_AFTER, http::HeaderValue::from_static("100"));
        outlasts_the_token(Fault::Answer(busy), Rotation::Strict, Reason::ProviderRateLimited).await;
    }

    #[tokio::test]
    async fn a_provider_with_too_many_requests_is_a_passing_failure() {
        outlasts_the_token(Fault::Answer(answer(429, "")), Rotation::Strict, Reason::ProviderRateLimited).await;
    }

    #[tokio::test]
    async fn a_page_of_a_firewall_is_a_passing_failure_whatever_it_says() {
        outlasts_the_token(html(), Rotation::Strict, Reason::ProviderUnreachable).await;
    }

    #[tokio::test]
    async fn dropped_connections_are_a_passing_failure_where_tokens_do_not_rotate_away() {
        outlasts_the_token(Fault::Drop, Rotation::Reuse, Reason::ProviderUnreachable).await;
    }

    #[tokio::test]
    async fn bad_gateways_are_a_passing_failure_where_tokens_do_not_rotate_away() {
        let fault = Fault::Answer(answer(502, "<html>bad gateway</html>"));
        outlasts_the_token(fault, Rotation::Reuse, Reason::ProviderUnreachable).await;
    }

    #[tokio::test]
    async fn a_retry_after_is_told_to_the_caller_and_kept() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let busy = answer(503, "").with(RETRY_AFTER, http::HeaderValue::from_static("100"));
        arm(&world, &Fault::Answer(busy), 1);
        world.clock.advance(LIFETIME);
        let error = token(&client).await.err().unwrap();
        assert_eq!(error.retry_after, Some(Duration::from_secs(100)));
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(token(&client).await.err().unwrap().retry_after, Some(Duration::from_secs(40)));
        assert_eq!(world.refreshes(), 1);
        world.clock.advance(Duration::from_secs(40));
        assert_eq!(generation(&client).await, 2);
    }

    #[tokio::test]
    async fn a_provider_that_is_not_there_spends_no_attempt() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        world.provider.shutdown().await;
        world.clock.advance(IN_MARGIN);
        assert_eq!(generation(&client).await, 1);
        for _ in 0..5 {
            world.clock.advance(5 * MINUTE);
            let error = token(&client).await.err().unwrap();
            assert_eq!(error.reason, Some(Reason::ProviderUnreachable));
            assert!(error.retry_after.is_some_and(|wait| !wait.is_zero()));
        }
        assert_eq!(look(&client, &connection).await.state(), State::RefreshFailing);
    }

    #[tokio::test]
    async fn an_hour_of_failure_is_not_terminal_and_does_not_hammer_the_provider() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        arm(&world, &html(), 100_000);
        world.clock.advance(LIFETIME);
        for _ in 0..360 {
            world.clock.advance(Duration::from_secs(10));
            assert_eq!(reason(token(&client).await), Reason::ProviderUnreachable);
        }
        // Waits double up to five minutes and are drawn evenly: about ten, then one in two and a half minutes.
        assert!((10..=80).contains(&world.refreshes()), "{} requests in an hour", world.refreshes());
        assert_eq!(look(&client, &connection).await.state(), State::RefreshFailing);
    }

    #[tokio::test]
    async fn an_answer_that_never_came_to_be_is_asked_for_again_before_the_token_ends() {
        let mut world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        arm(&world, &Fault::Drop, 1);
        world.clock.advance(IN_MARGIN);
        assert_eq!(generation(&client).await, 1);
        world.clock.advance(LIFETIME - IN_MARGIN - SECOND);
        let seen = kinds(&observer.until(Kind::Refreshed).await);
        assert_eq!(seen, [Kind::RefreshFailing, Kind::Recovered, Kind::Refreshed]);
        assert_eq!(world.refreshes(), 2);
        world.stop().await;
    }
}

mod our_configuration {
    use super::*;

    #[tokio::test]
    async fn a_refused_registration_touches_no_connection_and_stops_no_living_token() {
        let mut world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        arm(&world, &oauth_error(401, "invalid_client"), 1000);
        world.clock.advance(IN_MARGIN);
        assert_eq!(generation(&client).await, 1);
        assert_eq!(observer.next().await.kind(), Kind::Suspended);
        let shown = look(&client, &connection).await;
        assert_eq!((shown.state(), shown.reason()), (State::Suspended, Reason::ProviderSuspended));

        world.clock.advance(MINUTE);
        assert_eq!(reason(token(&client).await), Reason::ProviderSuspended);
        for _ in 0..180 {
            world.clock.advance(Duration::from_secs(10));
            assert_eq!(reason(token(&client).await), Reason::ProviderSuspended);
        }
        assert!(world.refreshes() <= 8, "{} requests in half an hour", world.refreshes());

        world.provider.faults().clear();
        world.clock.advance(11 * MINUTE);
        let seen = observer.until(Kind::Resumed).await;
        assert_eq!(kinds(&seen), [Kind::Expired, Kind::Refreshed, Kind::Resumed]);
        let states: Vec<_> = seen.iter().map(|event| event.status.as_ref().unwrap().state()).collect();
        assert_eq!(states, [State::Suspended, State::Connected, State::Connected]);
        assert_eq!(generation(&client).await, 2);
        world.stop().await;
    }

    #[tokio::test]
    async fn a_suspended_provider_is_asked_for_one_connection_not_for_each() {
        let world = World::start().await;
        let clients: Vec<_> = (0..5).map(|number| world.client(&format!("user-{number}"))).collect();
        for client in &clients {
            world.connect(client, "alice").await;
        }
        arm(&world, &oauth_error(401, "invalid_client"), 1000);
        world.clock.advance(2 * MINUTE);
        let longer = v1::GetPluginTokenRequest { min_remaining: Some(seconds(9 * 60)), ..ask(PLUGIN) };
        for client in &clients {
            assert_eq!(client.get_plugin_token(longer.clone()).await.unwrap().generation, 1);
        }
        assert_eq!(world.refreshes(), 1);
    }
}

mod the_end_of_a_grant {
    use super::*;

    /// A connection that the provider has refused to refresh.
    async fn dead() -> (World, Client, v1::Connection) {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        arm(&world, &oauth_error(400, "invalid_grant"), 1);
        world.clock.advance(IN_MARGIN);
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
        let event = observer.next().await;
        assert_eq!(event.kind(), Kind::ReauthorizationRequired);
        assert_eq!(event.status.unwrap().reason(), Reason::ReauthorizationRequired);
        (world, client, connection)
    }

    #[tokio::test]
    async fn a_dead_grant_asks_for_the_user_and_leaves_the_provider_alone() {
        let (mut world, client, connection) = dead().await;
        world.clock.advance(60 * MINUTE);
        let error = token(&client).await.err().unwrap();
        let required = error.authentication_required.unwrap();
        assert_eq!((required.provider.as_str(), required.plugin.as_str()), ("dev", PLUGIN));
        let request = v1::GetAuthorizationRequest { flow_id: required.flow_id.clone(), wait: None };
        assert_eq!(client.get_authorization(request).await.unwrap().state(), AuthorizationState::Pending);
        let again = token(&client).await.err().unwrap().authentication_required.unwrap();
        assert_eq!(again.flow_id, required.flow_id, "asking again opens no second flow");
        assert_eq!(look(&client, &connection).await.state(), State::ReauthorizationRequired);
        assert_eq!(world.refreshes(), 1);
        world.stop().await;
    }

    #[tokio::test]
    async fn an_error_that_comes_with_success_is_an_error() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        arm(&world, &oauth_error(200, "invalid_grant"), 1);
        world.clock.advance(IN_MARGIN);
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
    }

    #[tokio::test]
    async fn reconnecting_the_same_account_revives_the_connection_with_a_higher_generation() {
        let (mut world, client, connection) = dead().await;
        let revived = world.connect(&client, "alice").await;
        assert_eq!(revived.connection_id, connection.connection_id);
        assert_eq!((revived.state(), revived.generation), (State::Connected, 2));
        let token = token(&client).await.unwrap();
        assert!(token.generation == 2 && world.accepts(&token));
        world.clock.advance(LIFETIME);
        assert_eq!(generation(&client).await, 3);
        world.stop().await;
    }

    #[tokio::test]
    async fn another_account_is_refused_and_its_tokens_are_revoked() {
        let (mut world, client, connection) = dead().await;
        let hold = world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Answer);
        let renewing = v1::StartAuthorizationRequest { account: connection.account.clone(), ..start(PLUGIN) };
        let started = client.start_authorization(renewing).await.unwrap();
        let answer = world.visit(&started.authorization_url, "bob", Decision::Approve).await;
        assert_eq!(reason(world.store(&client, &answer).await), Reason::AccountMismatch);
        assert_eq!(reason(world.store(&client, &answer).await), Reason::AccountMismatch, "safe to repeat");
        let old = look(&client, &connection).await;
        assert_eq!((old.state(), old.generation), (State::ReauthorizationRequired, 1));
        assert_eq!(old.account, connection.account);
        in_time(hold.arrived(1)).await;
        let foreign = world.provider.grants().into_iter().find(|grant| grant.user == "bob").unwrap();
        assert_eq!(foreign.live_refresh_tokens, 0);
        assert!(foreign.ended_at.is_some());
        world.stop().await;
    }
}

mod rotation {
    use super::*;

    #[tokio::test]
    async fn a_reconnect_during_a_refresh_wins_and_its_token_is_not_spent() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let hold = world.provider.faults().hold(Endpoint::Metadata, HoldPoint::Request);
        // The refresh waits for the provider's metadata, which is older than an hour.
        world.clock.advance(61 * MINUTE);
        in_time(hold.arrived(1)).await;
        let renewed = world.connect(&client, "alice").await;
        assert_eq!((renewed.connection_id, renewed.generation), (connection.connection_id, 2));
        hold.release();
        let served = token(&client).await.unwrap();
        assert!(served.generation == 2 && world.accepts(&served));
        world.clock.advance(LIFETIME);
        let refreshed = token(&client).await.unwrap();
        assert!(refreshed.generation == 3 && world.accepts(&refreshed));
        assert_eq!(reuses(&world), 0);
    }

    #[tokio::test]
    async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let missing = [MissingRefreshToken::Omit, MissingRefreshToken::Empty, MissingRefreshToken::Null];
        for (number, missing) in (2..).zip(missing) {
            arm(&world, &Fault::RefreshToken(missing), 1);
            world.clock.advance(IN_MARGIN);
            assert_eq!(generation(&client).await, number, "{missing:?}");
        }
        world.clock.advance(IN_MARGIN);
        let token = token(&client).await.unwrap();
        assert!(token.generation == 5 && world.accepts(&token));
        assert_eq!((world.refreshes(), world.live_refresh_tokens()), (4, 1));
    }

    #[tokio::test]
    async fn a_strict_provider_is_asked_twice_at_most_for_a_lost_answer() {
        for fault in lost() {
            let mut world = World::start().await;
            let client = world.client("alice");
            let connection = world.connect(&client, "alice").await;
            let mut observer = Observer::of(&client).await;
            arm(&world, &fault, 1);
            world.clock.advance(IN_MARGIN);
            let old = token(&client).await.unwrap();
            assert!(old.generation == 1 && world.accepts(&old), "{fault:?}: a living token is served");
            assert_eq!(look(&client, &connection).await.state(), State::RefreshFailing);
            pass(&world, &client, Duration::from_secs(40), Duration::from_secs(5)).await;
            assert!(world.accepts(&token(&client).await.unwrap()), "{fault:?}: no alarm at the provider kills it");
            assert_eq!(world.refreshes(), 1);

            world.clock.advance(MINUTE);
            assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired, "{fault:?}");
            let seen = observer.until(Kind::ReauthorizationRequired).await;
            assert_eq!(seen.last().unwrap().status.as_ref().unwrap().reason(), Reason::RotationLost);
            assert_eq!(look(&client, &connection).await.reason(), Reason::RotationLost);
            pass(&world, &client, 60 * MINUTE, MINUTE).await;
            assert_eq!(world.refreshes(), 2, "{fault:?}");
            world.stop().await;
        }
    }

    #[tokio::test]
    async fn a_strict_provider_that_loses_two_answers_is_not_asked_a_third_time() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        arm(&world, &Fault::Drop, 1000);
        pass(&world, &client, 120 * MINUTE, Duration::from_secs(20)).await;
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
        assert_eq!(look(&client, &connection).await.reason(), Reason::RotationLost);
        assert_eq!(world.refreshes(), 2);
    }

    #[tokio::test]
    async fn within_a_providers_grace_a_lost_answer_is_asked_for_again_at_once() {
        for fault in lost() {
            let world = with_rotation(Rotation::Grace { seconds: 30 }).await;
            let client = world.client("alice");
            world.connect(&client, "alice").await;
            arm(&world, &fault, 1);
            world.clock.advance(IN_MARGIN);
            let fresh = token(&client).await.unwrap();
            assert!(fresh.generation == 2 && world.accepts(&fresh), "{fault:?}");
            assert_eq!(world.refreshes(), 2);
            world.clock.advance(LIFETIME);
            assert_eq!(generation(&client).await, 3);
            assert_eq!(reuses(&world), 0);
        }
    }

    #[tokio::test]
    async fn after_a_providers_grace_the_spent_token_is_not_sent_again() {
        let world = with_rotation(Rotation::Grace { seconds: 30 }).await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        arm(&world, &Fault::CommitThenDrop, 1000);
        world.clock.advance(IN_MARGIN);
        assert_eq!(generation(&client).await, 1);
        for _ in 0..120 {
            world.clock.advance(SECOND);
            // Waits for the flight of this second, if there is one.
            let _ = token(&client).await;
        }
        pass(&world, &client, 60 * MINUTE, MINUTE).await;
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
        assert_eq!(look(&client, &connection).await.reason(), Reason::RotationLost);
        assert!(world.refreshes() >= 2);
        assert_eq!(reuses(&world), 0, "the provider would end the grant");
    }

    #[tokio::test]
    async fn where_tokens_do_not_rotate_away_a_lost_answer_is_asked_for_again_freely() {
        for rotation in [Rotation::None, Rotation::Reuse] {
            let world = with_rotation(rotation).await;
            let client = world.client("alice");
            world.connect(&client, "alice").await;
            arm(&world, &Fault::CommitThenDrop, 5);
            world.clock.advance(IN_MARGIN);
            assert_eq!(generation(&client).await, 1, "{rotation:?}");
            pass(&world, &client, 5 * MINUTE, Duration::from_secs(5)).await;
            let fresh = token(&client).await.unwrap();
            assert!(fresh.generation == 2 && world.accepts(&fresh), "{rotation:?}");
            assert_eq!(world.refreshes(), 6);
        }
    }
}

mod crashes {
    use super::*;

    /// A broker that dies while the provider's answer to its refresh is on the way.
    async fn dies_in_flight(world: &mut World, client: Client, point: HoldPoint) {
        let hold = world.provider.faults().hold(Endpoint::Token, point);
        let call = tokio::spawn(async move { token(&client).await });
        in_time(hold.arrived(1)).await;
        world.crash().await;
        call.abort();
        drop(hold);
        world.run().await;
    }

    #[tokio::test]
    async fn a_rotation_that_a_crash_swallowed_is_tried_once_more_and_then_admitted() {
        let mut world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        world.clock.advance(IN_MARGIN);
        dies_in_flight(&mut world, client, HoldPoint::Answer).await;

        let client = world.client("alice");
        let old = token(&client).await.unwrap();
        assert!(old.generation == 1 && world.accepts(&old), "the living token is served meanwhile");
        assert_eq!(look(&client, &connection).await.state(), State::RefreshFailing);
        assert_eq!(world.refreshes(), 1);

        world.clock.advance(2 * MINUTE);
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
        assert_eq!(look(&client, &connection).await.reason(), Reason::RotationLost);
        world.restart().await;
        let client = world.client("alice");
        pass(&world, &client, 60 * MINUTE, MINUTE).await;
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
        assert_eq!(world.refreshes(), 2);
    }

    #[tokio::test]
    async fn a_refresh_that_a_crash_kept_from_happening_happens_after_it() {
        let mut world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        world.clock.advance(IN_MARGIN);
        arm(&world, &Fault::Drop, 1);
        dies_in_flight(&mut world, client, HoldPoint::Request).await;
        world.clock.advance(2 * MINUTE);
        let fresh = token(&world.client("alice")).await.unwrap();
        assert!(fresh.generation == 2 && world.accepts(&fresh));
        assert_eq!(world.refreshes(), 2);
    }

    #[tokio::test]
    async fn two_crashes_make_two_attempts_and_no_third() {
        let mut world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        arm(&world, &Fault::Drop, 2);
        world.clock.advance(LIFETIME);
        dies_in_flight(&mut world, client, HoldPoint::Request).await;
        world.clock.advance(MINUTE);
        let client = world.client("alice");
        dies_in_flight(&mut world, client, HoldPoint::Request).await;
        let client = world.client("alice");
        pass(&world, &client, 60 * MINUTE, MINUTE).await;
        assert_eq!(reason(token(&client).await), Reason::ReauthorizationRequired);
        assert_eq!(look(&client, &connection).await.reason(), Reason::RotationLost);
        assert_eq!(world.refreshes(), 2);
    }
}

mod what_callers_may_ask {
    use super::*;

    fn rejecting(token: &Token) -> v1::GetPluginTokenRequest {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.access_token.as_bytes());
        v1::GetPluginTokenRequest { rejected_token_sha256: digest.as_ref().to_vec(), ..ask(PLUGIN) }
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_once_a_cool_down_and_never_served_again() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let first = token(&client).await.unwrap();
        world.clock.advance(31 * SECOND);
        let second = client.get_plugin_token(rejecting(&first)).await.unwrap();
        assert_eq!(second.generation, 2);
        let error = client.get_plugin_token(rejecting(&second)).await.err().unwrap();
        assert_eq!((error.reason, error.retry_after), (Some(Reason::RateLimited), Some(30 * SECOND)));
        let again = client.get_plugin_token(rejecting(&first)).await.unwrap();
        assert_eq!(again.access_token, second.access_token, "there is a newer one than the rejected");
        assert_eq!(world.refreshes(), 1);
        world.clock.advance(30 * SECOND);
        assert_eq!(client.get_plugin_token(rejecting(&second)).await.unwrap().generation, 3);
    }

    #[tokio::test]
    async fn a_rejected_token_is_not_served_when_no_other_can_be_had() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let first = token(&client).await.unwrap();
        world.clock.advance(31 * SECOND);
        let second = client.get_plugin_token(rejecting(&first)).await.unwrap();
        arm(&world, &html(), 1000);
        world.clock.advance(31 * SECOND);
        assert_eq!(reason(client.get_plugin_token(rejecting(&second)).await), Reason::ProviderUnreachable);
        world.clock.advance(IN_MARGIN - 31 * SECOND);
        let served = client.get_plugin_token(rejecting(&first)).await.unwrap();
        assert_eq!(served.access_token, second.access_token, "an old rejection says nothing against a living token");
    }

    #[tokio::test]
    async fn short_lived_tokens_are_fresh_for_half_of_their_life() {
        for lifetime in [60, 10] {
            let access_token_lifetime = Duration::from_secs(lifetime);
            let world = World::start_with(Settings { access_token_lifetime, ..Settings::default() }).await;
            let client = world.client("alice");
            world.connect(&client, "alice").await;
            world.clock.advance(access_token_lifetime * 3 / 10);
            assert_eq!(generation(&client).await, 1, "{lifetime} s");
            world.clock.advance(access_token_lifetime * 3 / 10);
            let fresh = token(&client).await.unwrap();
            assert_eq!(fresh.generation, 2, "{lifetime} s");
            assert_eq!(fresh.expires_in.unwrap().seconds, i64::try_from(lifetime).unwrap());
            assert_eq!(world.refreshes(), 1);
        }
    }

    #[tokio::test]
    async fn asking_for_longer_than_any_token_lives_costs_one_refresh_a_call() {
        let world = World::start().await;
        let client = world.client("alice");
        world.connect(&client, "alice").await;
        let forever = v1::GetPluginTokenRequest { min_remaining: Some(seconds(3600)), ..ask(PLUGIN) };
        for calls in 1..=3 {
            let newest = client.get_plugin_token(forever.clone()).await.unwrap();
            assert_eq!((newest.generation, world.refreshes()), (calls + 1, calls));
            assert_eq!(newest.expires_in.unwrap().seconds, 600, "its true expiry");
        }
    }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}
