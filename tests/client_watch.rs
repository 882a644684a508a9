//! The watch loop against a server that breaks off, drains, falls silent and refuses, on a clock that is moved by hand.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use claviger::{
    client::{Client, Connect, Watch},
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
    let mut sea = Sea::start([
        Script::says([opened_with_interval(5), message(7, Body::Progress(WatchProgress {}))]),
        Script::says([opened()]),
    ])
    .await;
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
    clock: Arc<HandClock>,
    sleeps: mpsc::UnboundedReceiver<Timestamp>,
    shore: Shore,
}

impl Sea {
    async fn start(scripts: impl IntoIterator<Item = Script>) -> Self {
        let shore = Shore(Arc::new(Mutex::new(Played { left: scripts.into_iter().collect(), starts: Vec::new() })));
        let client = serve(shore.clone()).await;
        let (asked, sleeps) = mpsc::unbounded_channel();
        let clock = Arc::new(HandClock { now: watch::Sender::new(Timestamp::from_secs(1_000)), asked });
        let longest = Box::new(|ceiling| ceiling);
        let watch = Watch::new(client, WatchCredentialStatusRequest::default(), clock.clone(), longest);
        Self { watch, clock, sleeps, shore }
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
    async fn next_moving(&mut self, mut moves: impl FnMut(Duration) -> bool, waits: &mut Vec<Duration>) -> Message {
        while self.sleeps.try_recv().is_ok() {}
        let next = self.watch.next();
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                message = &mut next => return message.expect("the watch goes on"),
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
    Hanging,
}

impl Script {
    fn says(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { says: messages.into_iter().collect(), ends: End::Hanging }
    }

    fn then(self, status: Status) -> Self {
        Self { ends: End::Broken(status), ..self }
    }

    fn refuses(status: Status) -> Self {
        Self { says: Vec::new(), ends: End::Refused(status) }
    }
}

/// A broker that plays one script a stream, and notes where each was to start.
#[derive(Clone)]
struct Shore(Arc<Mutex<Played>>);

struct Played {
    left: VecDeque<Script>,
    starts: Vec<Option<Start>>,
}

impl Shore {
    fn starts(&self) -> Vec<Option<Start>> {
        self.0.lock().expect("no call panicked").starts.clone()
    }
}

#[tonic::async_trait]
impl TokenBrokerService for Shore {
    type WatchCredentialStatusStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

    async fn watch_credential_status(
        &self,
        request: Request<WatchCredentialStatusRequest>,
    ) -> Result<Response<Self::WatchCredentialStatusStream>, Status> {
        assert_eq!(request.metadata().get("authorization").map(|value| value.as_bytes()), Some(&b"Bearer anchor"[..]));
        let mut played = self.0.lock().expect("no call panicked");
        played.starts.push(request.into_inner().start);
        let Script { says, ends } = played.left.pop_front().expect("a script for every stream");
        let said = stream::iter(says).map(Ok);
        match ends {
            End::Refused(status) => Err(status),
            End::Broken(status) => Ok(Response::new(Box::pin(said.chain(stream::iter([Err(status)]))))),
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
