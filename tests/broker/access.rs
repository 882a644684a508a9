//! Who may not see something any more is sent nothing of it, whatever stood ready for them; and learns it at once.

use std::{pin::Pin, sync::Arc};

use claviger::{
    broker::{BrokerError, Delivery, DrainReason, OnLost, Start, Watch, WatchFilter, WatchMessage},
    config::Config,
    domain::{Call, Caller, EventKind, Reason, Role, SubjectId},
    proto::v1::{
        self, CredentialEventKind as Kind, DrainCause, ErrorReason, watch_credential_status_request as request,
        watch_credential_status_response::Body,
    },
};
use futures_util::Stream;
use tokio_stream::StreamExt as _;

use crate::{
    heard::{Client, Listening},
    keys::call_of,
    observer::{Observer, in_time},
    world::{MINUTE, World, reason},
};

type Messages = Pin<Box<dyn Stream<Item = Result<WatchMessage, BrokerError>> + Send>>;

/// The caller that a client is.
async fn caller_of(client: &Client) -> Call {
    let said = client.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
    let (subject, operator): (SubjectId, Call) = (said.subject.parse().unwrap(), call_of(Role::User));
    let caller = Caller { subject, ..Caller::clone(&operator.caller) };
    Call { caller: Arc::new(caller), ..operator }
}

/// A stream that is polled by hand: what is not asked for stays in its queue.
async fn by_hand(world: &World, call: &Call) -> Messages {
    let (filter, start) = (WatchFilter::default(), Start::Now);
    let (on_lost, delivery) = (OnLost::Fail, Delivery::EveryEvent);
    let watch = Watch { filter, start, on_lost, delivery, progress_interval: None, connection: None };
    let mut messages: Messages = Box::pin(world.broker().watch(call, watch).await.unwrap());
    assert!(matches!(messages.next().await, Some(Ok(WatchMessage::Opened { .. }))));
    messages
}

/// Two accounts are connected; the first one's event has left, and the second one's stands behind it.
async fn with_an_event_in_the_queue(world: &World, call: &Call, client: &Client) -> Messages {
    let (mut messages, mut observer) = (by_hand(world, call).await, Observer::of(client).await);
    for account in ["alice", "bob"] {
        world.connect(client, account).await;
        observer.until(Kind::Connected).await;
    }
    let first = in_time(messages.next()).await;
    assert!(matches!(first, Some(Ok(WatchMessage::Batch { .. }))), "{first:?}");
    messages
}

/// What is left of a stream, without progress.
async fn rest(messages: Messages) -> Vec<Result<WatchMessage, BrokerError>> {
    let rest = messages.filter(|message| !matches!(message, Ok(WatchMessage::Progress { .. })));
    in_time(rest.collect()).await
}

#[track_caller]
fn ended_by(rest: &[Result<WatchMessage, BrokerError>], wanted: Reason) {
    let [Ok(WatchMessage::Drain { reason: DrainReason::Authorization, .. }), Err(error)] = rest else {
        panic!("{rest:?}")
    };
    assert_eq!(error.reason(), wanted);
}

fn without_tenants(config: &mut Config) {
    config.tenants.clear();
}

pub(crate) fn without_the_provider(config: &mut Config) {
    config.providers.clear();
    config.plugins.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_the_queue_does_not_leave_after_the_tenant_is_gone() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let call = caller_of(&alice).await;
    let messages = with_an_event_in_the_queue(&world, &call, &alice).await;
    world.reload(without_tenants).await;
    ended_by(&rest(messages).await, Reason::TenantUnknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_the_queue_does_not_leave_after_its_readers_token_has_lapsed() {
    let world = World::start().await;
    let alice = world.client("alice");
    let call = caller_of(&alice).await;
    let caller = Caller { expires_at: world.now().plus(MINUTE), ..Caller::clone(&call.caller) };
    let call = Call { caller: Arc::new(caller), ..call };
    let messages = with_an_event_in_the_queue(&world, &call, &alice).await;
    world.clock.advance(MINUTE);
    ended_by(&rest(messages).await, Reason::TokenExpired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_erased_subject_nothing_leaves_but_the_erasure() {
    let world = World::start().await;
    let alice = world.client("alice");
    let call = caller_of(&alice).await;
    let messages = with_an_event_in_the_queue(&world, &call, &alice).await;
    let (operator, tenant) = (call_of(Role::Operator), call.caller.tenant.clone());
    world.broker().erase_subject(&operator, &tenant, call.caller.subject).await.unwrap();
    let mut rest = rest(messages).await;
    let Ok(WatchMessage::Batch { events, token, .. }) = rest.remove(0) else { panic!("{rest:?}") };
    assert!(events.len() == 2 && events.iter().all(|event| event.kind == EventKind::Erased), "{events:?}");
    let [Ok(WatchMessage::Drain { token: last, .. }), _] = rest.as_slice() else { panic!("{rest:?}") };
    assert_eq!(Some(last), token.as_ref(), "a client that has heard of it continues behind it");
    ended_by(&rest, Reason::SubjectErased);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_the_queue_does_not_leave_after_its_provider_is_gone() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let call = caller_of(&alice).await;
    let mut messages = with_an_event_in_the_queue(&world, &call, &alice).await;
    world.reload(without_the_provider).await;
    let mut lost = 0;
    while lost < 2 {
        match in_time(messages.next()).await {
            Some(Ok(WatchMessage::Batch { events, .. })) => {
                assert!(events.iter().all(|event| event.kind == EventKind::AccessLost), "{events:?}");
                lost += events.len();
            }
            Some(Ok(WatchMessage::Progress { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Over a socket, where nobody asks the stream for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_which_nothing_happens_ends_at_once() {
    let mut world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let start = Some(request::Start::Now(true));
    let open = async |client: &Client| {
        let asked = v1::WatchCredentialStatusRequest { start: start.clone(), ..Default::default() };
        client.watch_credential_status(asked).await.unwrap()
    };
    let (mut hers, mut his) = (open(&alice).await, open(&bob).await);
    let ends = async |stream: &mut Listening| {
        let cause = loop {
            match in_time(stream.message()).await.unwrap().unwrap().body {
                Some(Body::Opened(_)) => {}
                Some(Body::Drain(drain)) => break drain.cause(),
                other => panic!("{other:?}"),
            }
        };
        let status = in_time(stream.message()).await.expect_err("it ends");
        (cause, reason(Err::<(), _>(status.into())))
    };
    let call = caller_of(&alice).await;
    let (operator, tenant) = (call_of(Role::Operator), call.caller.tenant.clone());
    world.broker().erase_subject(&operator, &tenant, call.caller.subject).await.unwrap();
    assert_eq!(ends(&mut hers).await, (DrainCause::Authorization, ErrorReason::SubjectErased));
    world.reload(without_tenants).await;
    assert_eq!(ends(&mut his).await, (DrainCause::Authorization, ErrorReason::TenantUnknown));
}

/// The next event that a watcher hears.
async fn hears(observer: &mut Observer) -> (Kind, v1::CredentialStatus) {
    let event = observer.next().await;
    (event.kind(), event.status.unwrap())
}

#[track_caller]
fn assert_has_only_ids(status: &v1::CredentialStatus, of: &v1::Connection) {
    let ids = v1::CredentialStatus {
        credential_id: of.credential_id.clone(),
        connection_id: of.connection_id.clone(),
        subject: status.subject.clone(),
        ..Default::default()
    };
    assert_eq!(*status, ids);
}

async fn snapshot_of(client: &Client) -> Vec<v1::CredentialStatus> {
    let mut stream = client.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await.unwrap();
    let mut listed = Vec::new();
    loop {
        match in_time(stream.message()).await.unwrap().unwrap().body {
            Some(Body::Snapshot(snapshot)) => listed.extend(snapshot.statuses),
            Some(Body::SnapshotEnd(_)) => return listed,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_taken_out_takes_its_credentials_out_of_sight_until_it_comes_back() {
    let mut world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let (hers, his) = (world.connect(&alice, "alice").await, world.connect(&bob, "bob").await);
    let (mut observer, mut beside) = (Observer::of(&alice).await, Observer::of(&bob).await);

    world.reload(without_the_provider).await;
    for (observer, of) in [(&mut observer, &hers), (&mut beside, &his)] {
        let (kind, status) = hears(observer).await;
        assert_eq!(kind, Kind::AccessLost);
        assert_has_only_ids(&status, of);
    }
    assert_eq!(snapshot_of(&alice).await, []);
    // What happens to it now is nobody's to hear: not that it lapses, nor anything of what a revocation is.
    world.clock.advance(30 * MINUTE);
    bob.revoke(crate::world::revoke_all()).await.unwrap();

    world.reload(|_| {}).await;
    let (kind, status) = hears(&mut observer).await;
    assert_eq!(kind, Kind::AccessGained);
    assert_eq!((status.credential_id.as_str(), status.generation), (hers.credential_id.as_str(), 1));
    assert_eq!((status.provider.as_str(), status.scopes.is_empty()), ("dev", false), "all of it");
    let (kind, status) = hears(&mut beside).await;
    assert_eq!((kind, status.state()), (Kind::AccessGained, v1::CredentialState::Revoking), "as it is by now");
    // Whoever slept through it all hears as much as those who listened.
    let mut asleep = Observer::after(observer, &alice).await;
    alice.get_plugin_token(crate::world::ask(crate::world::PLUGIN)).await.unwrap();
    assert_eq!(hears(&mut asleep).await.0, Kind::Refreshed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_the_process_was_down_is_told_at_the_start() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let hers = world.connect(&alice, "alice").await;
    let observer = Observer::of(&alice).await;
    world.reconfigure(without_the_provider).await;
    let alice = world.client("alice");
    let mut observer = Observer::after(observer, &alice).await;
    let (kind, status) = hears(&mut observer).await;
    assert_eq!(kind, Kind::AccessLost);
    assert_has_only_ids(&status, &hers);
    // Nobody is told twice.
    world.restart().await;
    let observer = Observer::after(observer, &world.client("alice")).await;
    world.reconfigure(|_| {}).await;
    let mut observer = Observer::after(observer, &world.client("alice")).await;
    assert_eq!(hears(&mut observer).await.0, Kind::AccessGained);
}
