//! The listeners as strangers meet them, over real sockets: encryption, what each may cost us, and an end that nobody
//! can hold up.
//!
//! - `tls`, `reload`: certificates of both sides · `seats`, `http2`, `http1`, `times`: limits · `metrics` · `shutdown`: the end
//! - `rig`: a whole broker · `pki`: certificates · `frames`: HTTP/2 without manners

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

#[path = "../support/clock.rs"]
mod clock;

mod frames;
mod http1;
mod http2;
mod metrics;
mod pki;
mod reload;
mod rig;
mod seats;
mod shutdown;
mod times;
mod tls;

/// Returns once somebody has gone to sleep until exactly `at`; what has not happened by [`frames::PATIENCE`] never does.
async fn someone_sleeps_until(clock: &clock::ManualClock, at: claviger::domain::Timestamp) {
    let sleeps = clock.someone_sleeps_until(at);
    tokio::time::timeout(frames::PATIENCE, sleeps).await.expect("nobody waits for that time");
}
