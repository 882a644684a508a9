//! SIGINT and SIGTERM.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whoever signals twice, or before anything is served, does not want to wait.
#[derive(Debug, thiserror::Error)]
#[error("a signal ended it at once; what was under way is settled at the next start")]
pub(super) struct EndedAtOnce;

/// Both signals, caught from the moment this is made.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Completes with the next one that comes, or that came since [`Self::listen`].
    pub(super) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for a good end, but no longer than until the next signal.
    pub(super) async fn unless_received<T>(&mut self, ending: impl Future<Output = T>) -> Result<T, EndedAtOnce> {
        tokio::select! {
            ended = ending => Ok(ended),
            () = self.received() => Err(EndedAtOnce),
        }
    }
}
