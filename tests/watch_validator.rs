//! What holds histories against the guarantees finds each violation, and nothing in a good history.

use claviger::proto::v1::{
    self, CredentialEvent, CredentialEventKind as Kind, CredentialStatus, Delivery,
    WatchCredentialStatusRequest as Request, WatchCredentialStatusResponse as Message,
    watch_credential_status_request::Start, watch_credential_status_response::Body, watch_scope::Target,
};
use watch_validator::{Guarantee, History, Log, violations};

#[path = "support/watch_validator.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod watch_validator;

const ALICE: &str = "sub_alice";

fn event(subject: &str, credential: &str, generation: u64) -> CredentialEvent {
    let status = CredentialStatus {
        credential_id: credential.to_owned(),
        subject: subject.to_owned(),
        generation,
        ..CredentialStatus::default()
    };
    CredentialEvent { kind: Kind::Refreshed.into(), occurred_at: None, status: Some(status) }
}

/// Alice's credentials `a` and `b` are refreshed by turns, at 7 both at once; in between somebody else's.
fn log() -> Log {
    let hers = |revision, credential| (revision, vec![event(ALICE, credential, revision)]);
    let both = (7, vec![event(ALICE, "a", 7), event(ALICE, "b", 7), event("sub_bob", "c", 7)]);
    let others = (4, vec![event("sub_bob", "c", 4)]);
    let revisions = [hers(2, "a"), hers(3, "b"), others, hers(5, "a"), both, hers(9, "b")].into_iter().collect();
    Log { compacted: 0, revisions }
}

fn say(revision: u64, token: &str, body: Body) -> Message {
    Message { resume_token: token.into(), revision, body: Some(body) }
}

fn opened(head_revision: u64) -> Message {
    say(0, "", Body::Opened(v1::WatchOpened { head_revision, ..Default::default() }))
}

fn batch(revision: u64) -> Message {
    let events = log().revisions.remove(&revision).unwrap_or_default();
    let events = events.into_iter().filter(|event| event.status.as_ref().is_some_and(|of| of.subject == ALICE));
    let batch = v1::WatchBatch { events: events.collect(), more_follows: false };
    say(revision, &format!("at {revision}"), Body::Batch(batch))
}

fn progress(revision: u64) -> Message {
    say(revision, &format!("at {revision}"), Body::Progress(v1::WatchProgress {}))
}

fn snapshot_end(revision: u64) -> Message {
    say(revision, &format!("at {revision}"), Body::SnapshotEnd(v1::WatchSnapshotEnd {}))
}

fn heard(request: Request, messages: impl IntoIterator<Item = Message>) -> History {
    History { subject: ALICE.to_owned(), request, messages: messages.into_iter().collect() }
}

fn from_now(messages: impl IntoIterator<Item = Message>) -> History {
    heard(Request { start: Some(Start::Now(true)), ..Default::default() }, messages)
}

fn resumed(revision: u64, messages: impl IntoIterator<Item = Message>) -> History {
    let start = Some(Start::ResumeToken(format!("at {revision}").into()));
    heard(Request { start, ..Default::default() }, messages)
}

fn edited(mut message: Message, edit: impl FnOnce(&mut v1::WatchBatch)) -> Message {
    if let Some(Body::Batch(batch)) = &mut message.body {
        edit(batch);
    }
    message
}

#[track_caller]
fn finds(wanted: &[Guarantee], histories: &[History]) {
    let mut found: Vec<_> = violations(&log(), histories).into_iter().map(|violation| violation.guarantee).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, wanted);
}

#[test]
fn a_good_history_has_no_violation() {
    let begins = from_now([opened(1), batch(2), batch(3), progress(4), batch(5)]);
    let goes_on = resumed(5, [opened(9), batch(7), batch(9), progress(12)]);
    let anew = heard(Request::default(), [opened(9), snapshot_end(5), batch(7), batch(9)]);
    let lost = say(9, "", Body::Resync(v1::WatchResync::default()));
    let resynced = resumed(2, [opened(9), lost, snapshot_end(9), progress(9)]);
    finds(&[], &[begins, goes_on, anew, resynced]);
}

#[test]
fn what_was_superseded_may_be_left_out_where_that_was_asked_for() {
    let latest = |messages| {
        let delivery = Delivery::LatestPerCredential.into();
        heard(Request { start: Some(Start::Now(true)), delivery, ..Default::default() }, messages)
    };
    let only_a = edited(batch(7), |batch| batch.events.truncate(1));
    finds(&[], &[latest(vec![opened(1), only_a.clone(), batch(9)])]);
    finds(&[Guarantee::Reliable], &[latest(vec![opened(1), only_a, progress(9)])]);
}

#[test]
fn each_violation_is_found_by_its_name() {
    use Guarantee::{Atomic, Bookmarkable, Durable, Filtered, Ordered, Reliable, Resumable, Unique};
    finds(&[Ordered, Bookmarkable], &[from_now([opened(1), batch(3), batch(2)])]);
    let twice = edited(batch(2), |batch| batch.events.push(batch.events[0].clone()));
    finds(&[Unique], &[from_now([opened(1), twice])]);
    finds(&[Reliable], &[from_now([opened(1), batch(2), batch(5)])]);
    finds(&[Reliable], &[from_now([opened(1), batch(2), progress(3)])]);
    let half = |more_follows| {
        edited(batch(7), |batch| {
            batch.events.truncate(1);
            batch.more_follows = more_follows;
        })
    };
    finds(&[Reliable, Atomic], &[from_now([opened(6), half(false)])]);
    finds(&[Reliable, Atomic], &[from_now([opened(6), half(true), batch(9)])]);
    let before = from_now([opened(1), batch(2), batch(3)]);
    finds(&[Resumable], &[before.clone(), resumed(3, [opened(9), batch(3), batch(5)])]);
    finds(&[Reliable], &[before, resumed(3, [opened(9), batch(7)])]);
    finds(&[Bookmarkable], &[from_now([opened(1), batch(2), batch(3), progress(5), batch(5)])]);
    finds(&[Bookmarkable], &[heard(Request::default(), [opened(1), snapshot_end(5), batch(5)])]);
    let others = edited(batch(7), |batch| batch.events.push(event("sub_bob", "c", 7)));
    finds(&[Filtered], &[from_now([opened(6), others])]);
    let scopes = vec![v1::WatchScope { target: Some(Target::CredentialId("a".to_owned())) }];
    let only_a = heard(Request { start: Some(Start::Now(true)), scopes, ..Default::default() }, [opened(2), batch(3)]);
    finds(&[Filtered], &[only_a]);
    let rewritten = edited(batch(2), |batch| batch.events[0] = event(ALICE, "a", 3));
    finds(&[Reliable, Durable], &[from_now([opened(1), rewritten])]);
}
