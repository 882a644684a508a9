//! The status stream: W1 to W7 as they arrive over a socket.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use claviger::{
    app::App,
    broker::{self, BrokerError, Delivery, DrainReason, OnLost, Watch, WatchFilter, WatchMessage},
    client::ClientError,
    config::Config,
    dev::{Fault, PlatformClaims},
    domain::{Call, CallContext, Caller, Role, ScopeSet, SubjectId},
    proto::v1::{
        self, CredentialEventKind as Kind, ErrorReason, WatchCredentialStatusResponse as Message,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
    sealing::Random,
};
use prost::Message as _;
use tokio::{task::JoinSet, time::timeout};
use tokio_stream::StreamExt as _;

use crate::heard::{Client, Listening};
use crate::world::{MINUTE, PLUGIN, Settings, World, ask, claims, reason, revoke_all, start};

const SOON: Duration = Duration::from_secs(20);

/// A stream, and everything that it has said, held against the guarantees as it arrives.
struct Watcher {
    stream: Listening,
    heard: Vec<Message>,
    revision: u64,
    /// What a client would show: the newest status of each credential.
    view: BTreeMap<String, v1::CredentialStatus>,
    snapshot: Option<u64>,
}

fn watch() -> v1::WatchCredentialStatusRequest {
    v1::WatchCredentialStatusRequest::default()
}

fn from(token: &[u8]) -> v1::WatchCredentialStatusRequest {
    v1::WatchCredentialStatusRequest { start: Some(Start::ResumeToken(token.to_vec())), ..watch() }
}

fn from_now() -> v1::WatchCredentialStatusRequest {
    v1::WatchCredentialStatusRequest { start: Some(Start::Now(true)), ..watch() }
}

impl Watcher {
    async fn open(client: &Client, request: v1::WatchCredentialStatusRequest) -> Self {
        let stream = client.watch_credential_status(request).await.unwrap();
        let (heard, view) = (Vec::new(), BTreeMap::new());
        let mut watcher = Self { stream, heard, revision: 0, view, snapshot: None };
        let first = watcher.next().await;
        assert!(matches!(first.body, Some(Body::Opened(_))), "the first message is `opened`");
        watcher
    }

    /// As [`Watcher::open`], until the snapshot is complete.
    async fn open_with_snapshot(client: &Client) -> Self {
        let mut watcher = Self::open(client, watch()).await;
        while !matches!(watcher.next().await.body, Some(Body::SnapshotEnd(_))) {}
        watcher
    }

    async fn next(&mut self) -> Message {
        self.try_next().await.expect("the stream goes on").expect("the stream has not ended")
    }

    /// `Ok(None)`: the stream ended well.
    async fn try_next(&mut self) -> Result<Option<Message>, ClientError> {
        let message = timeout(SOON, self.stream.message()).await.expect("something comes")?;
        if let Some(message) = &message {
            self.judge(message);
            self.heard.push(message.clone());
        }
        Ok(message)
    }

    fn judge(&mut self, message: &Message) {
        let goes_on =
            matches!(self.heard.last().map(|last| &last.body), Some(Some(Body::Batch(batch))) if batch.more_follows);
        match message.body.as_ref().unwrap() {
            Body::Batch(batch) => {
                // W1 and W4: revisions rise, and each comes once, whole.
                let expected =
                    if goes_on { message.revision == self.revision } else { message.revision > self.revision };
                assert!(expected, "revision {} after {}", message.revision, self.revision);
                assert!(!batch.events.is_empty());
                assert_eq!(message.resume_token.is_empty(), batch.more_follows, "a token stands on whole revisions");
                for event in &batch.events {
                    self.judge_event(event);
                }
            }
            Body::Snapshot(snapshot) => {
                for status in &snapshot.statuses {
                    let before = self.view.insert(status.credential_id.clone(), status.clone());
                    assert!(before.is_none(), "a snapshot lists each credential once");
                }
            }
            Body::SnapshotEnd(_) => self.snapshot = Some(message.revision),
            Body::Progress(_) => assert!(!goes_on && !message.resume_token.is_empty()),
            Body::Opened(_) | Body::Resync(_) | Body::Drain(_) => {}
        }
        assert!(message.revision >= self.revision, "revisions never fall");
        self.revision = message.revision;
    }

    /// W2 and W3, as far as one credential shows them: generations rise by one, and no event is seen twice.
    fn judge_event(&mut self, event: &v1::CredentialEvent) {
        let status = event.status.clone().unwrap();
        let before = self.view.get(&status.credential_id).map_or(0, |before| before.generation);
        match event.kind() {
            Kind::Connected | Kind::Refreshed => assert_eq!(status.generation, before + 1, "{:?}", event.kind()),
            _ => assert_eq!(status.generation, before, "{:?}", event.kind()),
        }
        self.view.insert(status.credential_id.clone(), status);
    }

    /// The next batch's kinds; progress is passed over.
    async fn events(&mut self) -> Vec<(Kind, u64)> {
        loop {
            if let Some(Body::Batch(batch)) = self.next().await.body {
                return batch.events.iter().map(|event| (event.kind(), generation(event))).collect();
            }
        }
    }

    async fn drained(&mut self) -> (v1::WatchDrain, Message) {
        loop {
            let message = self.next().await;
            if let Some(Body::Drain(drain)) = message.body {
                return (drain, message);
            }
        }
    }

    fn token(&self) -> Vec<u8> {
        let last = self.heard.iter().rev().find(|message| !message.resume_token.is_empty());
        last.expect("a token was sent").resume_token.clone()
    }
}

fn generation(event: &v1::CredentialEvent) -> u64 {
    event.status.as_ref().unwrap().generation
}

/// Refreshes the caller's token by asking when it is stale.
async fn refresh(world: &World, client: &Client) -> u64 {
    world.clock.advance(9 * MINUTE + Duration::from_secs(30));
    client.get_plugin_token(ask(PLUGIN)).await.unwrap().generation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_opens_at_once_and_an_empty_snapshot_is_said_to_be_empty() {
    let world = World::start().await;
    let mut watcher = Watcher::open(&world.client("alice"), watch()).await;
    let Some(Body::Opened(opened)) = watcher.heard[0].body.clone() else { panic!("it opened") };
    assert_eq!(opened.progress_interval, Some(prost_types::Duration { seconds: 30, nanos: 0 }));
    assert_eq!(opened.delivery(), v1::Delivery::EveryEvent);
    assert_eq!(opened.on_lost(), v1::OnLost::Fail);
    assert!(watcher.heard[0].resume_token.is_empty(), "before the snapshot there is nothing to continue");
    let end = watcher.next().await;
    assert!(matches!(end.body, Some(Body::SnapshotEnd(_))));
    assert!(end.revision >= opened.head_revision && !end.resume_token.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_after_the_snapshot_comes_in_order_and_once() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let mut watcher = Watcher::open_with_snapshot(&alice).await;
    assert_eq!(watcher.view.len(), 1);
    for wanted in 2..=4 {
        refresh(&world, &alice).await;
        assert_eq!(watcher.events().await, [(Kind::Refreshed, wanted)]);
    }
    alice.revoke(revoke_all()).await.unwrap();
    assert_eq!(watcher.events().await, [(Kind::Revoked, 4)], "stopped");
    assert_eq!(watcher.events().await, [(Kind::Revoked, 4)], "confirmed");
    let states: Vec<_> = watcher.view.values().map(v1::CredentialStatus::state).collect();
    assert_eq!(states, [v1::CredentialState::Revoked]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_as_of_its_revision_whatever_changes_meanwhile() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    world.connect(&alice, "bob").await;
    let mut last = Watcher::open_with_snapshot(&alice).await;
    for _ in 0..6 {
        // Both are stale at once: the scheduler refreshes them while the snapshots are taken.
        world.clock.advance(9 * MINUTE + Duration::from_secs(30));
        let mut opening = JoinSet::new();
        for _ in 0..6 {
            let alice = alice.clone();
            opening.spawn(async move { Watcher::open_with_snapshot(&alice).await });
        }
        let mut watchers = opening.join_all().await;
        for account in ["alice", "bob"] {
            let asked = v1::GetPluginTokenRequest { account: account.to_owned(), ..ask(PLUGIN) };
            alice.get_plugin_token(asked).await.unwrap();
        }
        let newest = async |watcher: &mut Watcher| {
            let (low, high) = (last_generation(&last) + 1, 2);
            while watcher.view.len() != high || watcher.view.values().any(|status| status.generation < low) {
                watcher.next().await;
            }
        };
        // The validator refuses an event that the snapshot had counted in already, and one that it had missed.
        for watcher in &mut watchers {
            newest(watcher).await;
        }
        last = watchers.pop().unwrap();
    }
}

fn last_generation(watcher: &Watcher) -> u64 {
    watcher.view.values().map(|status| status.generation).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_was_away_misses_nothing_across_a_restart() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let mut watcher = Watcher::open_with_snapshot(&alice).await;
    world.connect(&alice, "alice").await;
    let mut seen = watcher.events().await;
    for _ in 0..2 {
        refresh(&world, &alice).await;
        seen.extend(watcher.events().await);
    }
    let token = watcher.token();
    drop(watcher);
    for _ in 0..2 {
        refresh(&world, &alice).await;
    }
    world.restart().await;
    let alice = world.client("alice");
    refresh(&world, &alice).await;
    let mut resumed = Watcher::open(&alice, from(&token)).await;
    resumed.view = [(world.credential(&alice).await, status_of_generation(3))].into();
    for _ in 0..3 {
        seen.extend(resumed.events().await);
    }
    let expected: Vec<_> = std::iter::once((Kind::Connected, 1)).chain((2..=6).map(|g| (Kind::Refreshed, g))).collect();
    assert_eq!(seen, expected);
    // From any token on the way the rest is the same.
    let on_the_way = resumed.heard[1].resume_token.clone();
    let mut again = Watcher::open(&alice, from(&on_the_way)).await;
    again.view = [(world.credential(&alice).await, status_of_generation(4))].into();
    assert_eq!(again.events().await, [(Kind::Refreshed, 5)]);
    assert_eq!(again.events().await, [(Kind::Refreshed, 6)]);
}

fn status_of_generation(generation: u64) -> v1::CredentialStatus {
    v1::CredentialStatus { generation, ..Default::default() }
}

impl World {
    async fn credential(&self, client: &Client) -> String {
        let connections = client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap().connections;
        connections[0].credential_id.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_this_streams_is_refused() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let token = Watcher::open_with_snapshot(&alice).await.token();
    let refused = async |client: &Client, request: v1::WatchCredentialStatusRequest| {
        let error = client.watch_credential_status(request).await.expect_err("a refusal");
        assert_eq!(error.reason, Some(ErrorReason::InvalidArgument));
        assert_eq!(error.violations[0].field, "resume_token");
    };
    refused(&world.client("bob"), from(&token)).await;
    let agent = PlatformClaims { agent: Some("helper".to_owned()), ..claims() };
    refused(&world.client_with(&world.token("alice", &agent)), from(&token)).await;
    for at in 0..token.len() {
        let mut flipped = token.clone();
        flipped[at] ^= 1;
        refused(&alice, from(&flipped)).await;
    }
    for length in [1, 40, token.len() - 1] {
        refused(&alice, from(&token[..length])).await;
    }
    refused(&alice, from(&[token.clone(), vec![0]].concat())).await;
    let filtered = v1::WatchCredentialStatusRequest { kinds: vec![Kind::Revoked.into()], ..from(&token) };
    refused(&alice, filtered).await;
    refused(&World::start().await.client("alice"), from(&token)).await;
    assert!(alice.watch_credential_status(from(&token)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_a_future_that_was_lost_is_told_so() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    world.stop().await;
    let copy = world.copy_store();
    world.run().await;
    let alice = world.client("alice");
    refresh(&world, &alice).await;
    let mut ahead = Watcher::open_with_snapshot(&alice).await;
    refresh(&world, &alice).await;
    ahead.events().await;
    let token = ahead.token();
    world.stop().await;
    world.put_store_back(&copy);
    world.run().await;

    let alice = world.client("alice");
    let opening = {
        let (alice, token) = (alice.clone(), token.clone());
        tokio::spawn(async move { reason(alice.watch_credential_status(from(&token)).await) })
    };
    world.clock.someone_sleeps_until(world.now().plus(Duration::from_secs(3))).await;
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(opening.await.unwrap(), ErrorReason::AheadOfLog);

    let request = v1::WatchCredentialStatusRequest { on_lost: v1::OnLost::Resync.into(), ..from(&token) };
    let opening = tokio::spawn(async move {
        let mut watcher = Watcher::open(&alice, request).await;
        let resync = watcher.next().await;
        while !matches!(watcher.next().await.body, Some(Body::SnapshotEnd(_))) {}
        (resync, watcher.view.len())
    });
    world.clock.someone_sleeps_until(world.now().plus(Duration::from_secs(3))).await;
    world.clock.advance(Duration::from_secs(3));
    let (resync, listed) = opening.await.unwrap();
    assert!(resync.resume_token.is_empty());
    let Some(Body::Resync(resync)) = resync.body else { panic!("{resync:?}") };
    assert_eq!(resync.reason(), ErrorReason::AheadOfLog);
    assert_eq!(listed, 1);
}

impl World {
    pub(crate) fn copy_store(&self) -> std::path::PathBuf {
        let copy = self.directory().join("copy");
        copy_all(&self.config().store.directory, &copy);
        copy
    }

    pub(crate) fn put_store_back(&self, copy: &std::path::Path) {
        let store = self.config().store.directory;
        std::fs::remove_dir_all(&store).unwrap();
        copy_all(copy, &store);
    }
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() {
            copy_all(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_now_on_means_nothing_older() {
    let world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let mut watcher = Watcher::open(&alice, from_now()).await;
    watcher.view = [(world.credential(&alice).await, status_of_generation(1))].into();
    let token = watcher.token();
    refresh(&world, &alice).await;
    assert_eq!(watcher.events().await, [(Kind::Refreshed, 2)]);
    let mut resumed = Watcher::open(&alice, from(&token)).await;
    resumed.view = [(world.credential(&alice).await, status_of_generation(1))].into();
    assert_eq!(resumed.events().await, [(Kind::Refreshed, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_shows_what_it_names_and_cannot_hide_an_end() {
    let world = World::start().await;
    let alice = world.client("alice");
    let mine = world.connect(&alice, "alice").await;
    let other = world.connect(&alice, "bob").await;
    let scope = |target| vec![v1::WatchScope { target: Some(target) }];
    let of_connection = v1::WatchCredentialStatusRequest {
        scopes: scope(v1::watch_scope::Target::ConnectionId(mine.connection_id.clone())),
        ..watch()
    };
    let of_credential = v1::WatchCredentialStatusRequest {
        scopes: scope(v1::watch_scope::Target::CredentialId(mine.credential_id.clone())),
        ..watch()
    };
    let of_kind = v1::WatchCredentialStatusRequest { kinds: vec![Kind::Connected.into()], ..watch() };
    let mut by_connection = Watcher::open(&alice, of_connection).await;
    let mut by_credential = Watcher::open(&alice, of_credential).await;
    let mut by_kind = Watcher::open(&alice, of_kind).await;
    for watcher in [&mut by_connection, &mut by_credential, &mut by_kind] {
        while watcher.snapshot.is_none() {
            watcher.next().await;
        }
    }
    assert_eq!(by_connection.view.keys().collect::<Vec<_>>(), [&mine.credential_id]);
    assert_eq!(by_kind.view.len(), 2, "kinds choose events, not states");
    for connection in [&other, &mine] {
        let revoke = v1::RevokeRequest {
            target: Some(v1::revoke_request::Target::ConnectionId(connection.connection_id.clone())),
            ..Default::default()
        };
        alice.revoke(revoke).await.unwrap();
    }
    for watcher in [&mut by_connection, &mut by_credential] {
        for _ in 0..2 {
            let batch = watcher.next().await;
            let Some(Body::Batch(batch)) = batch.body else { panic!("{batch:?}") };
            assert_eq!(batch.events[0].kind(), Kind::Revoked);
            assert_eq!(batch.events[0].status.as_ref().unwrap().connection_id, mine.connection_id);
        }
    }
    for _ in 0..4 {
        assert_eq!(by_kind.events().await, [(Kind::Revoked, 1)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_anybody_elses_events() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let mut watcher = Watcher::open_with_snapshot(&bob).await;
    let hers = world.connect(&alice, "alice").await;
    refresh(&world, &alice).await;
    // Naming her connection shows nothing either.
    let target = Some(v1::watch_scope::Target::ConnectionId(hers.connection_id));
    let nosy = v1::WatchCredentialStatusRequest { scopes: vec![v1::WatchScope { target }], ..watch() };
    let mut nosy = Watcher::open(&bob, nosy).await;
    assert!(matches!(nosy.next().await.body, Some(Body::SnapshotEnd(_))));
    let own = world.connect(&bob, "bob").await;
    assert_eq!(watcher.events().await, [(Kind::Connected, 1)]);
    assert_eq!(watcher.view.keys().collect::<Vec<_>>(), [&own.credential_id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_says_how_far_it_has_come() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let quick = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let mut watcher =
        Watcher::open(&alice, v1::WatchCredentialStatusRequest { progress_interval: quick, ..watch() }).await;
    let Some(Body::Opened(opened)) = &watcher.heard[0].body else { panic!("it opened") };
    assert_eq!(opened.progress_interval, Some(prost_types::Duration { seconds: 5, nanos: 0 }), "no quicker");
    let end = watcher.next().await;
    world.connect(&bob, "bob").await;
    world.clock.advance(Duration::from_secs(6));
    let mut progress = watcher.next().await;
    // The first may have been on its way before the change was announced.
    while progress.revision == end.revision {
        world.clock.advance(Duration::from_secs(6));
        progress = watcher.next().await;
    }
    assert!(matches!(progress.body, Some(Body::Progress(_))));
    world.connect(&alice, "alice").await;
    let mut resumed = Watcher::open(&alice, from(&progress.resume_token)).await;
    assert_eq!(resumed.events().await, [(Kind::Connected, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_callers_token() {
    let world = World::start().await;
    let long = world.client("alice");
    world.connect(&long, "alice").await;
    let short = world.client_with(&world.token("alice", &PlatformClaims::to("claviger")));
    let mut watcher = Watcher::open_with_snapshot(&short).await;
    let before = watcher.token();
    world.clock.advance(10 * MINUTE);
    let (drain, message) = watcher.drained().await;
    assert_eq!(drain.cause(), v1::DrainCause::Authorization);
    assert_eq!(reason(watcher.try_next().await), ErrorReason::TokenExpired);
    // The scheduler refreshes at that very moment; whether or not that was sent before, the token continues from there.
    let token = if message.resume_token.is_empty() { before } else { message.resume_token };
    let fresh = world.client_with(&world.token("alice", &PlatformClaims::to("claviger")));
    assert!(fresh.watch_credential_status(from(&token)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_stream_is_asked_to_come_again() {
    let world = World::start().await;
    let alice = world.client("alice");
    let mut watcher = Watcher::open_with_snapshot(&alice).await;
    world.clock.advance(MINUTE * 61);
    let (drain, message) = watcher.drained().await;
    assert_eq!(drain.cause(), v1::DrainCause::MaxAge);
    assert!(drain.reconnect_after.unwrap().seconds <= 10);
    assert_eq!(watcher.try_next().await.unwrap(), None, "it ends well");
    world.connect(&alice, "alice").await;
    let mut resumed = Watcher::open(&alice, from(&message.resume_token)).await;
    assert_eq!(resumed.events().await, [(Kind::Connected, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_says_goodbye() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let mut watcher = Watcher::open_with_snapshot(&alice).await;
    let farewell = tokio::spawn(async move {
        let (drain, message) = watcher.drained().await;
        (drain.cause(), message.resume_token, reason(watcher.try_next().await))
    });
    timeout(SOON, world.stop()).await.expect("open streams do not hold up the shutdown");
    let (cause, token, ending) = farewell.await.unwrap();
    assert_eq!((cause, ending), (v1::DrainCause::Shutdown, ErrorReason::ShuttingDown));
    world.run().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let mut resumed = Watcher::open(&alice, from(&token)).await;
    assert_eq!(resumed.events().await, [(Kind::Connected, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_sent_away_has_come_as_far_as_everybody_else() {
    let mut world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let mut watcher = Watcher::open(&alice, from_now()).await;
    world.connect(&bob, "bob").await;
    let others = Watcher::open_with_snapshot(&bob).await;
    let farewell = tokio::spawn(async move { watcher.drained().await.1.resume_token });
    timeout(SOON, world.stop()).await.expect("open streams do not hold up the shutdown");
    // Its place is fixed: version, installation, epoch, partition, revision.
    let position = |token: &[u8]| u64::from_be_bytes(token[35..43].try_into().unwrap());
    let (hers, theirs) = (farewell.await.unwrap(), &others.heard.last().unwrap().resume_token);
    assert!(position(&hers) >= position(theirs), "she would read the log for what is not hers");
}

/// Polled by hand, because over a socket the snapshot is over before anybody can stop the broker in its middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_just_come_hears_goodbye_too() {
    let mut world = World::start().await;
    world.stop().await;
    let caller = Caller {
        tenant: "acme".parse().unwrap(),
        subject: SubjectId::from_bytes([7; 32]),
        family: "platform".parse().unwrap(),
        external_id: "alice".to_owned(),
        agent: None,
        audience: Vec::new(),
        scopes: ScopeSet::default(),
        roles: [Role::User].into(),
        issued_at: world.now(),
        expires_at: world.now().plus(MINUTE),
    };
    let app = App::build(world.config(), Arc::new(world.clock.clone()), Random::system()).await.unwrap();
    let (request_id, context) = ("goodbye".parse().unwrap(), CallContext::default());
    let call = Call { caller: Arc::new(caller), request_id, peer: None, user_agent: None, context };
    let mut streams = Vec::new();
    for _ in 0..32 {
        let (filter, start) = (WatchFilter::default(), broker::Start::Snapshot);
        let (on_lost, delivery) = (OnLost::Fail, Delivery::EveryEvent);
        let watch = Watch { filter, start, on_lost, delivery, progress_interval: None, connection: None };
        let mut stream = Box::pin(app.broker().watch(&call, watch).await.unwrap());
        assert!(matches!(stream.next().await, Some(Ok(WatchMessage::Opened { .. }))));
        streams.push(stream);
    }
    app.broker().stop().await;
    for stream in streams {
        let rest: Vec<_> = stream.collect().await;
        let [.., Ok(WatchMessage::Drain { reason, .. }), Err(BrokerError::ShuttingDown)] = rest.as_slice() else {
            panic!("no goodbye: {rest:?}")
        };
        assert_eq!(*reason, DrainReason::Shutdown);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_state_of_each_is_enough_for_who_says_so() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let latest =
        |request| v1::WatchCredentialStatusRequest { delivery: v1::Delivery::LatestPerCredential.into(), ..request };
    let mut watcher = Watcher::open(&alice, latest(watch())).await;
    let Some(Body::Opened(opened)) = &watcher.heard[0].body else { panic!("it opened") };
    assert_eq!(opened.delivery(), v1::Delivery::LatestPerCredential);
    while watcher.snapshot.is_none() {
        watcher.next().await;
    }
    let token = watcher.token();
    drop(watcher);
    for _ in 0..3 {
        refresh(&world, &alice).await;
    }
    world.connect(&alice, "bob").await;
    // After a restart all of it is read from the log at once.
    world.restart().await;
    let alice = world.client("alice");
    let mut stream = alice.watch_credential_status(latest(from(&token))).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let message = timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap();
        if let Some(Body::Batch(batch)) = message.body {
            seen.extend(batch.events.iter().map(|event| (event.kind(), generation(event))));
        }
    }
    assert_eq!(seen, [(Kind::Refreshed, 4), (Kind::Connected, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_delays_nobody_and_catches_up() {
    let brief = Duration::from_secs(10);
    let world = World::start_with(Settings { access_token_lifetime: brief, ..Settings::default() }).await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    // Room for two or three messages; it is not read from until the end.
    let token = world.token("alice", &claims());
    let mut stalled = world.raw_with_window(&token, 1024);
    let stalled = stalled.watch_credential_status(watch()).await.unwrap().into_inner();
    let mut stalled = world.heard.on(stalled, watch(), &token);
    let mut watcher = Watcher::open_with_snapshot(&alice).await;
    for wanted in 2..=40 {
        world.clock.advance(brief * 6 / 10);
        alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
        assert_eq!(watcher.events().await, [(Kind::Refreshed, wanted)]);
    }
    let mut newest = 0;
    let (mut revision, mut listed) = (0, 0);
    while newest < 40 {
        let message = timeout(SOON, stalled.message()).await.unwrap().unwrap().unwrap();
        match message.body.unwrap() {
            Body::Snapshot(snapshot) => listed = snapshot.statuses[0].generation,
            Body::Batch(batch) => {
                assert!(message.revision > revision);
                assert_eq!(generation(&batch.events[0]), newest.max(listed) + 1, "nothing is left out");
                newest = generation(&batch.events[0]);
            }
            _ => {}
        }
        revision = message.revision;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_counted_and_a_closed_one_makes_room() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(Watcher::open(&alice, from_now()).await);
    }
    let refused = alice.watch_credential_status(watch()).await.expect_err("a refusal");
    assert_eq!(refused.reason, Some(ErrorReason::StreamQuota));
    assert!(refused.retry_after.is_some());
    assert!(bob.watch_credential_status(watch()).await.is_ok());
    drop(open.pop());
    let again = async {
        while alice.watch_credential_status(watch()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, again).await.expect("the seat is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_connection_cannot_carry_is_refused_before_it_waits_unseen() {
    let configure = Box::new(|config: &mut Config| config.watch.streams_per_principal = 1000);
    let world = World::start_with(Settings { configure, ..Settings::default() }).await;
    let alice = world.client("alice");
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(alice.watch_credential_status(from_now()).await.unwrap());
    }
    let refused =
        timeout(SOON, alice.watch_credential_status(from_now())).await.expect("it waits").expect_err("it opens");
    assert_eq!(refused.reason, Some(ErrorReason::StreamQuota));
    assert!(alice.list_connections(Default::default()).await.is_ok(), "there is room for calls beside them");
    assert!(world.client("alice").watch_credential_status(from_now()).await.is_ok(), "another connection carries it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_quota_counts_its_own() {
    for limit in ["streams", "tenant"] {
        let configure = Box::new(move |config: &mut Config| match limit {
            "streams" => config.watch.streams = 2,
            _ => config.watch.streams_per_tenant = 2,
        });
        let world = World::start_with(Settings { configure, ..Settings::default() }).await;
        let (alice, bob) = (world.client("alice"), world.client("bob"));
        let open = (
            alice.watch_credential_status(watch()).await.unwrap(),
            bob.watch_credential_status(watch()).await.unwrap(),
        );
        let refused = bob.watch_credential_status(watch()).await.expect_err("it opens");
        assert_eq!(refused.reason, Some(ErrorReason::StreamQuota), "{limit}");
        drop(open);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_on_the_stream() {
    let world = World::start().await;
    let alice = world.client("alice");
    let mut watcher = Watcher::open_with_snapshot(&alice).await;
    let started = alice.start_authorization(start(PLUGIN)).await.unwrap();
    let canaries = ["canary-of-an-access-token", "canary-of-a-refresh-token"];
    let set = |name: &str, value: &str| (name.to_owned(), serde_json::json!(value));
    let fault = Fault::Edit {
        set: [set("access_token", canaries[0]), set("refresh_token", canaries[1])].into_iter().collect(),
        remove: vec![],
    };
    world.provider.faults().arm(claviger::dev::Endpoint::Token, fault, 1);
    let answer = world.visit(&started.authorization_url, "alice", claviger::dev::visitor::Decision::Approve).await;
    world.store(&alice, &answer).await.unwrap();
    assert_eq!(alice.get_plugin_token(ask(PLUGIN)).await.unwrap().access_token, canaries[0]);
    watcher.events().await;
    let snapshot = Watcher::open_with_snapshot(&alice).await;
    let codes = [crate::world::parameter(&answer, "code"), crate::world::parameter(&answer, "state")];
    for message in watcher.heard.iter().chain(&snapshot.heard) {
        let bytes = message.encode_to_vec();
        let text = String::from_utf8_lossy(&bytes);
        for secret in canaries.iter().copied().chain(codes.iter().map(String::as_str)) {
            assert!(!text.contains(secret), "{message:?}");
        }
    }
}
