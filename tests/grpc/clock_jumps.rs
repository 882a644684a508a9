//! A clock that is set forward and back while streams are open.

use std::time::Duration;

use claviger::proto::v1::{
    self, CredentialEventKind as Kind, WatchCredentialStatusRequest as Request, watch_credential_status_request::Start,
    watch_credential_status_response::Body,
};

use crate::{event_log, rig::Rig, watch_validator::assert_valid, watching::User};

const HOUR: Duration = Duration::from_secs(3600);

/// An hour forward and back, and events that bear those times: everything comes once, by revision; a stream that is too
/// old then says so and is continued; and one whose clock was set back is not silent for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_changes_neither_order_nor_number_of_what_comes() {
    let rig = Rig::start().await;
    let alice = User::of(&rig, "alice").await;
    let mut watching = alice.watches(Start::Now(true), 64 * 1024).await;
    let first = alice.happens(3).await;
    watching.read_to(first).await;

    rig.clock.advance(HOUR);
    while !matches!(watching.next().await, Body::Drain(_)) {}
    let token = watching.token();
    let ahead = alice.happens(2).await;
    let mut resumed = alice.watches(Start::ResumeToken(token), 64 * 1024).await;
    resumed.read_to(ahead).await;

    // Of this one nothing is to be sent, and it has promised to say so twice a minute.
    let connected = vec![Kind::Connected.into()];
    let quiet = Request { start: Some(Start::Now(true)), kinds: connected, ..Request::default() };
    let mut quiet = alice.asks(quiet, 64 * 1024).await;
    rig.clock.set(|now| now.minus(HOUR));
    let before = alice.happens(2).await;
    resumed.read_to(before).await;
    let Body::Progress(v1::WatchProgress {}) = quiet.next().await else {
        panic!("something came that was not asked for")
    };
    quiet.read_to(before).await;

    // As usual from here on.
    rig.clock.advance(Duration::from_secs(34));
    assert!(matches!(resumed.next().await, Body::Progress(_)));
    let last = alice.happens(1).await;
    resumed.read_to(last).await;
    let log = event_log::read(&rig.vault).await;
    let times: Vec<_> = log.revisions.values().map(|events| events[0].occurred_at.unwrap().seconds).collect();
    assert!(!times.is_sorted(), "the log is not in the order of its times: {times:?}");
    assert_valid(&log, &[watching.history, resumed.history, quiet.history]);
}
