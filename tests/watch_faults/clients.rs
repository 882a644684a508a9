//! Watchers as they should be, by `claviger::client::Watch`, with all that they hear on record.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger::{
    app::SystemClock,
    client::{Client, Watch},
    domain::{Clock as _, Timestamp},
    proto::v1::{
        self, OnLost, WatchCredentialStatusRequest as Request, WatchCredentialStatusResponse as Message,
        token_broker_service_client::TokenBrokerServiceClient, watch_credential_status_request::Start,
        watch_credential_status_response::Body,
    },
};
use futures_util::future::select_all;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle, JoinSet},
    time::timeout,
};

use tonic::transport::{Channel, Endpoint};

use crate::{place::Person, watch_validator::History};

/// What has not come by then never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns in a second, as the broker plans them.
const PACE: f64 = 500.0;

/// What all streams heard, in the order in which they were opened.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<History>>>);

/// Where a watcher stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Streams that were opened so far.
    pub(crate) streams: u32,
    /// The newest of them in the record.
    stream: usize,
    /// The snapshot is whole, or the stream was resumed.
    pub(crate) synced: bool,
    /// The newest of any credential.
    pub(crate) generation: u64,
    /// Up to where everything was heard.
    pub(crate) revision: u64,
    /// When each stream was opened.
    pub(crate) opened: Vec<Timestamp>,
    /// When each drain said to come again.
    pub(crate) returns: Vec<Timestamp>,
    pub(crate) token: Vec<u8>,
}

pub(crate) type Heard = watch::Receiver<Standing>;

/// Watchers under way. All end when this goes.
pub(crate) struct Watchers {
    pub(crate) record: Record,
    /// The longest that one backs off for: where a broker is gone for longer than a test has time.
    longest: Duration,
    all: Vec<Heard>,
    running: JoinSet<()>,
}

impl Record {
    pub(crate) fn begin(&self, subject: &str, request: Request) -> usize {
        let mut histories = self.lock();
        histories.push(History { subject: subject.to_owned(), request, messages: Vec::new(), must_reach: None });
        histories.len() - 1
    }

    pub(crate) fn hear(&self, stream: usize, message: Message) {
        self.lock()[stream].messages.push(message);
    }

    /// A watcher's present stream is to come so far by its end.
    pub(crate) fn must_reach(&self, standing: &Heard, revision: u64) {
        self.lock()[standing.borrow().stream].must_reach = Some(revision);
    }

    pub(crate) fn histories(&self) -> Vec<History> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<History>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    pub(crate) fn hear(&mut self, message: &Message) {
        let generation = |status: &v1::CredentialStatus| status.generation;
        match &message.body {
            Some(Body::Opened(_)) => {
                self.streams += 1;
                self.opened.push(SystemClock.now());
                self.synced = !message.resume_token.is_empty();
            }
            Some(Body::SnapshotEnd(_)) => self.synced = true,
            Some(Body::Resync(_)) => self.synced = false,
            Some(Body::Snapshot(part)) => {
                self.generation = part.statuses.iter().map(generation).fold(self.generation, u64::max);
            }
            Some(Body::Batch(batch)) => {
                let statuses = batch.events.iter().filter_map(|event| event.status.as_ref());
                self.generation = statuses.map(generation).fold(self.generation, u64::max);
            }
            Some(Body::Drain(drain)) => {
                let after = drain.reconnect_after.map(|after| Duration::try_from(after).unwrap());
                self.returns.push(SystemClock.now().plus(after.unwrap_or_default()));
            }
            Some(Body::Progress(_)) | None => {}
        }
        if matches!(&message.body, Some(Body::Batch(_) | Body::SnapshotEnd(_) | Body::Progress(_))) {
            self.revision = message.revision;
        }
        if !message.resume_token.is_empty() {
            self.token.clone_from(&message.resume_token);
        }
    }
}

impl Default for Watchers {
    fn default() -> Self {
        Self::who_back_off_for(Duration::from_millis(500))
    }
}

impl Watchers {
    pub(crate) fn who_back_off_for(longest: Duration) -> Self {
        Self { record: Record::default(), longest, all: Vec::new(), running: JoinSet::new() }
    }

    /// One more, from where `request` says.
    pub(crate) fn add(&mut self, client: Client, subject: &str, request: Request) -> AbortHandle {
        let (tell, standing) = watch::channel(Standing::default());
        let seed = self.all.len();
        self.all.push(standing);
        let (mut dice, longest) = (Dice(seed as u64), self.longest);
        let jitter = Box::new(move |ceiling: Duration| ceiling.min(longest).mul_f64(dice.part()));
        let watching = Watch::new(client, request.clone(), Arc::new(SystemClock), jitter);
        self.running.spawn(watch_on(watching, subject.to_owned(), request, self.record.clone(), tell))
    }

    pub(crate) fn standings(&self) -> &[Heard] {
        &self.all
    }

    /// Returns once `wanted` holds for every watcher.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Standing) -> bool) {
        tokio::select! {
            () = all_reach(&self.all, what, wanted) => {}
            // They go on until they are told to stop.
            Some(Err(error)) = self.running.join_next() => assert!(error.is_cancelled(), "a watcher ended: {error}"),
        }
    }

    /// Returns once `wanted` holds for one of them.
    pub(crate) async fn until_any(&self, wanted: impl Fn(&Standing) -> bool) {
        let waiting = self.all.iter().map(|standing| {
            let (mut standing, wanted) = (standing.clone(), &wanted);
            Box::pin(async move { drop(standing.wait_for(|standing| wanted(standing)).await) })
        });
        timeout(PATIENCE, select_all(waiting)).await.expect("nobody gets there");
    }

    /// The newest that anybody has heard.
    pub(crate) fn generation(&self) -> u64 {
        self.all.iter().map(|standing| standing.borrow().generation).max().unwrap_or(0)
    }
}

async fn watch_on(
    mut watching: Watch,
    subject: String,
    mut request: Request,
    record: Record,
    standing: watch::Sender<Standing>,
) {
    let mut stream = None;
    loop {
        let message = watching.next().await.unwrap_or_else(|error| panic!("{error:?}"));
        if let Some(Body::Opened(_)) = &message.body {
            stream = Some(record.begin(&subject, request.clone()));
        }
        if !message.resume_token.is_empty() {
            request.start = Some(Start::ResumeToken(message.resume_token.clone()));
        }
        let number = stream.expect("the first message opens the stream");
        standing.send_modify(|standing| {
            standing.stream = number;
            standing.hear(&message);
        });
        record.hear(number, message);
    }
}

pub(crate) fn from_snapshot() -> Request {
    Request { start: Some(Start::Snapshot(true)), on_lost: OnLost::Fail.into(), ..Request::default() }
}

/// Streams of one connection, opened by hand: with windows that are full after two events, so that whoever stops reading
/// cannot even be sent a drain.
pub(crate) struct Narrow {
    client: TokenBrokerServiceClient<Channel>,
    wake: watch::Sender<bool>,
    standings: Vec<Heard>,
    streams: Vec<JoinHandle<()>>,
}

impl Narrow {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::over(Endpoint::from_shared(format!("http://{address}")).unwrap())
    }

    pub(crate) fn over(endpoint: Endpoint) -> Self {
        let client = TokenBrokerServiceClient::new(endpoint.initial_stream_window_size(1024).connect_lazy());
        Self { client, wake: watch::Sender::new(false), standings: Vec::new(), streams: Vec::new() }
    }

    /// Each is read until it has a token; one that stalls no further, before [`Self::wake`].
    pub(crate) async fn open(&mut self, count: usize, stalls: bool, person: &Person, record: &Record) {
        for _ in 0..count {
            let mut request = tonic::Request::new(from_snapshot());
            let bearer = format!("Bearer {}", person.token.expose()).parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
            let mut stream = self.client.watch_credential_status(request).await.unwrap().into_inner();
            let (number, (tell, standing)) =
                (record.begin(&person.subject, from_snapshot()), watch::channel(Standing::default()));
            let record = record.clone();
            let hear = move |message: Message| {
                tell.send_modify(|standing| standing.hear(&message));
                record.hear(number, message);
            };
            while !standing.borrow().synced {
                hear(stream.message().await.unwrap().unwrap());
            }
            let mut woken = self.wake.subscribe();
            self.standings.push(standing);
            self.streams.push(tokio::spawn(async move {
                if stalls {
                    drop(woken.wait_for(|woken| *woken).await);
                }
                while let Ok(Some(message)) = stream.message().await {
                    hear(message);
                }
            }));
        }
    }

    /// Those that stalled read on.
    pub(crate) fn wake(&self) {
        self.wake.send_replace(true);
    }

    pub(crate) fn standings(&self) -> &[Heard] {
        &self.standings
    }

    /// Returns when all streams have ended.
    pub(crate) async fn ended(&mut self) {
        for stream in self.streams.drain(..) {
            timeout(PATIENCE, stream).await.expect("the stream does not end").unwrap();
        }
    }
}

/// Returns once `wanted` holds for all.
pub(crate) async fn all_reach(standings: &[Heard], what: &str, wanted: impl Fn(&Standing) -> bool) {
    let waiting = async {
        for standing in standings {
            drop(standing.clone().wait_for(|standing| wanted(standing)).await);
        }
    };
    drop(timeout(PATIENCE, waiting).await);
    let late = standings.iter().filter(|standing| !wanted(&standing.borrow())).count();
    assert_eq!(late, 0, "of {} so many are not {what} in time", standings.len());
}

/// The most in one second, wherever it begins, over the mean of those in the middle: one that was late by far says little
/// about the others. The mean is not above the pace that is meant: who all come at once are not evenly spread.
pub(crate) fn crowding(mut times: Vec<Timestamp>) -> f64 {
    times.sort_unstable();
    let until = |from: Timestamp| times.partition_point(|time| *time < from.plus(Duration::from_secs(1)));
    let most = times.iter().enumerate().map(|(index, from)| until(*from) - index).max().unwrap();
    let (first, last) = (times.len() / 10, times.len() * 9 / 10);
    let mean = ((last - first) as f64 / (times[last] - times[first]).as_secs_f64()).min(PACE);
    most as f64 / mean
}

/// SplitMix64: as good as needed for choosing, and the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % end
    }

    fn part(&mut self) -> f64 {
        self.below(1 << 32) as f64 / (1_u64 << 32) as f64
    }
}
