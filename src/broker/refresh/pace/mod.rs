//! Whether a provider may be asked now: every POST of a refresh token takes a [`Turn`] first and ends it with what
//! came of it. Nothing here is stored: a refresh that is put off leaves no trace in its connection's record.

use std::{sync::Arc, time::Duration};

use super::Flown;
use crate::{
    broker::{Broker, BrokerError},
    domain::{ConnectionId, Credential, Provider, Reason, Timestamp},
    oauth::TokenFailure,
};

/// What is known of each provider's capacity and health.
#[derive(Default)]
pub(in crate::broker) struct Pace;

/// Who wants the refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Urgency {
    /// Somebody waits: goes first, and rather hears no than waits for long.
    Caller,
    /// Nobody waits: waits its turn, however long that takes.
    Background,
}

/// Leave to POST one refresh token. Dropped unused, it goes back to the budget.
pub(in crate::broker) struct Turn;

/// The provider is not to be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct NotNow {
    pub(super) reason: Reason,
    pub(super) retry_after: Duration,
}

impl From<NotNow> for Flown {
    fn from(NotNow { reason, retry_after }: NotNow) -> Self {
        Self::Failing { reason, retry_after }
    }
}

impl Turn {
    /// Whether it was given for this credential as it is now.
    pub(super) fn is_for(&self, _provider: &Provider, _credential: &Credential) -> bool {
        true
    }

    /// The POST was made, and this is what came of it; `None`: tokens.
    pub(super) fn end(self, _connection: ConnectionId, _failure: Option<&TokenFailure>, _now: Timestamp) {}
}

impl Broker {
    /// Waits for the provider's turn: [`Urgency::Background`] until shutdown, [`Urgency::Caller`] a moment.
    pub(in crate::broker) async fn take_turn(
        &self,
        _provider: &Arc<Provider>,
        _credential: &Credential,
        _urgency: Urgency,
    ) -> Result<Result<Turn, NotNow>, BrokerError> {
        let _ = self.pace();
        Ok(Ok(Turn))
    }
}
