//! A broker, the client, and the way between them.

use std::{future::Future, time::Duration};

use claviger::{
    domain::PresentedToken,
    proto::v1::{
        self, CredentialState as State, WatchCredentialStatusResponse as Message,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
};
use tokio::{sync::RwLockReadGuard, time::timeout};

use crate::{
    event_log,
    heard::Client,
    program::{Opened, Program, STARTING, View, there_is_python},
    records::Records,
    relay::Relay,
    watch_validator::{History, Log, assert_valid},
    world::{PLUGIN, Settings, World, ask, claims},
};

/// Access tokens outlive every test.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longer than anything here takes. What has not come by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) relay: Relay,
    pub(crate) program: Program,
    pub(crate) alice: Client,
    /// No program is started meanwhile.
    stopped: Option<RwLockReadGuard<'static, ()>>,
}

impl Place {
    /// With what alice has connected before the client starts. `None`: there is no Python for it.
    pub(crate) async fn start(accounts: &[&str]) -> Option<Self> {
        Self::start_with(accounts, |world| world.token("alice", &claims()), |_| Vec::new()).await
    }

    pub(crate) async fn start_with(
        accounts: &[&str],
        token: impl FnOnce(&World) -> PresentedToken,
        arguments: impl FnOnce(&[v1::Connection]) -> Vec<String>,
    ) -> Option<Self> {
        if !there_is_python() {
            return None;
        }
        let world = World::start_with(Settings { access_token_lifetime: WEEK, ..Settings::default() }).await;
        let alice = world.client("alice");
        let mut connections = Vec::new();
        for account in accounts {
            connections.push(world.connect(&alice, account).await);
        }
        let relay = Relay::to(world.grpc()).await;
        let token = token(&world);
        let program = Program::start(relay.address, token.expose(), &arguments(&connections)).await;
        Some(Self { world, relay, program, alice, stopped: None })
    }

    /// A process that is being started holds what is open at that moment for an instant, the lock of the store among it:
    /// from here until the broker runs again, none is.
    pub(crate) async fn stop(&mut self) {
        self.stopped = Some(STARTING.read().await);
        self.world.stop().await;
    }

    pub(crate) async fn run(&mut self) {
        self.world.run().await;
        self.runs();
    }

    /// The broker was started otherwise.
    pub(crate) fn runs(&mut self) {
        self.stopped = None;
        self.alice = self.world.client("alice");
    }

    /// Waits until the client knows what the broker lists, of those that `wanted` holds for.
    pub(crate) async fn client_knows(&mut self, wanted: impl Fn(&v1::Connection) -> bool) {
        loop {
            let listed = self.alice.list_connections(v1::ListConnectionsRequest::default()).await.unwrap().connections;
            let is_over = |state| matches!(state, State::Revoking | State::Revoked);
            let present = listed.into_iter().filter(|connection| wanted(connection) && !is_over(connection.state()));
            let present: View =
                present.map(|connection| (connection.credential_id.clone(), told(&connection))).collect();
            if self.program.view() == present {
                return;
            }
            assert!(self.program.hear().await, "it ended and knew {:#?}, not {present:#?}", self.program.view());
        }
    }

    pub(crate) async fn client_knows_all(&mut self) {
        self.client_knows(|_| true).await;
    }

    pub(crate) async fn refresh(&self, account: &str) {
        // Longer than any of the provider's tokens lives: it must be fetched.
        let years = prost_types::Duration { seconds: 20 * 365 * 24 * 3600, nanos: 0 };
        let request =
            v1::GetPluginTokenRequest { account: account.to_owned(), min_remaining: Some(years), ..ask(PLUGIN) };
        self.alice.get_plugin_token(request).await.unwrap();
    }

    pub(crate) async fn revoke(&self, connection: &v1::Connection) {
        let target = Some(v1::revoke_request::Target::ConnectionId(connection.connection_id.clone()));
        self.alice.revoke(v1::RevokeRequest { target, ..Default::default() }).await.unwrap();
    }

    pub(crate) async fn connections(&self) -> Vec<v1::Connection> {
        self.alice.list_connections(v1::ListConnectionsRequest::default()).await.unwrap().connections
    }

    pub(crate) async fn connection_of(&self, account: &str) -> v1::Connection {
        self.connections().await.into_iter().find(|connection| connection.account == account).unwrap()
    }

    pub(crate) async fn subject(&self) -> String {
        self.alice.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap().subject
    }

    /// What the broker has logged, once it has stopped.
    pub(crate) async fn log(&self) -> Log {
        let records = Records::open(&self.world).await;
        let log = event_log::read(&records.vault).await;
        records.close().await;
        log
    }

    /// Ends everything, and holds what the client received against the log.
    pub(crate) async fn judge(mut self) -> Vec<Opened> {
        let subject = self.subject().await;
        let streams = self.program.interrupt().await;
        self.stop().await;
        assert_valid(&self.log().await, &histories(&subject, &streams));
        streams
    }
}

pub(crate) fn histories(subject: &str, streams: &[Opened]) -> Vec<History> {
    let history = |opened: &Opened| History {
        subject: subject.to_owned(),
        request: opened.request.clone(),
        messages: opened.messages.clone(),
        must_reach: None,
    };
    streams.iter().map(history).collect()
}

/// Whether each stream that came to stand was opened for a snapshot.
pub(crate) fn snapshots(streams: &[Opened]) -> Vec<bool> {
    let stood = streams.iter().filter(|stream| !stream.messages.is_empty());
    stood.map(|stream| matches!(stream.request.start, Some(Start::Snapshot(_)))).collect()
}

pub(crate) fn bodies(streams: &[Opened]) -> impl Iterator<Item = &Body> {
    streams.iter().flat_map(|stream| &stream.messages).filter_map(|message| message.body.as_ref())
}

/// No batch came twice, on whichever streams.
#[track_caller]
pub(crate) fn assert_none_came_twice(streams: &[Opened]) {
    let whole = |message: &&Message| matches!(&message.body, Some(Body::Batch(batch)) if !batch.more_follows);
    let batches = streams.iter().flat_map(|stream| &stream.messages).filter(whole);
    let revisions: Vec<_> = batches.map(|message| message.revision).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
}

/// As the client prints it.
fn told(connection: &v1::Connection) -> String {
    format!("{} generation {} at {}", connection.state().as_str_name(), connection.generation, connection.provider)
}

/// Bounds what would hang, so that it fails.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens at all")
}
