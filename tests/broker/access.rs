//! Who may not see something any more is sent nothing of it, whatever stood ready for them; and learns it at once.

use std::{pin::Pin, sync::Arc};

use claviger::{
    broker::{BrokerError, Delivery, DrainReason, OnLost, Start, Watch, WatchFilter, WatchMessage},
    client::Client,
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

fn without_the_provider(config: &mut Config) {
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
    let ends = async |stream: &mut tonic::Streaming<v1::WatchCredentialStatusResponse>| {
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
