//! Revoking: nothing is served afterwards, whatever the provider does, and the provider is told until it has answered.

use std::time::Duration;

use claviger::{
    client::ClientError,
    dev::{Answer, Endpoint, Fault, HoldPoint, visitor::Decision},
    proto::v1::{
        self, CredentialEventKind as Kind, CredentialState as State, ErrorReason as Reason, LocalOutcome as Local,
        RemoteOutcome as Remote, revoke_request::Target,
    },
};
use http::StatusCode;

use crate::{
    heard::Client,
    observer::{Observer, in_time},
    world::{MINUTE, PLUGIN, World, ask, reason, revoke_all, start},
};

mod interleavings;

const IN_MARGIN: Duration = Duration::from_secs(541);

fn request(target: Target) -> v1::RevokeRequest {
    v1::RevokeRequest { target: Some(target), preview: false }
}

fn of(connection: &v1::Connection) -> v1::RevokeRequest {
    request(Target::ConnectionId(connection.connection_id.clone()))
}

async fn revoke(client: &Client, request: v1::RevokeRequest) -> Result<Vec<v1::RevokeResult>, ClientError> {
    Ok(in_time(client.revoke(request)).await?.results)
}

fn outcomes(results: &[v1::RevokeResult]) -> Vec<(Local, Remote)> {
    results.iter().map(|result| (result.local_outcome(), result.remote_outcome())).collect()
}

async fn listed(client: &Client) -> Vec<String> {
    let answer = client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    answer.connections.into_iter().map(|connection| connection.connection_id).collect()
}

async fn look(client: &Client, connection: &v1::Connection) -> v1::Connection {
    let request = v1::GetConnectionRequest { connection_id: connection.connection_id.clone() };
    client.get_connection(request).await.unwrap().connection.unwrap()
}

/// Connects the account that this provider user logs in to, beside those that are connected.
async fn connect_account(world: &World, client: &Client, user: &str) -> v1::Connection {
    let started = client.start_authorization(start(PLUGIN)).await.unwrap();
    let answer = world.visit(&started.authorization_url, user, Decision::Approve).await;
    world.store(client, &answer).await.unwrap()
}

async fn stopped(observer: &mut Observer, state: State) {
    let seen = observer.until(Kind::Revoked).await;
    assert_eq!(seen.last().unwrap().status.as_ref().unwrap().state(), state);
}

fn unavailable() -> Fault {
    Fault::Answer(Answer::new(StatusCode::SERVICE_UNAVAILABLE, ""))
}

mod beside_a_refresh {
    use super::*;

    /// Revokes while a refresh is held at the provider, and lets it go once the broker has stopped serving.
    async fn revoked_in_flight(point: HoldPoint, fault: Option<Fault>) -> World {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let mut observer = Observer::of(&client).await;
        if let Some(fault) = fault {
            world.provider.faults().arm(Endpoint::Token, fault, 1);
        }
        let hold = world.provider.faults().hold(Endpoint::Token, point);
        world.clock.advance(IN_MARGIN);
        let caller = client.clone();
        let call = tokio::spawn(async move { caller.get_plugin_token(ask(PLUGIN)).await });
        in_time(hold.arrived(1)).await;
        let (revoker, target) = (client.clone(), of(&connection));
        let revoking = tokio::spawn(async move { revoke(&revoker, target).await.unwrap() });
        stopped(&mut observer, State::Revoking).await;
        for _ in 0..20 {
            assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
        }
        assert!(!revoking.is_finished(), "what is revoked is the newest token, so the refresh is waited for");
        assert_eq!(world.provider.stats().requests(Endpoint::Revoke), 0);
        hold.release();
        assert_eq!(outcomes(&revoking.await.unwrap()), [(Local::Stopped, Remote::Confirmed)]);
        assert_eq!(reason(call.await.unwrap()), Reason::ConsentRequired, "the refreshed token is served to nobody");
        assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
        let end = look(&client, &connection).await;
        assert_eq!((end.state(), end.generation), (State::Revoked, 1));
        world
    }

    #[tokio::test]
    async fn the_token_that_a_refresh_brings_during_a_revocation_is_revoked_and_not_served() {
        let mut world = revoked_in_flight(HoldPoint::Answer, None).await;
        assert_eq!((world.refreshes(), world.live_refresh_tokens()), (1, 0));
        world.stop().await;
    }

    #[tokio::test]
    async fn a_refresh_that_had_not_begun_at_the_provider_is_revoked_after_it() {
        let mut world = revoked_in_flight(HoldPoint::Request, None).await;
        assert_eq!((world.refreshes(), world.live_refresh_tokens()), (1, 0));
        world.stop().await;
    }

    #[tokio::test]
    async fn a_refresh_that_fails_during_a_revocation_changes_nothing_about_it() {
        for fault in [unavailable(), Fault::Drop, Fault::CommitThenDrop] {
            let mut world = revoked_in_flight(HoldPoint::Request, Some(fault)).await;
            assert_eq!((world.refreshes(), world.live_refresh_tokens()), (1, 0));
            world.stop().await;
        }
    }
}

mod beside_a_read {
    use claviger::{
        broker::{Revoke, RevokeTarget},
        domain::Reason,
    };

    use crate::{
        installation::{Installation, authorize, call, store, token},
        observer::in_time,
    };

    #[tokio::test]
    async fn a_read_that_began_before_a_revocation_and_ends_after_it_gets_nothing() {
        let installation = Installation::new().await;
        let (broker, disk) = installation.start().await;
        let answer = authorize(&installation.world, &broker, 1).await;
        let connection = store(&broker, &answer, 1).await.unwrap();
        // The read has chosen its token, and is about to be recorded.
        let (recording, record) = disk.pause_next_commit();
        let reader = broker.clone();
        let reading = tokio::spawn(async move { token(&reader, 1).await });
        in_time(recording).await.unwrap();
        let request = Revoke { target: RevokeTarget::Connection(connection.id), preview: false };
        assert!(broker.revoke(&call(1), request).await.unwrap_or_default()[0].stopped);
        record.send(()).unwrap();
        let refusal = in_time(reading).await.unwrap().err().unwrap();
        assert_eq!(refusal.reason(), Reason::ConsentRequired);
    }
}

mod without_the_provider {
    use super::*;

    #[tokio::test]
    async fn access_ends_here_at_once_and_the_provider_is_told_when_it_is_back() {
        for fault in [unavailable(), Fault::Drop] {
            let mut world = World::start().await;
            let client = world.client("alice");
            let connection = world.connect(&client, "alice").await;
            let mut observer = Observer::of(&client).await;
            world.provider.faults().arm(Endpoint::Revoke, fault.clone(), 1000);
            assert_eq!(outcomes(&revoke(&client, of(&connection)).await.unwrap()), [(Local::Stopped, Remote::Pending)]);
            stopped(&mut observer, State::Revoking).await;
            assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
            assert_eq!(world.live_refresh_tokens(), 1, "{fault:?}: it still counts there");
            assert_eq!(look(&client, &connection).await.state(), State::Revoking);

            world.restart().await;
            let client = world.client("alice");
            let mut observer = Observer::after(observer, &client).await;
            for _ in 0..60 {
                world.clock.advance(MINUTE);
                assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
            }
            let asked = world.provider.stats().requests(Endpoint::Revoke);
            assert!((4..=14).contains(&asked), "{fault:?}: asked {asked} times in an hour");

            world.provider.faults().clear();
            world.clock.advance(120 * MINUTE);
            stopped(&mut observer, State::Revoked).await;
            assert_eq!(world.live_refresh_tokens(), 0, "{fault:?}");
            assert_eq!(look(&client, &connection).await.state(), State::Revoked);
            let again = outcomes(&revoke(&client, of(&connection)).await.unwrap());
            assert_eq!(again, [(Local::AlreadyStopped, Remote::Confirmed)]);
            world.stop().await;
        }
    }

    #[tokio::test]
    async fn one_provider_call_that_hangs_keeps_no_connection_serving() {
        let mut world = World::start().await;
        let client = world.client("alice");
        connect_account(&world, &client, "alice").await;
        connect_account(&world, &client, "bob").await;
        let mut observer = Observer::of(&client).await;
        let hold = world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Request);
        let revoker = client.clone();
        let revoking = tokio::spawn(async move { revoke(&revoker, revoke_all()).await.unwrap() });
        stopped(&mut observer, State::Revoking).await;
        stopped(&mut observer, State::Revoking).await;
        assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
        in_time(hold.arrived(2)).await;
        hold.release();
        assert_eq!(outcomes(&revoking.await.unwrap()), [(Local::Stopped, Remote::Confirmed); 2]);
        assert_eq!(world.live_refresh_tokens(), 0);
        world.stop().await;
    }
}

mod without_the_caller {
    use super::*;

    #[tokio::test]
    async fn a_revocation_goes_on_when_its_caller_has_gone() {
        let mut world = World::start().await;
        let client = world.client("alice");
        connect_account(&world, &client, "alice").await;
        connect_account(&world, &client, "bob").await;
        let mut observer = Observer::of(&client).await;
        let hold = world.provider.faults().hold(Endpoint::Revoke, HoldPoint::Request);
        let revoker = client.clone();
        let call = tokio::spawn(async move { revoker.revoke(revoke_all()).await });
        in_time(hold.arrived(1)).await;
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
        hold.release();
        let mut ended = 0;
        while ended < 2 {
            let seen = observer.until(Kind::Revoked).await;
            ended += usize::from(seen.last().unwrap().status.as_ref().unwrap().state() == State::Revoked);
        }
        assert_eq!(world.live_refresh_tokens(), 0);
        assert!(listed(&client).await.is_empty());
        world.stop().await;
    }
}

mod targets {
    use super::*;

    #[tokio::test]
    async fn a_preview_says_what_would_happen_and_changes_nothing() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        for target in [
            Target::ConnectionId(connection.connection_id.clone()),
            Target::Plugin(PLUGIN.to_owned()),
            Target::AllMine(true),
        ] {
            let preview = v1::RevokeRequest { target: Some(target), preview: true };
            let results = revoke(&client, preview).await.unwrap();
            assert_eq!(outcomes(&results), [(Local::Stopped, Remote::Pending)]);
            assert_eq!(results[0].connection_id, connection.connection_id);
        }
        assert_eq!(look(&client, &connection).await, connection);
        assert!(world.accepts(&client.get_plugin_token(ask(PLUGIN)).await.unwrap()));
        assert_eq!(world.provider.stats().requests(Endpoint::Revoke), 0);

        revoke(&client, of(&connection)).await.unwrap();
        let preview = v1::RevokeRequest { preview: true, ..of(&connection) };
        let again = outcomes(&revoke(&client, preview).await.unwrap());
        assert_eq!(again, [(Local::AlreadyStopped, Remote::Confirmed)]);
    }

    #[tokio::test]
    async fn all_of_mine_are_mine_alone() {
        let world = World::start().await;
        let (alice, bob) = (world.client("alice"), world.client("bob"));
        connect_account(&world, &alice, "alice").await;
        connect_account(&world, &alice, "bob").await;
        world.connect(&bob, "bob").await;
        let results = revoke(&alice, revoke_all()).await.unwrap();
        assert_eq!(outcomes(&results), [(Local::Stopped, Remote::Confirmed); 2]);
        assert!(world.accepts(&bob.get_plugin_token(ask(PLUGIN)).await.unwrap()));
        assert_eq!(world.live_refresh_tokens(), 1);
        assert!(revoke(&alice, revoke_all()).await.unwrap().is_empty(), "nothing to revoke is no error");
    }

    #[tokio::test]
    async fn a_plugin_means_every_connection_that_serves_it() {
        let world = World::start().await;
        let client = world.client("alice");
        connect_account(&world, &client, "alice").await;
        connect_account(&world, &client, "bob").await;
        let results = revoke(&client, request(Target::Plugin(PLUGIN.to_owned()))).await.unwrap();
        assert_eq!(outcomes(&results), [(Local::Stopped, Remote::Confirmed); 2]);
        assert_eq!(world.live_refresh_tokens(), 0);
        let unknown = request(Target::Plugin("no-such-plugin".to_owned()));
        assert_eq!(reason(revoke(&client, unknown).await), Reason::PluginUnknown);
    }

    #[tokio::test]
    async fn somebody_elses_connection_does_not_exist() {
        let world = World::start().await;
        let (alice, bob) = (world.client("alice"), world.client("bob"));
        let connection = world.connect(&alice, "alice").await;
        assert_eq!(reason(revoke(&bob, of(&connection)).await), Reason::ConnectionNotFound);
        let preview = v1::RevokeRequest { preview: true, ..of(&connection) };
        assert_eq!(reason(revoke(&bob, preview).await), Reason::ConnectionNotFound);
        assert!(world.accepts(&alice.get_plugin_token(ask(PLUGIN)).await.unwrap()));
    }

    #[tokio::test]
    async fn what_is_revoked_leaves_the_list_stays_to_be_seen_and_is_not_revived() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let first = outcomes(&revoke(&client, of(&connection)).await.unwrap());
        assert_eq!(first, [(Local::Stopped, Remote::Confirmed)]);
        let again = outcomes(&revoke(&client, of(&connection)).await.unwrap());
        assert_eq!(again, [(Local::AlreadyStopped, Remote::Confirmed)]);
        assert!(listed(&client).await.is_empty());
        assert_eq!(look(&client, &connection).await.state(), State::Revoked);

        let new = world.connect(&client, "alice").await;
        assert_ne!(new.connection_id, connection.connection_id);
        assert_eq!(new.generation, 1);
        assert_eq!(listed(&client).await, [new.connection_id]);
        assert_eq!(look(&client, &connection).await.state(), State::Revoked);
        assert!(world.accepts(&client.get_plugin_token(ask(PLUGIN)).await.unwrap()));
    }

    #[tokio::test]
    async fn a_dead_connection_can_be_revoked() {
        let world = World::start().await;
        let client = world.client("alice");
        let connection = world.connect(&client, "alice").await;
        let refused = Answer::json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": "invalid_grant" }));
        world.provider.faults().arm(Endpoint::Token, Fault::Answer(refused), 1);
        world.clock.advance(IN_MARGIN);
        assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ReauthorizationRequired);
        let results = revoke(&client, of(&connection)).await.unwrap();
        assert_eq!(outcomes(&results), [(Local::Stopped, Remote::Confirmed)]);
        assert_eq!(world.live_refresh_tokens(), 0);
        assert_eq!(reason(client.get_plugin_token(ask(PLUGIN)).await), Reason::ConsentRequired);
    }
}
