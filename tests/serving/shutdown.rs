//! An end that nobody can hold up. With the default grace of 25 s open calls have 15, the last answers 5, and what is only
//! to be read 2.

use std::time::Duration;

use claviger::{
    app::NotStopped,
    client::ClientError,
    config::Period,
    dev::{
        Endpoint, Hold, HoldPoint,
        visitor::{Decision, Visitor},
    },
    outbound::{Outbound, Policy},
    proto::v1::{self, watch_credential_status_response::Body},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    clock::ManualClock,
    frames::{GOAWAY, HEADERS, PATIENCE, Raw, SETTINGS, call, frame},
    pki::Authority,
    rig::{CALLBACK, Rig},
    someone_sleeps_until,
};

const DRAIN: Duration = Duration::from_secs(15);
const LAST_ANSWERS: Duration = Duration::from_secs(5);
const LAST_MESSAGES: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(25);
const WATCH: &str = "/claviger.v1.TokenBrokerService/WatchCredentialStatus";

#[tokio::test]
async fn with_nobody_there_it_ends_at_once() {
    let rig = Rig::start(|_| {}).await;
    rig.begin_shutdown();
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn new_connections_are_refused_while_open_calls_end() {
    let rig = Rig::start(|_| {}).await;
    let mut hanging = Raw::connect(rig.grpc).await;
    assert!(hanging.lives().await);
    rig.begin_shutdown();
    // From here on it ought to answer a PING and close, and does not.
    hanging.find(|frame| frame.kind == GOAWAY).await.unwrap();
    assert!(TcpStream::connect(rig.grpc).await.is_err(), "the socket no longer listens");
    sleep_over(&rig, LAST_MESSAGES).await;
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_never_spoke_holds_nothing_up() {
    let rig = Rig::start(|_| {}).await;
    let silent = rig.grpc_socket().await;
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(Duration::from_secs(10))).await;
    rig.begin_shutdown();
    sleep_over(&rig, LAST_MESSAGES).await;
    rig.ended().await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_holds_nothing_up() {
    let rig = Rig::start(|_| {}).await;
    let mut deaf = Raw::connect(rig.grpc).await;
    // SETTINGS_INITIAL_WINDOW_SIZE of 0: no message can be sent to it, not even its drain.
    deaf.write(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    deaf.write(&call(1, WATCH, Some(rig.token().expose()))).await;
    assert_eq!(deaf.find(|frame| frame.is_of(1)).await.unwrap().kind, HEADERS, "the stream is open");
    rig.begin_shutdown();
    sleep_over(&rig, LAST_MESSAGES).await;
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn while_watchers_are_sent_away_everything_else_is_served() {
    let rig = Rig::start(|config| config.watch.streams_per_principal = 200).await;
    let (watching, asking) = (rig.plain_client(), rig.plain_client());
    let mut listening = JoinSet::new();
    for _ in 0..150 {
        let mut stream = watching.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await.unwrap();
        listening.spawn(async move {
            let mut drained = false;
            while let Ok(Some(message)) = stream.message().await {
                drained = matches!(message.body, Some(Body::Drain(_)));
            }
            drained
        });
    }
    rig.begin_shutdown();
    // 500 a second.
    let last = ManualClock::START.plus(Duration::from_millis(300));
    someone_sleeps_until(&rig.clock, last).await;
    asking.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    let refused = asking.watch_credential_status(v1::WatchCredentialStatusRequest::default()).await.err().unwrap();
    assert_eq!(refused.reason, Some(v1::ErrorReason::ShuttingDown), "{refused:?}");
    // The last to be told sleeps two milliseconds less; by then all have gone to sleep, or have been told.
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(Duration::from_millis(298))).await;
    rig.clock.advance(Duration::from_millis(300));
    let told = timeout(PATIENCE, listening.join_all()).await.expect("a stream does not end");
    assert!(told.into_iter().all(|drained| drained), "everybody is told");
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_under_way_is_answered() {
    let rig = Rig::start(|config| config.outbound.timeout = Period::from_secs(60)).await;
    let (waiting, hold) = held_call(&rig).await;
    rig.begin_shutdown();
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(DRAIN)).await;
    rig.clock.advance(DRAIN - Duration::from_secs(1));
    hold.release();
    waiting.await.unwrap().unwrap();
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_lands_all_the_same() {
    let rig = Rig::start(|config| config.outbound.timeout = Period::from_secs(60)).await;
    let (waiting, hold) = held_call(&rig).await;
    waiting.abort();
    rig.begin_shutdown();
    // No connection is left, and the exchange is not over.
    sleep_over(&rig, LAST_MESSAGES).await;
    hold.release();
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_end_holds_nothing_up() {
    let rig = Rig::over_tls(&Authority::new(), |_| {}).await;
    let (mut grpc, mut http) = (rig.grpc_socket().await, rig.http_socket().await);
    for socket in [&mut grpc, &mut http] {
        socket.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    }
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(Duration::from_secs(10))).await;
    rig.begin_shutdown();
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn an_http_request_that_does_not_end_holds_nothing_up() {
    let rig = Rig::start(|config| config.limits.http_header_time = Period::from_secs(3600)).await;
    let mut slow = rig.http_socket().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: broker\r\n\r\nGET /healthz HT").await.unwrap();
    slow.readable().await.unwrap();
    rig.begin_shutdown();
    sleep_over(&rig, LAST_ANSWERS).await;
    rig.ended().await.unwrap();
}

#[tokio::test]
async fn an_http_client_that_reads_nothing_holds_nothing_up() {
    let rig = Rig::start(|_| {}).await;
    let deaf = rig.http_socket().await;
    let asking = tokio::spawn(async move {
        let mut deaf = deaf;
        while deaf.write_all(&b"GET /healthz HTTP/1.1\r\nhost: broker\r\n\r\n".repeat(100)).await.is_ok() {}
    });
    // The answers fill every buffer on the way.
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(Duration::from_secs(30))).await;
    rig.begin_shutdown();
    sleep_over(&rig, LAST_ANSWERS).await;
    rig.ended().await.unwrap();
    asking.await.unwrap();
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up_at_the_end_of_the_grace() {
    let rig = Rig::start(|config| config.outbound.timeout = Period::from_secs(60)).await;
    let (waiting, _hold) = held_call(&rig).await;
    rig.begin_shutdown();
    sleep_over(&rig, DRAIN).await;
    assert!(waiting.await.unwrap().is_err(), "its call is cut with the others");
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(GRACE)).await;
    rig.clock.advance(GRACE - DRAIN);
    let ended = rig.ended().await.unwrap_err();
    assert!(ended.is::<NotStopped>(), "{ended:?}");
}

/// A call whose answer waits for the provider's.
async fn held_call(rig: &Rig) -> (JoinHandle<Result<v1::StoreAuthCodeResponse, ClientError>>, Hold) {
    let client = rig.plain_client();
    let started = client.start_authorization(v1::StartAuthorizationRequest {
        target: Some(v1::start_authorization_request::Target::Plugin("calendar".to_owned())),
        binding: v1::AuthorizationBinding::Caller.into(),
        redirect_uri: CALLBACK.to_owned(),
        ..Default::default()
    });
    let url = started.await.unwrap().authorization_url.parse().unwrap();
    let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
    let answer = Visitor::new(outbound).visit(&url, "alice", Decision::Approve).await.unwrap();
    let parameter = |name: &str| {
        answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let code = v1::FlowCode { state: parameter("state"), code: parameter("code"), iss: parameter("iss") };
    let flow = Some(v1::store_auth_code_request::Flow::FlowCode(code));
    let hold = rig.provider.faults().hold(Endpoint::Token, HoldPoint::Request);
    let waiting = tokio::spawn(async move { client.store_auth_code(v1::StoreAuthCodeRequest { flow }).await });
    hold.arrived(1).await;
    (waiting, hold)
}

/// Returns once somebody has waited for so long, by the clock of the test.
async fn sleep_over(rig: &Rig, time: Duration) {
    someone_sleeps_until(&rig.clock, ManualClock::START.plus(time)).await;
    rig.clock.advance(time);
}
