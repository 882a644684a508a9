//! `claviger dev --tour`: the main job, for somebody who has just built it.

use std::{fs, time::Duration};

use claviger::{app::SystemClock, domain::Clock as _};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    dev::{claviger, run},
    process::Process,
};

/// What the tour shows, in its order.
const STEPS: [&str; 16] = [
    "ValidatePlatformToken: alice is sub_",
    "a token with a forged signature is refused: TOKEN_INVALID",
    "GetPluginToken before consent: AuthenticationRequired, flow flw_",
    "the page behind its link sends whoever opens it to sign in",
    "WatchCredentialStatus: open, the snapshot is empty",
    "StartAuthorization, and alice logged in and approved at the provider",
    "StoreAuthCode by bob, with alice's code: FLOW_NOT_FOUND",
    "StoreAuthCode by alice: connection con_",
    "WatchCredentialStatus: CREDENTIAL_EVENT_KIND_CONNECTED generation 1",
    "GetPluginToken: generation 1, and the calendar's API accepts it",
    "WatchCredentialStatus: CREDENTIAL_EVENT_KIND_REFRESHED generation 2",
    "GetPluginToken: generation 2, and the calendar's API accepts it",
    "Revoke: stopped here, confirmed by the provider",
    "WatchCredentialStatus: CREDENTIAL_EVENT_KIND_REVOKED",
    "the provider refuses the access token and the refresh token",
    "GetPluginToken after the revocation: AuthenticationRequired",
];

#[test]
fn every_step_holds_and_nothing_is_left_behind() {
    let temporary = TempDir::new().unwrap();
    let begun = SystemClock.now();
    let finished = run(claviger().args(["dev", "--tour"]).env("TMPDIR", temporary.path()));
    let took = SystemClock.now() - begun;
    finished.expect_code(0);
    assert!(took < Duration::from_secs(30), "{took:?}");

    let mut lines = finished.stdout.lines();
    for step in STEPS {
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with(&format!("  ok  {step}")), "{step}: {line}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["The tour is over: every step held."]);
    assert_eq!(finished.stderr, "");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_tour_leaves_nothing_behind_and_is_no_success() {
    let temporary = TempDir::new().unwrap();
    let mut tour = Process::spawn(claviger().args(["dev", "--tour"]).env("TMPDIR", temporary.path()));
    tour.line(|line| line.contains("StartAuthorization"));
    let finished = tour.stop(Signal::INT);
    finished.expect_code(1);
    assert!(finished.stderr.contains("interrupted"), "{}", finished.stderr);
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_tour_that_cannot_begin_says_why() {
    let finished = run(claviger().args(["dev", "--tour"]).env("TMPDIR", "/proc/nowhere"));
    finished.expect_code(1);
    assert!(finished.stderr.contains("/proc/nowhere/claviger-tour-"), "{}", finished.stderr);
}
