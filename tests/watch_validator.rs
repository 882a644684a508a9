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

/// Access to `a` is lost at 6 and gained at 12; what happens to it in between is nobody's.
fn log_with_a_gap() -> Log {
    let mut log = log();
    let of_a = |kind: Kind, generation| {
        let mut event = event(ALICE, "a", generation);
        event.kind = kind.into();
        event
    };
    log.revisions.insert(6, vec![of_a(Kind::AccessLost, 0)]);
    log.revisions.insert(12, vec![of_a(Kind::AccessGained, 7)]);
    log.revisions.insert(13, vec![event(ALICE, "a", 8)]);
    log
}

/// A batch of that log, all of Alice's.
fn beside_a_gap(revision: u64) -> Message {
    let events = log_with_a_gap().revisions.remove(&revision).unwrap_or_default();
    let events = events.into_iter().filter(|event| event.status.as_ref().is_some_and(|of| of.subject == ALICE));
    let batch = v1::WatchBatch { events: events.collect(), more_follows: false };
    say(revision, &format!("at {revision}"), Body::Batch(batch))
}

/// Lists what the log adds up to.
fn snapshot(revision: u64, generations: [(&str, u64); 2]) -> Message {
    let status = |(credential, generation)| event(ALICE, credential, generation).status.unwrap_or_default();
    say(revision, "", Body::Snapshot(v1::WatchSnapshot { statuses: generations.map(status).to_vec() }))
}

fn progress(revision: u64) -> Message {
    say(revision, &format!("at {revision}"), Body::Progress(v1::WatchProgress {}))
}

fn snapshot_end(revision: u64) -> Message {
    say(revision, &format!("at {revision}"), Body::SnapshotEnd(v1::WatchSnapshotEnd {}))
}

fn heard(request: Request, messages: impl IntoIterator<Item = Message>) -> History {
    History { subject: ALICE.to_owned(), request, messages: messages.into_iter().collect(), must_reach: None }
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
    finds_in(&log(), wanted, histories);
}

#[track_caller]
fn finds_in(log: &Log, wanted: &[Guarantee], histories: &[History]) {
    let mut found: Vec<_> = violations(log, histories).into_iter().map(|violation| violation.guarantee).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, wanted);
}

#[test]
fn a_good_history_has_no_violation() {
    let begins = from_now([opened(1), batch(2), batch(3), progress(4), batch(5)]);
    let goes_on = resumed(5, [opened(9), batch(7), batch(9), progress(12)]);
    let anew =
        heard(Request::default(), [opened(9), snapshot(5, [("a", 5), ("b", 3)]), snapshot_end(5), batch(7), batch(9)]);
    let lost = say(9, "", Body::Resync(v1::WatchResync::default()));
    let resynced = resumed(2, [opened(9), lost, snapshot(9, [("a", 7), ("b", 9)]), snapshot_end(9), progress(9)]);
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
    finds(
        &[Bookmarkable],
        &[heard(Request::default(), [opened(1), snapshot(5, [("a", 5), ("b", 3)]), snapshot_end(5), batch(5)])],
    );
    let others = edited(batch(7), |batch| batch.events.push(event("sub_bob", "c", 7)));
    finds(&[Filtered], &[from_now([opened(6), others])]);
    let scopes = vec![v1::WatchScope { target: Some(Target::CredentialId("a".to_owned())) }];
    let only_a = heard(Request { start: Some(Start::Now(true)), scopes, ..Default::default() }, [opened(2), batch(3)]);
    finds(&[Filtered], &[only_a]);
    let rewritten = edited(batch(2), |batch| batch.events[0] = event(ALICE, "a", 3));
    finds(&[Reliable, Durable], &[from_now([opened(1), rewritten])]);
}

#[test]
fn a_snapshot_lists_exactly_what_the_log_adds_up_to() {
    use Guarantee::{Atomic, Durable, Filtered, Reliable, Unique};
    let finds = |wanted: &[Guarantee], listed: &[(u64, &str, u64)]| {
        let chunks = listed.iter().map(|(revision, credential, generation)| {
            let statuses = vec![event(ALICE, credential, *generation).status.unwrap_or_default()];
            say(*revision, "", Body::Snapshot(v1::WatchSnapshot { statuses }))
        });
        let messages = std::iter::once(opened(5)).chain(chunks).chain([snapshot_end(5), progress(5)]);
        finds(wanted, &[heard(Request::default(), messages)]);
    };
    finds(&[], &[(5, "a", 5), (5, "b", 3)]);
    finds(&[Reliable], &[(5, "a", 5)]);
    finds(&[Durable], &[(5, "a", 2), (5, "b", 3)]);
    finds(&[Filtered], &[(5, "a", 5), (5, "b", 3), (5, "z", 1)]);
    finds(&[Unique], &[(5, "a", 5), (5, "b", 3), (5, "b", 3)]);
    finds(&[Atomic], &[(4, "a", 5), (5, "b", 3)]);

    let mut revoked = event(ALICE, "b", 3);
    revoked.status.as_mut().unwrap().state = v1::CredentialState::Revoked.into();
    let mut log = log();
    log.revisions.insert(4, vec![revoked]);
    let listed = [opened(5), snapshot(5, [("a", 5), ("b", 3)]), snapshot_end(5)];
    finds_in(&log, &[Filtered], &[heard(Request::default(), listed)]);
}

#[test]
fn from_the_loss_of_access_to_its_gain_nothing_of_a_credential_may_come() {
    use Guarantee::{Filtered, Reliable};
    let finds = |wanted: &[Guarantee], messages: Vec<Message>| {
        finds_in(&log_with_a_gap(), wanted, &[from_now(messages)]);
    };
    let only_b = || {
        edited(batch(7), |batch| {
            batch.events.remove(0);
        })
    };
    let (lost, gained, after) = (beside_a_gap(6), beside_a_gap(12), beside_a_gap(13));
    let whole = |from: Vec<Message>| [from, vec![only_b(), batch(9), gained.clone(), after.clone()]].concat();
    finds(&[], whole(vec![opened(1), batch(2), batch(3), batch(5), lost.clone()]));
    // What had not left when access was lost stays away; what was left out before something newer of it came does not.
    finds(&[], whole(vec![opened(1), batch(3), lost.clone()]));
    finds(&[Reliable], whole(vec![opened(1), batch(3), batch(5), lost.clone()]));
    finds(&[Reliable], whole(vec![opened(1), batch(2), batch(3), batch(5)]));
    finds(&[Filtered], vec![opened(5), lost.clone(), batch(7), batch(9), gained.clone(), after.clone()]);
    finds(&[Reliable], vec![opened(5), lost.clone(), only_b(), batch(9), after.clone()]);
    finds(&[Reliable], vec![opened(5), lost.clone(), only_b(), batch(9), gained, progress(13)]);

    let kinds = vec![Kind::Connected.into()];
    let unwanted = |messages| {
        heard(Request { start: Some(Start::Now(true)), kinds: kinds.clone(), ..Default::default() }, messages)
    };
    finds_in(&log_with_a_gap(), &[], &[unwanted(vec![opened(5), lost, progress(13)])]);
    finds_in(&log_with_a_gap(), &[Reliable], &[unwanted(vec![opened(5), progress(13)])]);

    let listing = |generations| vec![opened(9), snapshot(9, generations), snapshot_end(9)];
    let snapshots = heard(Request::default(), listing([("a", 7), ("b", 9)]));
    finds_in(&log_with_a_gap(), &[Filtered], &[snapshots]);
}

#[test]
fn a_stream_that_is_read_comes_as_far_as_it_must() {
    let reaching = |must_reach, messages: Vec<Message>| History { must_reach: Some(must_reach), ..from_now(messages) };
    finds(&[], &[reaching(9, vec![opened(6), batch(7), batch(9)])]);
    finds(&[], &[reaching(20, vec![opened(6), batch(7), batch(9)])]);
    finds(&[Guarantee::Isolated], &[reaching(9, vec![opened(6), batch(7)])]);
    finds(&[Guarantee::Isolated], &[reaching(9, vec![])]);
    let snapshot_only = heard(Request::default(), [opened(9)]);
    finds(&[Guarantee::Isolated], &[History { must_reach: Some(9), ..snapshot_only }]);
}
