use std::{collections::BTreeSet, ops::Range};

use proptest::prelude::*;

use super::*;
use crate::proto::v1::{WatchOpened, WatchResync, WatchSnapshot, WatchSnapshotEnd};

/// What can happen to one credential, as numbers that the log below makes sense of.
type Happening = (u8, u8);

/// A history as a broker would log it: one revision each, generations that rise, states that follow from what happened.
fn log(happenings: &[Happening]) -> Vec<(u64, CredentialEvent)> {
    let mut statuses = BTreeMap::new();
    let mut log = Vec::new();
    for (revision, (credential, what)) in (1..).zip(happenings) {
        let status = statuses.entry(*credential).or_insert_with(|| CredentialStatus {
            credential_id: format!("crd_{credential}"),
            state: CredentialState::Pending.into(),
            ..Default::default()
        });
        let (kind, state) = match what % 8 {
            0 | 1 => (Kind::Refreshed, CredentialState::Connected),
            2 => (Kind::Connected, CredentialState::Connected),
            3 => (Kind::Expiring, CredentialState::Expiring),
            4 => (Kind::Revoked, CredentialState::Revoking),
            5 => (Kind::Revoked, CredentialState::Revoked),
            6 => (Kind::AccessLost, CredentialState::Unspecified),
            _ => (Kind::AccessGained, CredentialState::Connected),
        };
        status.generation += u64::from(matches!(kind, Kind::Refreshed | Kind::Connected));
        status.state = state.into();
        let told = match kind {
            // Ids only.
            Kind::AccessLost => CredentialStatus { generation: 0, ..status.clone() },
            _ => status.clone(),
        };
        log.push((revision, CredentialEvent { kind: kind.into(), status: Some(told), ..Default::default() }));
    }
    log
}

fn message(revision: u64, body: Body) -> Message {
    Message { resume_token: Vec::new(), revision, body: Some(body) }
}

fn batch(revision: u64, events: Vec<CredentialEvent>, more_follows: bool) -> Message {
    message(revision, Body::Batch(WatchBatch { events, more_follows }))
}

fn opened() -> Message {
    message(0, Body::Opened(WatchOpened::default()))
}

fn every_event(log: &[(u64, CredentialEvent)]) -> Vec<Message> {
    log.iter().map(|(revision, event)| batch(*revision, vec![event.clone()], false)).collect()
}

/// Each window as one batch with the newest event of each credential, in fragments of two.
fn latest(log: &[(u64, CredentialEvent)], window: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    for window in log.chunks(window) {
        let mut seen = BTreeSet::new();
        let mut newest: Vec<_> = window.iter().rev().map(|(_, event)| event.clone()).collect();
        newest.retain(|event| seen.insert(event.status.clone().unwrap_or_default().credential_id));
        newest.reverse();
        let revision = window.last().map_or(0, |(revision, _)| *revision);
        let fragments = newest.chunks(2).count();
        for (index, fragment) in newest.chunks(2).enumerate() {
            messages.push(batch(revision, fragment.to_vec(), index + 1 < fragments));
        }
    }
    messages
}

fn snapshot(revision: u64, statuses: &[CredentialStatus]) -> Vec<Message> {
    let part = |statuses: &[CredentialStatus]| {
        message(revision, Body::Snapshot(WatchSnapshot { statuses: statuses.to_vec() }))
    };
    let end = message(revision, Body::SnapshotEnd(WatchSnapshotEnd {}));
    statuses.chunks(2).map(part).chain([end]).collect()
}

fn hear(view: &mut View, messages: &[Message]) -> Vec<Change> {
    messages.iter().flat_map(|message| view.apply(message)).collect()
}

fn view_of(messages: &[Message]) -> View {
    let mut view = View::default();
    hear(&mut view, messages);
    view
}

/// What is there after all of it: the last word on each credential, unless that is its end.
fn expected(log: &[(u64, CredentialEvent)]) -> Vec<CredentialStatus> {
    let mut last = BTreeMap::new();
    for (_, event) in log {
        last.insert(event.status.clone().unwrap_or_default().credential_id, event.clone());
    }
    let alive = |event: &CredentialEvent| !matches!(event.kind(), Kind::Revoked | Kind::AccessLost);
    last.into_values().filter(alive).filter_map(|event| event.status).collect()
}

fn known(view: &View) -> Vec<CredentialStatus> {
    view.statuses().cloned().collect()
}

fn happenings(length: Range<usize>) -> impl Strategy<Value = Vec<Happening>> {
    // A credential that was revoked stays so: its account is connected anew as another one.
    prop::collection::vec((0_u8..5, 0_u8..8), length).prop_map(|mut happenings| {
        let mut ended = BTreeSet::new();
        happenings.retain(|(credential, what)| match what % 8 {
            4 => !ended.contains(credential),
            5 => ended.insert(*credential),
            _ => !ended.contains(credential),
        });
        happenings
    })
}

proptest! {
    #[test]
    fn every_event_and_only_the_latest_come_to_the_same(happenings in happenings(0..60), window in 1_usize..9) {
        let log = log(&happenings);
        prop_assert_eq!(known(&view_of(&every_event(&log))), expected(&log));
        prop_assert_eq!(known(&view_of(&latest(&log, window))), expected(&log));
    }

    #[test]
    fn what_comes_again_changes_nothing(happenings in happenings(1..60), from: prop::sample::Index, to: prop::sample::Index) {
        let log = log(&happenings);
        prop_assume!(!log.is_empty());
        let messages = every_event(&log);
        let (from, to) = (from.index(messages.len()), to.index(messages.len()));
        let mut view = view_of(&messages[..=to.max(from)]);
        let before = known(&view);
        prop_assert_eq!(hear(&mut view, &messages[from..=to.max(from)]), Vec::new());
        prop_assert_eq!(known(&view), before);
        hear(&mut view, &messages);
        prop_assert_eq!(known(&view), expected(&log));
    }

    #[test]
    fn a_snapshot_and_what_follows_it_are_the_whole(
        happenings in happenings(1..60),
        at: prop::sample::Index,
        stale in happenings(0..20),
    ) {
        let log = log(&happenings);
        prop_assume!(!log.is_empty());
        let at = at.index(log.len());
        let (before, after) = log.split_at(at);
        let revision = before.last().map_or(0, |(revision, _)| *revision);
        // Whatever was known, and whatever the stream before has left unfinished.
        let mut view = view_of(&every_event(&self::log(&stale)));
        let unfinished = snapshot(99, &expected(&log));
        hear(&mut view, &unfinished[..unfinished.len() - 1]);
        hear(&mut view, &[opened()]);
        let kept = known(&view);
        let listed = snapshot(revision, &expected(before));
        hear(&mut view, &listed[..listed.len() - 1]);
        prop_assert_eq!(known(&view), kept, "the old view serves until the new one is complete");
        hear(&mut view, &listed[listed.len() - 1..]);
        prop_assert_eq!(known(&view), expected(before));
        hear(&mut view, &every_event(after));
        prop_assert_eq!(known(&view), expected(&log));
    }

    #[test]
    fn a_generation_never_falls_and_an_end_is_never_hidden(
        events in prop::collection::vec((0_u8..3, 0_u64..6, 0_u8..8), 0..60),
    ) {
        let mut view = View::default();
        for (revision, (credential, generation, what)) in (1..).zip(events) {
            let (_, mut event) = log(&[(credential, what)]).remove(0);
            let Some(status) = &mut event.status else { continue };
            status.generation = generation;
            let id = status.credential_id.clone();
            let before = view.get(&id).map(|known| known.generation);
            let ends = matches!(event.kind(), Kind::Revoked | Kind::AccessLost);
            let changes = hear(&mut view, &[batch(revision, vec![event], false)]);
            let after = view.get(&id).map(|known| known.generation);
            if ends {
                prop_assert_eq!((after, changes.len()), (None, 1));
            } else {
                prop_assert_eq!(after, Some(generation.max(before.unwrap_or(0))));
                prop_assert_eq!(changes.is_empty(), before.is_some_and(|before| before > generation));
            }
        }
    }
}

#[test]
fn half_a_revision_is_none_of_it() {
    let log = log(&[(1, 0), (2, 0)]);
    let [(_, first), (_, second)] = &log[..] else { unreachable!() };
    let mut view = View::default();
    assert_eq!(hear(&mut view, &[batch(7, vec![first.clone()], true)]), []);
    assert_eq!(view.statuses().len(), 0);
    // The stream broke, and the next one sends the whole of it.
    let whole = [opened(), batch(7, vec![first.clone()], true), batch(7, vec![second.clone()], false)];
    assert_eq!(hear(&mut view, &whole).len(), 2);
    assert_eq!(view.statuses().len(), 2);
}

#[test]
fn a_snapshot_tells_what_it_changes_and_no_more() {
    let connected = |credential, generation| CredentialStatus {
        credential_id: format!("crd_{credential}"),
        state: CredentialState::Connected.into(),
        generation,
        ..Default::default()
    };
    let revoking = CredentialStatus { state: CredentialState::Revoking.into(), ..connected(4, 1) };
    let mut view = view_of(&snapshot(7, &[connected(1, 1), connected(2, 1), connected(3, 1)]));
    hear(&mut view, &[message(7, Body::Resync(WatchResync::default()))]);
    // A restored broker may be behind what it had sent.
    let changes = hear(&mut view, &snapshot(5, &[connected(1, 1), connected(2, 2), revoking]));
    let told: Vec<_> = changes.iter().map(|change| (&*change.status.credential_id, change.cause.clone())).collect();
    assert_eq!(told, [("crd_2", Cause::Listed), ("crd_3", Cause::NotListed)]);
    assert_eq!(view.get("crd_4"), None);
    let (_, event) = log(&[(1, 0)]).remove(0);
    assert_eq!(hear(&mut view, &[batch(6, vec![event], false)]).len(), 1, "it counts from there");
}
