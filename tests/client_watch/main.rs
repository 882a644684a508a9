//! The watch loop against a server that breaks off, drains, falls silent and refuses, on a clock that is moved by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod log;
#[path = "../support/watch_validator.rs"]
mod watch_validator;

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use claviger::{
    client::{Client, ClientError, Connect, Heard, Watch},
    domain::{BoxFuture, Clock, PresentedToken, Timestamp},
    proto::v1::{
        self, CredentialEvent, CredentialStatus, DrainCause, WatchBatch, WatchCredentialStatusRequest,
        WatchCredentialStatusResponse as Message, WatchDrain, WatchOpened, WatchProgress,
        token_broker_service_server::{TokenBrokerService, TokenBrokerServiceServer},
        watch_credential_status_request::Start,
        watch_credential_status_response::Body,
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_broken_stream_is_resumed_after_a_jittered_wait() {
    let mut sea = Sea::start([
        Script::says([opened(), batch(7, &["crd_a"], false)]).then(Status::unavailable("gone")),
        Script::says([opened(), batch(8, &["crd_b"], false)]),
    ])
    .await;
    assert!(matches!(sea.next().await.body, Some(Body::Opened(_))));
    assert_eq!(sea.next().await.revision, 7);

    assert!(matches!(sea.next_after(SECOND / 5).await.body, Some(Body::Opened(_))));
    assert_eq!(sea.next().await.revision, 8);
    assert_eq!(sea.shore.starts(), [None, Some(Start::ResumeToken(b"after 7".to_vec()))]);
}

#[tokio::test]
async fn waits_grow_to_thirty_seconds_and_honour_the_brokers_own() {
    let refused = || Script::refuses(Status::unavailable("no"));
    let slow_down = {
        use tonic_types::{ErrorDetails, StatusExt as _};
        let details = ErrorDetails::with_retry_info(Some(45 * SECOND));
        Script::refuses(Status::with_error_details(Code::ResourceExhausted, "slow down", details))
    };
    let mut scripts: Vec<Script> = (0..9).map(|_| refused()).collect();
    scripts.extend([slow_down, Script::says([opened()])]);
    let mut sea = Sea::start(scripts).await;

    let mut waits = Vec::new();
    sea.next_moving(is_back_off, &mut waits).await;
    let millis: Vec<_> = waits.iter().map(Duration::as_millis).collect();
    assert_eq!(millis, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 45000]);
}

#[tokio::test]
async fn a_drain_says_when_to_come_back() {
    let mut sea = Sea::start([
        Script::says([opened(), drain(17)]).then(Status::unavailable("shutting down")),
        Script::says([opened()]),
    ])
    .await;
    sea.next().await;
    assert!(matches!(sea.next().await.body, Some(Body::Drain(_))));
    sea.next_after(17 * SECOND).await;
}

#[tokio::test]
async fn who_is_told_when_to_come_back_comes_then_whatever_the_stream_ends_with() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let later = ErrorDetails::with_retry_info(Some(45 * SECOND));
    let later = Status::with_error_details(Code::Unavailable, "later", later);
    let drained = |seconds| Script::says([opened(), drain(seconds)]);
    let mut sea = Sea::start([
        drained(1).then(later),
        drained(2).then(Status::resource_exhausted("too many")),
        drained(3).and_ends(),
        drained(0).and_ends(),
        Script::says([opened()]),
    ])
    .await;
    assert!(matches!(sea.next().await.body, Some(Body::Opened(_))));
    // A time of zero is none: then it backs off, for the first time.
    for wait in [SECOND, 2 * SECOND, 3 * SECOND, SECOND / 5] {
        assert!(matches!(sea.next().await.body, Some(Body::Drain(_))));
        assert!(matches!(sea.next_after(wait).await.body, Some(Body::Opened(_))));
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_between_two_streams_opens_the_next_where_the_first_ended() {
    let mut sea = Sea::start([
        Script::says([opened(), batch(7, &["crd_a"], false)]).then(Status::unauthenticated("expired")),
        Script::says([opened(), batch(8, &["crd_a"], false)]),
    ])
    .await;
    sea.next().await;
    sea.next().await;
    let ended = sea.watch.next().await.expect_err("the token has expired");
    assert_eq!(ended.code, Code::Unauthenticated);
    sea.client.replace_token(&PresentedToken::new("second anchor".to_owned())).expect("a legal token");
    sea.next_after(SECOND / 5).await;
    assert_eq!(sea.next().await.revision, 8);
    assert_eq!(sea.shore.starts(), [None, Some(Start::ResumeToken(b"after 7".to_vec()))]);
    assert_eq!(sea.shore.bearers(), ["Bearer anchor", "Bearer second anchor"]);
}

#[tokio::test]
async fn who_asks_is_told_that_the_stream_is_away_and_for_how_long() {
    let mut sea = Sea::start([
        Script::says([opened()]).then(Status::unavailable("gone")),
        Script::says([opened(), drain(17)]).and_ends(),
    ])
    .await;
    sea.next().await;
    let Ok(Heard::Interrupted(gone)) = sea.watch.hear().await else { panic!("the stream broke") };
    assert_eq!((gone.cause.map(|cause| cause.code), gone.reopens_after), (Some(Code::Unavailable), SECOND / 5));
    sea.next_after(SECOND / 5).await;
    sea.next().await;
    let Ok(Heard::Interrupted(ended)) = sea.watch.hear().await else { panic!("the stream ended") };
    assert!(ended.cause.is_none());
    assert_eq!(ended.reopens_after, 17 * SECOND);
}

/// Small messages that nobody reads cost no connection: HTTP/2 servers and clients count them as an attack where the
/// windows are small, and one stream that is not read takes the room of all the others.
#[tokio::test]
async fn streams_that_are_not_read_for_a_while_hold_nobody_up_and_lose_nothing() {
    const STREAMS: usize = 32;
    const MESSAGES: u64 = 3_000;
    let script = || Script::says(std::iter::once(opened()).chain((1..=MESSAGES).map(progress)));
    let mut sea = Sea::start((0..=STREAMS).map(move |_| script())).await;
    let mut paused = Vec::new();
    for _ in 0..STREAMS {
        let request = WatchCredentialStatusRequest::default();
        let mut watch = Watch::new(sea.client.clone(), request, sea.clock.clone(), Box::new(|ceiling| ceiling));
        watch.next().await.expect("it is open");
        paused.push(watch);
    }
    let read = async |watch: &mut Watch| {
        let reading = async { while watch.next().await.expect("the stream goes on").revision < MESSAGES {} };
        timeout(60 * SECOND, reading).await.expect("nobody holds it up");
    };
    sea.next().await;
    read(&mut sea.watch).await;
    for watch in &mut paused {
        read(watch).await;
    }
    assert_eq!(sea.shore.starts().len(), STREAMS + 1, "none was opened twice");
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_resync_is_complete_does_not_go_on_from_the_lost_position() {
    let resync = message(0, Body::Resync(v1::WatchResync::default()));
    let mut sea = Sea::start([
        Script::says([opened(), batch(7, &["crd_a"], false)]).then(Status::unavailable("gone")),
        Script::says([opened(), Message { resume_token: Vec::new(), ..resync }]).then(Status::unavailable("gone")),
        Script::says([opened()]),
    ])
    .await;
    for _ in 0..2 {
        sea.next().await;
    }
    sea.next_after(SECOND / 5).await;
    sea.next().await;
    sea.next_after(2 * SECOND / 5).await;
    let resumed = Start::ResumeToken(b"after 7".to_vec());
    assert_eq!(sea.shore.starts(), [None, Some(resumed), Some(Start::Snapshot(true))]);
}

#[tokio::test]
async fn a_position_that_is_lost_or_refused_is_not_asked_for_again() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let refused = ErrorDetails::with_bad_request_violation("resume_token", "belongs to another caller");
    for refusal in [
        Status::with_error_details(Code::InvalidArgument, "another's", refused),
        Status::out_of_range("events up to there are gone"),
    ] {
        let mut sea = Sea::start([
            Script::says([opened(), batch(7, &["crd_a"], false)]).then(Status::unavailable("gone")),
            Script::refuses(refusal.clone()),
            Script::says([opened()]),
        ])
        .await;
        for _ in 0..2 {
            sea.next().await;
        }
        let error = sea.try_moving(is_back_off, &mut Vec::new()).await.expect_err("it is refused");
        assert_eq!(error.code, refusal.code());
        sea.next_after(2 * SECOND / 5).await;
        let resumed = Start::ResumeToken(b"after 7".to_vec());
        assert_eq!(sea.shore.starts(), [None, Some(resumed), Some(Start::Snapshot(true))]);
    }
}

#[tokio::test]
async fn a_fault_inside_the_broker_ends_no_watch() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let details = ErrorDetails::with_error_info("INTERNAL", "claviger", std::collections::HashMap::new());
    let fault = Status::with_error_details(Code::Internal, "a fault", details);
    let mut sea = Sea::start([Script::says([opened()]).then(fault), Script::says([opened()])]).await;
    sea.next().await;
    sea.next_after(SECOND / 5).await;
}

#[tokio::test]
async fn fragments_arrive_as_one_batch_and_half_of_them_never() {
    let mut sea = Sea::start([
        Script::says([batch(7, &["crd_a"], true)]).then(Status::unavailable("gone")),
        Script::says([batch(7, &["crd_a", "crd_b"], true), batch(7, &["crd_c"], false)]),
    ])
    .await;
    let Some(Body::Batch(whole)) = sea.next_after(SECOND / 5).await.body else { panic!("a batch was sent") };
    let ids: Vec<_> =
        whole.events.iter().filter_map(|event| event.status.as_ref()).map(|s| &*s.credential_id).collect();
    assert_eq!(ids, ["crd_a", "crd_b", "crd_c"]);
}

#[tokio::test]
async fn three_missed_progress_messages_mean_that_the_peer_is_gone() {
    let mut sea = Sea::start([Script::says([opened_with_interval(5), progress(7)]), Script::says([opened()])]).await;
    sea.next().await;
    sea.next().await;
    let mut waits = Vec::new();
    let mut gone = false;
    let once_silent = |wait| is_back_off(wait) && (wait != 15 * SECOND || !std::mem::replace(&mut gone, true));
    sea.next_moving(once_silent, &mut waits).await;
    assert_eq!(waits, [15 * SECOND, SECOND / 5], "three intervals of five seconds, then the back-off");
}

#[tokio::test]
async fn a_refusal_that_waiting_cannot_cure_is_returned_and_can_be_tried_again() {
    let mut sea = Sea::start([Script::refuses(Status::unauthenticated("expired")), Script::says([opened()])]).await;
    let error = sea.watch.next().await.expect_err("the first try is refused");
    assert_eq!(error.code, Code::Unauthenticated);
    sea.next_after(SECOND / 5).await;
}

/// A watch, and what it is watched through.
struct Sea {
    watch: Watch,
    client: Client,
    clock: Arc<HandClock>,
    sleeps: mpsc::UnboundedReceiver<Timestamp>,
    shore: Shore,
}

impl Sea {
    async fn start<S: IntoIterator<Item = Script, IntoIter: Send + 'static>>(scripts: S) -> Self {
        let mut scripts = scripts.into_iter();
        let shore = Shore::playing(move |_| scripts.next().expect("a script for every stream"));
        let client = serve(shore.clone()).await;
        let (asked, sleeps) = mpsc::unbounded_channel();
        let clock = Arc::new(HandClock { now: watch::Sender::new(Timestamp::from_secs(1_000)), asked });
        let longest = Box::new(|ceiling| ceiling);
        let watch = Watch::new(client.clone(), WatchCredentialStatusRequest::default(), clock.clone(), longest);
        Self { watch, client, clock, sleeps, shore }
    }

    /// The next message, while no time passes.
    async fn next(&mut self) -> Message {
        self.watch.next().await.expect("the watch goes on")
    }

    /// The next message, which must come after exactly one wait.
    async fn next_after(&mut self, expected: Duration) -> Message {
        let mut waits = Vec::new();
        let message = self.next_moving(is_back_off, &mut waits).await;
        assert_eq!(waits, [expected]);
        message
    }

    /// The next message, moving the clock on wherever the loop sleeps for something that `moves` accepts.
    async fn next_moving(&mut self, moves: impl FnMut(Duration) -> bool, waits: &mut Vec<Duration>) -> Message {
        self.try_moving(moves, waits).await.expect("the watch goes on")
    }

    async fn try_moving(
        &mut self,
        mut moves: impl FnMut(Duration) -> bool,
        waits: &mut Vec<Duration>,
    ) -> Result<Message, ClientError> {
        while self.sleeps.try_recv().is_ok() {}
        let next = self.watch.next();
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                message = &mut next => return message,
                Some(until) = self.sleeps.recv() => {
                    let wait = until - self.clock.now();
                    if !wait.is_zero() && moves(wait) {
                        waits.push(wait);
                        self.clock.now.send_replace(until);
                    }
                }
            }
        }
    }
}

/// The loop waits for silence too, for a minute and a half at least unless a test says otherwise.
fn is_back_off(wait: Duration) -> bool {
    wait < 60 * SECOND
}

/// Stands still until it is moved, and tells who sleeps.
struct HandClock {
    now: watch::Sender<Timestamp>,
    asked: mpsc::UnboundedSender<Timestamp>,
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let mut now = self.now.subscribe();
        let asked = self.asked.clone();
        Box::pin(async move {
            asked.send(at).expect("the test is listening");
            now.wait_for(|now| *now >= at).await.expect("the test holds the clock");
        })
    }
}

/// What the server does with one stream.
struct Script {
    says: Vec<Message>,
    ends: End,
}

enum End {
    Refused(Status),
    Broken(Status),
    Closed,
    Hanging,
}

impl Script {
    fn says(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { says: messages.into_iter().collect(), ends: End::Hanging }
    }

    fn then(self, status: Status) -> Self {
        Self { ends: End::Broken(status), ..self }
    }

    fn and_ends(self) -> Self {
        Self { ends: End::Closed, ..self }
    }

    fn refuses(status: Status) -> Self {
        Self { says: Vec::new(), ends: End::Refused(status) }
    }
}

/// A broker that plays one script a stream, and notes where each was to start.
#[derive(Clone)]
struct Shore(Arc<Mutex<Played>>);

struct Played {
    play: Box<dyn FnMut(&WatchCredentialStatusRequest) -> Script + Send>,
    requests: Vec<WatchCredentialStatusRequest>,
    bearers: Vec<String>,
}

impl Shore {
    fn playing(play: impl FnMut(&WatchCredentialStatusRequest) -> Script + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Played { play: Box::new(play), requests: Vec::new(), bearers: Vec::new() })))
    }

    fn bearers(&self) -> Vec<String> {
        self.0.lock().expect("no call panicked").bearers.clone()
    }

    fn requests(&self) -> Vec<WatchCredentialStatusRequest> {
        self.0.lock().expect("no call panicked").requests.clone()
    }

    fn starts(&self) -> Vec<Option<Start>> {
        self.requests().into_iter().map(|request| request.start).collect()
    }
}

#[tonic::async_trait]
impl TokenBrokerService for Shore {
    type WatchCredentialStatusStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

    async fn watch_credential_status(
        &self,
        request: Request<WatchCredentialStatusRequest>,
    ) -> Result<Response<Self::WatchCredentialStatusStream>, Status> {
        let bearer = request.metadata().get("authorization").map(|value| value.as_bytes().to_vec()).unwrap_or_default();
        let mut played = self.0.lock().expect("no call panicked");
        played.bearers.push(String::from_utf8(bearer).expect("a token is text"));
        let request = request.into_inner();
        let Script { says, ends } = (played.play)(&request);
        played.requests.push(request);
        let said = stream::iter(says).map(Ok);
        match ends {
            End::Refused(status) => Err(status),
            End::Broken(status) => Ok(Response::new(Box::pin(said.chain(stream::iter([Err(status)]))))),
            End::Closed => Ok(Response::new(Box::pin(said))),
            End::Hanging => Ok(Response::new(Box::pin(said.chain(stream::pending())))),
        }
    }

    async fn validate_platform_token(
        &self,
        _: Request<v1::ValidatePlatformTokenRequest>,
    ) -> Result<Response<v1::ValidatePlatformTokenResponse>, Status> {
        Err(Status::unimplemented("only the stream is played"))
    }

    async fn get_plugin_token(
        &self,
        _: Request<v1::GetPluginTokenRequest>,
    ) -> Result<Response<v1::GetPluginTokenResponse>, Status> {
        Err(Status::unimplemented("only the stream is played"))
    }

    async fn get_plugin_tokens(
        &self,
        _: Request<v1::GetPluginTokensRequest>,
    ) -> Result<Response<v1::GetPluginTokensResponse>, Status> {
        Err(Status::unimplemented("only the stream is played"))
    }

    async fn store_auth_code(
        &self,
        _: Request<v1::StoreAuthCodeRequest>,
    ) -> Result<Response<v1::StoreAuthCodeResponse>, Status> {
        Err(Status::unimplemented("only the stream is played"))
    }

    async fn report_applied(
        &self,
        _: Request<v1::ReportAppliedRequest>,
    ) -> Result<Response<v1::ReportAppliedResponse>, Status> {
        Err(Status::unimplemented("only the stream is played"))
    }

    async fn revoke(&self, _: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        Err(Status::unimplemented("only the stream is played"))
    }
}

async fn serve(shore: Shore) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let server = Server::builder().add_service(TokenBrokerServiceServer::new(shore));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let connect = Connect { endpoint, ..Connect::default() };
    connect.with_token(&PresentedToken::new("anchor".to_owned())).expect("a loopback endpoint")
}

fn message(revision: u64, body: Body) -> Message {
    Message { resume_token: Vec::new(), revision, body: Some(body) }
}

fn progress(revision: u64) -> Message {
    message(revision, Body::Progress(WatchProgress {}))
}

fn opened() -> Message {
    opened_with_interval(60)
}

fn opened_with_interval(seconds: i64) -> Message {
    let progress_interval = Some(prost_types::Duration { seconds, nanos: 0 });
    message(6, Body::Opened(WatchOpened { progress_interval, ..Default::default() }))
}

fn batch(revision: u64, credentials: &[&str], more_follows: bool) -> Message {
    let event = |id: &&str| CredentialEvent {
        status: Some(CredentialStatus { credential_id: (*id).to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let body = Body::Batch(WatchBatch { events: credentials.iter().map(event).collect(), more_follows });
    let resume_token = if more_follows { Vec::new() } else { format!("after {revision}").into_bytes() };
    Message { resume_token, ..message(revision, body) }
}

fn drain(seconds: i64) -> Message {
    let reconnect_after = Some(prost_types::Duration { seconds, nanos: 0 });
    message(7, Body::Drain(WatchDrain { cause: DrainCause::Shutdown.into(), reconnect_after }))
}
