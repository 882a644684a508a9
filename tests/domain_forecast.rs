//! When an authorization is known to end, and when that is worth telling.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

use std::time::Duration;

use claviger::domain::{
    Connection, ConnectionId, Consent, Credential, CredentialId, CredentialState, EventKind, Granted, RefreshTokenEnd,
    RefreshTokenLifetime, ScopeSet, SubjectId, Timestamp,
};

const BEGUN: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const NEVER: RefreshTokenLifetime = RefreshTokenLifetime { idle: None, absolute: None };

fn granted(end: Option<RefreshTokenEnd>, now: Timestamp) -> Granted {
    let expires_at = Some(now.plus(HOUR));
    Granted { scopes: ScopeSet::default(), expires_at, refreshable: true, refresh_token_end: end }
}

fn said(life: Duration, since: Timestamp) -> Option<RefreshTokenEnd> {
    Some(RefreshTokenEnd { at: since.plus(life), since })
}

fn connected(end: Option<RefreshTokenEnd>) -> Connection {
    let (subject, scopes) = (SubjectId::from_bytes([1; 32]), ScopeSet::default());
    let pending = Credential::pending(CredentialId::from_bytes([1; 16]), BEGUN);
    Connection {
        id: ConnectionId::from_bytes([1; 16]),
        tenant: "acme".parse().unwrap(),
        subject,
        provider: "acme".parse().unwrap(),
        account: None,
        created_at: BEGUN,
        consent: Consent { subject, agent: None, scopes, at: BEGUN },
        credential: pending.authorized(granted(end, BEGUN), BEGUN).unwrap().credential,
        remote_revocation: None,
        withheld: false,
    }
}

/// Refreshed each hour until `until`; how often, and when, watchers were told.
fn told(
    mut connection: Connection,
    lifetime: RefreshTokenLifetime,
    until: Duration,
    next: impl Fn(Timestamp) -> Option<RefreshTokenEnd>,
) -> Vec<Duration> {
    let (mut now, mut told) = (BEGUN, Vec::new());
    while now < BEGUN.plus(until) {
        if let Some(forecast) = connection.untold_forecast(lifetime, false).filter(|f| f.notice_at <= now.plus(HOUR)) {
            let transition = connection.credential.foretold(forecast.ends_at);
            assert_eq!(transition.events, [EventKind::Forecast]);
            connection.credential = transition.credential;
            told.push(forecast.notice_at - BEGUN);
        }
        now = now.plus(HOUR);
        connection.credential = connection.credential.refreshed(granted(next(now), now), now).unwrap().credential;
    }
    told
}

#[test]
fn an_absolute_end_is_told_once_a_week_ahead_however_often_the_token_is_refreshed() {
    let lifetime = RefreshTokenLifetime { absolute: Some(30 * 24 * 3600), ..NEVER };
    assert_eq!(told(connected(None), lifetime, 30 * DAY, |_| None), [23 * DAY]);
    assert_eq!(connected(None).forecast(lifetime, false).unwrap().ends_at, BEGUN.plus(30 * DAY));
}

#[test]
fn a_short_life_is_told_at_half_of_it() {
    let lifetime = RefreshTokenLifetime { absolute: Some(48 * 3600), ..NEVER };
    assert_eq!(told(connected(None), lifetime, 2 * DAY, |_| None), [DAY]);
}

#[test]
fn an_end_that_every_refresh_moves_is_not_told() {
    let moves = |now| said(180 * DAY, now);
    assert!(told(connected(moves(BEGUN)), NEVER, 400 * DAY, moves).is_empty());
    let half_a_day = |now| said(DAY / 2, now);
    assert!(told(connected(half_a_day(BEGUN)), NEVER, 10 * DAY, half_a_day).is_empty());
}

#[test]
fn an_end_that_is_said_anew_with_each_answer_stays_one_end() {
    // A hard cap: what is left of it, with the seconds that a request takes.
    let end = BEGUN.plus(20 * DAY);
    let left = |now: Timestamp| said(end - now + Duration::from_secs(now.as_secs().unsigned_abs() % 3), now);
    assert_eq!(told(connected(left(BEGUN)), NEVER, 20 * DAY, left).len(), 1);
}

#[test]
fn an_idle_life_ends_only_while_nothing_refreshes_the_token() {
    let lifetime = RefreshTokenLifetime { idle: Some(90 * 24 * 3600), ..NEVER };
    let mut connection = connected(None);
    assert_eq!(connection.forecast(lifetime, false), None);
    let stalled = connection.forecast(lifetime, true).unwrap();
    assert_eq!((stalled.ends_at, stalled.notice_at), (BEGUN.plus(90 * DAY), BEGUN.plus(83 * DAY)));
    connection.credential.state = CredentialState::RefreshFailing;
    assert_eq!(connection.forecast(lifetime, false), Some(stalled));
}

#[test]
fn the_earliest_end_counts_and_an_authorization_begins_anew() {
    let lifetime = RefreshTokenLifetime { absolute: Some(10 * 24 * 3600), ..NEVER };
    let mut connection = connected(said(3 * DAY, BEGUN));
    let first = connection.untold_forecast(lifetime, false).unwrap();
    assert_eq!(first.ends_at, BEGUN.plus(3 * DAY));
    connection.credential = connection.credential.foretold(first.ends_at).credential;
    assert_eq!(connection.untold_forecast(lifetime, false), None);
    let again =
        connection.credential.authorized(granted(said(3 * DAY, BEGUN.plus(DAY)), BEGUN.plus(DAY)), BEGUN.plus(DAY));
    connection.credential = again.unwrap().credential;
    assert!(connection.untold_forecast(lifetime, false).is_some());
}

#[test]
fn what_is_dead_or_has_no_refresh_token_has_no_forecast() {
    let lifetime = RefreshTokenLifetime { absolute: Some(10 * 24 * 3600), ..NEVER };
    let mut connection = connected(None);
    connection.credential.refreshable = false;
    assert_eq!(connection.forecast(lifetime, true), None);
    connection.credential.refreshable = true;
    connection.credential.state = CredentialState::ReauthorizationRequired;
    assert_eq!(connection.forecast(lifetime, true), None);
}
