//! A log, and a broker that serves it badly: streams break in the middle of a revision or of a snapshot, drain, resync
//! and end; the program that watches dies as well. What it heard is judged against the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use claviger::{
    client::{Heard, ResumeFile, View, Watch},
    domain::{BoxFuture, Clock, Timestamp},
    proto::v1::{
        CredentialEvent, CredentialEventKind as Kind, CredentialState as State, CredentialStatus, Delivery,
        ErrorReason, WatchBatch, WatchCredentialStatusRequest as Request, WatchCredentialStatusResponse as Message,
        WatchOpened, WatchProgress, WatchResync, WatchSnapshot, WatchSnapshotEnd,
        watch_credential_status_request::Start, watch_credential_status_response::Body,
    },
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::{
    Script, Shore, drain, serve,
    watch_validator::{History, Log, assert_valid},
};

/// Bounds what would hang.
const PATIENCE: Duration = Duration::from_secs(60);
const SUBJECT: &str = "sub_alice";
const REVISIONS: u64 = 40;
/// Streams that break; the one after them does not.
const BROKEN: usize = 25;

/// The same numbers for the same seed (SplitMix64).
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Four accounts; one that is revoked is connected anew as another credential.
fn log(chance: &mut Chance) -> Log {
    let mut log = Log::default();
    let mut credentials: Vec<CredentialStatus> = (0..4).map(fresh).collect();
    for revision in 1..=REVISIONS {
        let mut events = Vec::new();
        for (account, status) in (0..).zip(&mut credentials) {
            // No revision is empty.
            if chance.one_in(2) && !(events.is_empty() && account == 3) {
                continue;
            }
            let (kind, state) = match chance.below(8) {
                _ if status.generation == 0 => (Kind::Connected, State::Connected),
                0 => (Kind::Expiring, State::Expiring),
                1 => (Kind::RefreshFailing, State::RefreshFailing),
                2 => (Kind::Revoked, State::Revoked),
                _ => (Kind::Refreshed, State::Connected),
            };
            status.generation += u64::from(state == State::Connected);
            status.state = state.into();
            events.push(CredentialEvent { kind: kind.into(), status: Some(status.clone()), ..Default::default() });
            if state == State::Revoked {
                *status = fresh(4 * revision + account);
            }
        }
        log.revisions.insert(revision, events);
    }
    log
}

fn fresh(number: u64) -> CredentialStatus {
    CredentialStatus {
        credential_id: format!("crd_{number}"),
        connection_id: format!("con_{number}"),
        subject: SUBJECT.to_owned(),
        ..Default::default()
    }
}

/// What is there after all events up to a revision.
fn state(log: &Log, at: u64) -> Vec<CredentialStatus> {
    let mut state = BTreeMap::new();
    for event in log.revisions.range(..=at).flat_map(|(_, events)| events) {
        let status = event.status.clone().unwrap();
        state.insert(status.credential_id.clone(), status);
    }
    state.retain(|_, status| status.state() != State::Revoked);
    state.into_values().collect()
}

fn message(revision: u64, body: Body) -> Message {
    Message { resume_token: Vec::new(), revision, body: Some(body) }
}

fn bookmarked(revision: u64, body: Body) -> Message {
    Message { resume_token: revision.to_string().into_bytes(), ..message(revision, body) }
}

fn snapshot(log: &Log, at: u64, says: &mut Vec<Message>) {
    let parts = state(log, at);
    says.extend(parts.chunks(2).map(|part| message(at, Body::Snapshot(WatchSnapshot { statuses: part.to_vec() }))));
    says.push(bookmarked(at, Body::SnapshotEnd(WatchSnapshotEnd {})));
}

/// All that one stream would say if it lasted, and after how many messages it may break: where what was left out is
/// superseded already.
fn whole_stream(log: &Log, request: &Request, head: u64, chance: &mut Chance) -> (Vec<Message>, Vec<usize>) {
    let latest = request.delivery() == Delivery::LatestPerCredential;
    let resumed = match &request.start {
        Some(Start::ResumeToken(token)) => Some(String::from_utf8_lossy(token).parse::<u64>().unwrap()),
        _ => None,
    };
    let opened = WatchOpened { head_revision: REVISIONS, ..Default::default() };
    let mut says = vec![message(resumed.unwrap_or(0), Body::Opened(opened))];
    // A snapshot is never of an earlier time than what was told already.
    let mut at = resumed.unwrap_or_else(|| head.max(1 + chance.below(REVISIONS / 2)));
    if resumed.is_none() || chance.one_in(6) {
        if resumed.is_some() {
            let reason = ErrorReason::RevisionCompacted.into();
            says.push(message(at, Body::Resync(WatchResync { reason })));
            at = (at + chance.below(5)).min(REVISIONS);
        }
        snapshot(log, at, &mut says);
    }
    let mut breaks: Vec<usize> = (1..=says.len()).collect();
    while at < REVISIONS {
        let before = says.len();
        let end = if latest { (at + 1 + chance.below(8)).min(REVISIONS) } else { at + 1 };
        for (revision, events) in log.revisions.range(at + 1..=end) {
            let superseded = |event: &&CredentialEvent| !later(log, *revision, end).contains(id(event));
            let events: Vec<_> = events.iter().filter(superseded).cloned().collect();
            let fragments = events.chunks(1 + chance.below(4) as usize);
            let last = fragments.len();
            for (index, fragment) in fragments.enumerate() {
                let more_follows = index + 1 < last;
                let body = Body::Batch(WatchBatch { events: fragment.to_vec(), more_follows });
                says.push(if more_follows { message(*revision, body) } else { bookmarked(*revision, body) });
            }
        }
        at = end;
        breaks.extend(if latest { says.len()..=says.len() } else { before + 1..=says.len() });
        if chance.one_in(5) {
            says.push(bookmarked(at, Body::Progress(WatchProgress {})));
        }
    }
    says.push(bookmarked(REVISIONS, Body::Progress(WatchProgress {})));
    (says, breaks)
}

fn id(event: &CredentialEvent) -> &str {
    event.status.as_ref().map_or("", |status| &status.credential_id)
}

/// Whose events follow after a revision, up to another.
fn later(log: &Log, after: u64, end: u64) -> BTreeSet<&str> {
    let between = (Bound::Excluded(after), Bound::Included(end));
    log.revisions.range(between).flat_map(|(_, events)| events).map(id).collect()
}

fn broken(log: Log, mut chance: Chance) -> Shore {
    let (mut opened, mut head) = (0, 0);
    Shore::playing(move |request| {
        let (mut says, breaks) = whole_stream(&log, request, head, &mut chance);
        opened += 1;
        if opened > BROKEN {
            return Script::says(says);
        }
        says.truncate(breaks[chance.below(breaks.len() as u64) as usize]);
        let at = says.last().map_or(0, |message| message.revision);
        head = head.max(at);
        match chance.below(3) {
            0 => Script::says(says).then(Status::unavailable("gone")),
            1 => Script::says(says).and_ends(),
            _ => {
                says.push(Message { revision: at, ..drain(1) });
                Script::says(says).then(Status::unavailable("shutting down"))
            }
        }
    })
}

/// Waits for nothing but silence, which never comes.
struct Leaping;

impl Clock for Leaping {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_000)
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let silence = at - self.now() >= Duration::from_secs(60);
        Box::pin(async move {
            if silence {
                std::future::pending::<()>().await;
            }
        })
    }
}

async fn hear_all(seed: u64, delivery: Delivery) {
    let mut chance = Chance(seed);
    let log = log(&mut chance);
    let shore = broken(log.clone(), chance.clone());
    let client = serve(shore.clone()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("position");
    let begin = || {
        let mut request = Request { delivery: delivery.into(), ..Default::default() };
        let file = ResumeFile::open(&path, &mut request).unwrap();
        (Watch::new(client.clone(), request, std::sync::Arc::new(Leaping), Box::new(|ceiling| ceiling)), file)
    };
    let (mut watch, mut file) = begin();
    let (mut view, mut heard) = (View::default(), Vec::<Vec<Message>>::new());
    let mut complete = false;
    while !complete {
        let message = match timeout(PATIENCE, watch.hear()).await.unwrap().unwrap() {
            Heard::Message(message) => message,
            Heard::Interrupted(interruption) => {
                let cause = interruption.cause.map(|cause| cause.code);
                assert!(cause.is_none_or(|cause| cause == Code::Unavailable), "{cause:?}");
                continue;
            }
        };
        view.apply(&message);
        match &message.body {
            Some(Body::Resync(_)) => {
                file.lost();
                file.save().unwrap();
            }
            _ => file.applied(&message.resume_token),
        }
        let is_last = shore.requests().len() > BROKEN;
        complete = is_last && matches!(&message.body, Some(Body::Progress(_))) && message.revision == REVISIONS;
        match &message.body {
            Some(Body::Opened(_)) => heard.push(vec![message]),
            _ => heard.last_mut().unwrap().push(message),
        }
        if chance.one_in(6) {
            file.save().unwrap();
        }
        // The program dies, and what it did not write down comes again. (Not where its death would leave out what was
        // about to be superseded: on the stream that it left, that is missing.)
        if !complete && delivery == Delivery::EveryEvent && chance.one_in(30) {
            (watch, file) = begin();
        }
    }
    let mut histories: Vec<History> = std::iter::zip(shore.requests(), heard)
        .map(|(request, messages)| History { subject: SUBJECT.to_owned(), request, messages, must_reach: None })
        .collect();
    assert_eq!(histories.len(), shore.requests().len());
    histories.last_mut().unwrap().must_reach = Some(REVISIONS);
    assert_valid(&log, &histories);
    let known: Vec<_> = view.statuses().cloned().collect();
    assert_eq!(known, state(&log, REVISIONS), "seed {seed}");
}

#[tokio::test]
async fn however_often_the_stream_breaks_nothing_is_missed_and_the_view_is_what_the_log_adds_up_to() {
    for seed in 0..8 {
        hear_all(seed, Delivery::EveryEvent).await;
        hear_all(seed, Delivery::LatestPerCredential).await;
    }
}
