//! Watch streams over raw connections: how long their messages are, and what becomes of readers that pause.

use std::time::Duration;

use claviger::{
    client::Connect,
    domain::{
        Clock, ConnectionId, CredentialEvent, CredentialId, CredentialState, CredentialStatus, EventKind,
        PresentedToken, ScopeSet, SubjectId,
    },
    proto::v1::{
        self, WatchCredentialStatusRequest as WatchRequest, WatchCredentialStatusResponse as Message,
        token_broker_service_client::TokenBrokerServiceClient, watch_credential_status_request::Start,
        watch_credential_status_response::Body,
    },
};
use prost::Message as _;
use tokio::time::timeout;
use tonic::{Status, Streaming, transport::Endpoint};

use crate::{
    event_log,
    rig::{Rig, with_metadata},
    watch_validator::{History, assert_valid},
};

/// For whatever must come.
const PATIENCE: Duration = Duration::from_secs(120);
const LONGEST: usize = 256 * 1024;
/// Longer than a stream is silent.
const SILENCE: Duration = Duration::from_secs(34);

/// Somebody to whom much happens.
pub(crate) struct User<'a> {
    rig: &'a Rig,
    name: String,
    pub(crate) subject: SubjectId,
}

pub(crate) struct Watching {
    stream: Streaming<Message>,
    pub(crate) history: History,
}

impl<'a> User<'a> {
    pub(crate) async fn of(rig: &'a Rig, name: &str) -> Self {
        let asked = with_metadata(v1::ValidatePlatformTokenRequest::default(), &[("authorization", &rig.bearer(name))]);
        let said = rig.tokens().validate_platform_token(asked).await.unwrap().into_inner();
        Self { rig, name: name.to_owned(), subject: said.subject.parse().unwrap() }
    }

    /// One revision with so many events, each of another credential.
    pub(crate) async fn happens(&self, events: u32) -> u64 {
        let mut change = self.rig.vault.change(&"acme".parse().unwrap(), Some(self.subject)).await.unwrap();
        (0..events).for_each(|number| change.event(&self.event(number)));
        change.commit().await.unwrap().revision.0
    }

    fn event(&self, number: u32) -> CredentialEvent {
        let id: [u8; 16] = std::array::from_fn(|at| number.to_be_bytes().get(at).copied().unwrap_or(0));
        CredentialEvent {
            kind: EventKind::Refreshed,
            tenant: "acme".parse().unwrap(),
            occurred_at: self.rig.clock.now(),
            status: CredentialStatus {
                credential: CredentialId::from_bytes(id),
                connection: ConnectionId::from_bytes(id),
                subject: self.subject,
                agent: None,
                provider: "dev".parse().unwrap(),
                state: CredentialState::Connected,
                generation: 1,
                scopes: ScopeSet::default(),
                expires_at: None,
                reason: None,
                authorization_ends_at: None,
            },
        }
    }

    /// As far as it comes: until it has everything up to a revision, or is refused.
    pub(crate) async fn comes_to(&self, request: WatchRequest, revision: u64) -> (History, Result<Watching, Status>) {
        let asked = with_metadata(request.clone(), &[("authorization", &self.rig.bearer(&self.name))]);
        let messages = Vec::new();
        let history = History { subject: self.subject.to_string(), request, messages, must_reach: None };
        match self.rig.tokens().watch_credential_status(asked).await {
            Err(refused) => (history, Err(refused)),
            Ok(stream) => Watching { stream: stream.into_inner(), history }.comes_to(revision).await,
        }
    }

    /// On a connection of its own, whose streams take so many bytes unread.
    pub(crate) async fn watches(&self, start: Start, window: u32) -> Watching {
        self.asks(WatchRequest { start: Some(start), ..Default::default() }, window).await
    }

    pub(crate) async fn asks(&self, request: WatchRequest, window: u32) -> Watching {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.rig.address)).unwrap();
        let channel = endpoint.initial_stream_window_size(window).connect().await.unwrap();
        let asked = with_metadata(request.clone(), &[("authorization", &self.rig.bearer(&self.name))]);
        let stream = TokenBrokerServiceClient::new(channel).watch_credential_status(asked).await.unwrap().into_inner();
        self.watching(stream, request).await
    }

    pub(crate) async fn watching(&self, stream: Streaming<Message>, request: WatchRequest) -> Watching {
        let history = History { subject: self.subject.to_string(), request, messages: Vec::new(), must_reach: None };
        let mut watching = Watching { stream, history };
        assert!(matches!(watching.next().await, Body::Opened(_)));
        watching
    }
}

impl Watching {
    pub(crate) async fn next(&mut self) -> Body {
        let message = timeout(PATIENCE, self.stream.message()).await.expect("something comes");
        let message = message.expect("the stream goes on").expect("the stream has not ended");
        assert!(message.encoded_len() <= LONGEST, "{} bytes", message.encoded_len());
        self.history.messages.push(message.clone());
        message.body.unwrap()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.history.messages.last().unwrap().revision
    }

    pub(crate) fn token(&self) -> Vec<u8> {
        self.history.messages.last().unwrap().resume_token.clone()
    }

    /// As [`User::comes_to`].
    pub(crate) async fn comes_to(mut self, revision: u64) -> (History, Result<Self, Status>) {
        loop {
            match timeout(PATIENCE, self.stream.message()).await.expect("something comes") {
                Ok(message) => {
                    let message = message.expect("it does not end well");
                    self.history.messages.push(message);
                }
                Err(ended) => return (self.history, Err(ended)),
            }
            let last = self.history.messages.last().unwrap();
            let is_position = !matches!(last.body, Some(Body::Opened(_))) && !last.resume_token.is_empty();
            if is_position && last.revision >= revision {
                return (self.history.clone(), Ok(self));
            }
        }
    }

    /// Reads on until everything up to `revision` has come.
    pub(crate) async fn read_to(&mut self, revision: u64) {
        self.history.must_reach = Some(revision);
        while self.revision() < revision || self.token().is_empty() {
            self.next().await;
        }
    }
}

#[tokio::test]
async fn ten_thousand_events_of_one_revision_are_fragments_of_one_whole() {
    let rig = Rig::start().await;
    let alice = User::of(&rig, "alice").await;
    let mut broken_off = alice.watches(Start::Now(true), 64 * 1024).await;
    let begun = broken_off.token();
    let revision = alice.happens(10_000).await;
    for _ in 0..2 {
        let Body::Batch(fragment) = broken_off.next().await else { panic!("nothing else has happened") };
        assert!(fragment.more_follows && broken_off.token().is_empty(), "there is nothing to resume from inside");
    }
    drop(broken_off.stream);

    let mut resumed = alice.watches(Start::ResumeToken(begun), 64 * 1024).await;
    resumed.read_to(revision).await;
    let fragments = || resumed.history.messages.iter().skip(1);
    assert!(fragments().count() > 4 && fragments().all(|fragment| fragment.revision == revision));
    assert!(fragments().rev().skip(1).all(|fragment| fragment.encoded_len() > 60 * 1024), "they are not wasted");
    assert_valid(&event_log::read(&rig.vault).await, &[broken_off.history, resumed.history]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_not_told_ahead_of_what_a_lagging_stream_has_still_to_get() {
    let rig = Rig::start().await;
    let (alice, bob) = (User::of(&rig, "alice").await, User::of(&rig, "bob").await);
    // So little that it stalls after two or three events, and leaves more unread than is kept for it.
    let mut lagging = alice.watches(Start::Now(true), 1024).await;
    let mut last = lagging.revision();
    for (round, events) in [0, 1, 40, 0, 3, 100, 1, 0, 33, 32, 2, 64].into_iter().cycle().take(36).enumerate() {
        if round % 2 == 0 {
            rig.clock.advance(SILENCE);
        }
        for _ in 0..events {
            last = alice.happens(1).await;
        }
        bob.happens(1).await;
        if round % 3 == 0 {
            rig.clock.advance(SILENCE);
        }
        match round % 4 {
            0 => lagging.read_to(last).await,
            1 => {
                for _ in 0..7 {
                    if lagging.revision() < last {
                        lagging.next().await;
                    }
                }
            }
            _ => {}
        }
    }
    lagging.read_to(last).await;
    let progress = |message: &&Message| matches!(message.body, Some(Body::Progress(_)));
    assert!(lagging.history.messages.iter().filter(progress).count() > 3, "there was progress to tell");
    assert_valid(&event_log::read(&rig.vault).await, &[lagging.history]);
}

/// HTTP/2 libraries end a connection that carries many small unread frames (RUSTSEC-2026-0258); how many is up to the window
/// that the client gave it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_may_leave_many_small_messages_on_many_streams_unread() {
    const STREAMS: usize = 60;
    const EVENTS: usize = 100;
    let rig = Rig::start().await;
    let alice = User::of(&rig, "alice").await;
    let connect = Connect { endpoint: format!("http://{}", rig.address), ..Connect::default() };
    let client = connect.with_token(&PresentedToken::new(rig.token("alice"))).unwrap();
    let mut paused = Vec::new();
    for _ in 0..STREAMS {
        let request = WatchRequest { start: Some(Start::Now(true)), ..Default::default() };
        let stream = client.watch_credential_status(request.clone()).await.unwrap();
        paused.push(alice.watching(stream, request).await);
    }
    // Read along, so that each event is on its way to the others before the next one happens.
    let mut reading = alice.watches(Start::Now(true), 64 * 1024).await;
    for _ in 0..EVENTS {
        let revision = alice.happens(1).await;
        reading.read_to(revision).await;
    }
    let last = reading.revision();
    let mut histories = vec![reading.history];
    for mut watching in paused {
        watching.read_to(last).await;
        histories.push(watching.history);
    }
    assert_valid(&event_log::read(&rig.vault).await, &histories);
}

/// What the broker makes at the same time.
const SNAPSHOTS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_cold_watchers_wait_for_their_snapshots_and_nobody_else_does() {
    const EACH: usize = 8;
    let rig = Rig::start().await;
    // Of one user only two are made at the same time.
    let names: Vec<_> = (0..SNAPSHOTS / 2 + 4).map(|number| format!("user-{number}")).collect();
    let mut users = Vec::new();
    for name in &names {
        users.push(User::of(&rig, name).await);
    }
    rig.gate.close();
    let mut cold = Vec::new();
    for user in &users {
        let channel = Endpoint::from_shared(format!("http://{}", rig.address)).unwrap().connect().await.unwrap();
        for _ in 0..EACH {
            let asked = with_metadata(WatchRequest::default(), &[("authorization", &rig.bearer(&user.name))]);
            let stream = TokenBrokerServiceClient::new(channel.clone()).watch_credential_status(asked).await;
            cold.push(user.watching(stream.unwrap().into_inner(), WatchRequest::default()).await);
        }
    }
    timeout(PATIENCE, rig.gate.reached_by(SNAPSHOTS)).await.expect("nobody takes a snapshot");
    // While they wait, other calls are answered, and a watcher that needs no snapshot hears what happens.
    let dave = User::of(&rig, "dave").await;
    let mut warm = dave.watches(Start::Now(true), 64 * 1024).await;
    let happened = dave.happens(1).await;
    warm.read_to(happened).await;
    for user in &users {
        User::of(&rig, &user.name).await;
    }
    assert_eq!(rig.gate.most(), SNAPSHOTS, "all of them are made at the same time");

    rig.gate.open();
    let mut histories = vec![warm.history];
    for mut watching in cold {
        while !matches!(watching.next().await, Body::SnapshotEnd(_)) {}
        histories.push(watching.history);
    }
    assert_eq!(rig.gate.most(), SNAPSHOTS);
    assert_valid(&event_log::read(&rig.vault).await, &histories);
}
