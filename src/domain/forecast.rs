//! When an authorization ends whatever the broker does, as far as that can be known: people are told while they can still
//! renew it at leisure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Connection, CredentialState, RefreshTokenLifetime, Timestamp};

/// The longest time ahead that people are told.
const NOTICE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Answers that name the same end come at different times, and round.
const SAME: Duration = Duration::from_secs(60);

/// The refresh token's end, as the provider's answer said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenEnd {
    pub at: Timestamp,
    /// When it was said first: from then on it counts as this token's life.
    pub since: Timestamp,
}

/// The end of an authorization, unless the user renews it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub ends_at: Timestamp,
    /// When to tell: a week ahead, or at half of a shorter life.
    pub notice_at: Timestamp,
}

impl RefreshTokenEnd {
    /// This end after `before`: one that was said again has the life that it had.
    #[must_use]
    pub fn after(self, before: Option<Self>) -> Self {
        before.filter(|before| (before.at - self.at).max(self.at - before.at) <= SAME).unwrap_or(self)
    }
}

impl Forecast {
    fn of(begun_at: Timestamp, ends_at: Timestamp) -> Self {
        let notice = ((ends_at - begun_at) / 2).min(NOTICE);
        Self { ends_at, notice_at: ends_at.minus(notice) }
    }

    /// Whether to tell at all, when the end that was told last is this one: not again of what is the same but for days.
    fn is_news(self, told: Option<Timestamp>) -> bool {
        told.is_none_or(|told| told < self.notice_at)
    }
}

impl Connection {
    /// The end of the authorization; `None`: it is not known, or no refresh token is held. `stalled`: nothing refreshes
    /// the connection now, so that a refresh token dies that would live if it was used.
    pub fn forecast(&self, lifetime: RefreshTokenLifetime, stalled: bool) -> Option<Forecast> {
        let credential = &self.credential;
        if !credential.state.refreshes() || !credential.refreshable {
            return None;
        }
        let stalled = stalled || credential.state == CredentialState::RefreshFailing;
        let after = |begun_at: Timestamp, seconds| Forecast::of(begun_at, begun_at.plus(Duration::from_secs(seconds)));
        let said = credential.refresh_token_end.map(|end| Forecast::of(end.since, end.at));
        let absolute = lifetime.absolute.map(|seconds| after(self.consent.at, seconds));
        let idle = lifetime.idle.filter(|_| stalled).map(|seconds| after(credential.obtained_at, seconds));
        [said, absolute, idle].into_iter().flatten().min_by_key(|forecast| forecast.ends_at)
    }

    /// As [`Connection::forecast`], while there is something to tell of it.
    pub fn untold_forecast(&self, lifetime: RefreshTokenLifetime, stalled: bool) -> Option<Forecast> {
        self.forecast(lifetime, stalled).filter(|forecast| forecast.is_news(self.credential.told_end))
    }
}
