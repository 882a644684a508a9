//! The credential: a state machine without I/O. Every change is a [`Transition`] that names its events, so that
//! no state can change unannounced.
//!
//! Two numbers, never mixed up: the stored record's `version` rises on every write; `generation` rises only with a
//! new secret and is the fencing number that clients see.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CredentialId, EventKind, Hints, Intent, Reason, Refresh, RefreshTokenEnd, ScopeSet, Timestamp};

/// Where a credential stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// No token yet.
    Pending,
    /// Usable, or refreshable without the user.
    Connected,
    /// Lapses soon and nothing will refresh it.
    Expiring,
    /// Lapsed; a refresh may still succeed.
    Expired,
    /// The last refresh failed for a passing reason; it is being retried.
    RefreshFailing,
    /// Dead until the user authorizes again.
    ReauthorizationRequired,
    /// Our client registration is refused at the provider; the user can do nothing. Never stored: it is what everybody
    /// is shown of a credential that would be refreshed there ([`super::Connection::suspended`]).
    Suspended,
    /// Stopped here; the provider has yet to confirm.
    Revoking,
    /// Stopped here and settled with the provider.
    Revoked,
}

/// A credential without its secrets: those are sealed beside it, under its `generation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    pub id: CredentialId,
    pub state: CredentialState,
    /// 0 before the first secret.
    pub generation: u64,
    /// As granted, which may be less than was asked.
    pub scopes: ScopeSet,
    pub obtained_at: Timestamp,
    /// `None`: the provider never said. It is never invented.
    pub expires_at: Option<Timestamp>,
    /// Whether a refresh token is held.
    pub refreshable: bool,
    pub refresh: Refresh,
    /// Whether this generation's `EXPIRING` and `EXPIRED` have been announced.
    pub announced_expiring: bool,
    pub announced_expired: bool,
    /// Why it is not simply connected.
    pub reason: Option<Reason>,
    /// What the provider demands of the next authorization; only while that is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
    /// `None`: the provider never said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_end: Option<RefreshTokenEnd>,
    /// The end of the authorization that watchers were told of last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_end: Option<Timestamp>,
}

/// What a token response granted, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub scopes: ScopeSet,
    pub expires_at: Option<Timestamp>,
    pub refreshable: bool,
    /// `None`: the provider did not say.
    pub refresh_token_end: Option<RefreshTokenEnd>,
}

/// The credential after a change, and what to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Transition {
    pub credential: Credential,
    pub events: Vec<EventKind>,
}

/// The credential is not in a state that allows this change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a credential in state {from:?} cannot become {to}")]
pub struct InvalidTransition {
    pub from: CredentialState,
    pub to: &'static str,
}

impl CredentialState {
    /// Whether tokens may leave: everything but dead, stopped and not yet begun.
    pub fn serves(self) -> bool {
        matches!(self, Self::Connected | Self::Expiring | Self::Expired | Self::RefreshFailing | Self::Suspended)
    }

    /// Whether a refresh may be tried.
    pub fn refreshes(self) -> bool {
        matches!(self, Self::Connected | Self::Expiring | Self::Expired | Self::RefreshFailing)
    }

    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Revoking | Self::Revoked)
    }
}

impl Credential {
    pub fn pending(id: CredentialId, now: Timestamp) -> Self {
        Self {
            id,
            state: CredentialState::Pending,
            generation: 0,
            scopes: ScopeSet::default(),
            obtained_at: now,
            expires_at: None,
            refreshable: false,
            refresh: Refresh::default(),
            announced_expiring: false,
            announced_expired: false,
            reason: None,
            hints: None,
            refresh_token_end: None,
            told_end: None,
        }
    }

    /// Time from receipt to expiry, when known.
    pub fn lifetime(&self) -> Option<Duration> {
        self.expires_at.map(|at| at - self.obtained_at)
    }

    /// How long before expiry a token counts as stale: min(max(60 s, 10 %), 50 % of the lifetime).
    pub fn margin(&self) -> Duration {
        self.lifetime().map_or(Duration::ZERO, |life| Duration::from_secs(60).max(life / 10).min(life / 2))
    }

    /// Whether the access token has not lapsed; true when the expiry is unknown.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.generation > 0 && self.expires_at.is_none_or(|at| now < at)
    }

    /// Whether the access token lives `remaining` longer; true when the expiry is unknown.
    pub fn is_fresh(&self, now: Timestamp, remaining: Duration) -> bool {
        self.generation > 0 && self.expires_at.is_none_or(|at| now.plus(remaining) < at)
    }

    /// A first or renewed authorization by the user: always a new generation.
    pub fn authorized(&self, granted: Granted, now: Timestamp) -> Result<Transition, InvalidTransition> {
        if self.state.is_stopped() {
            return Err(self.refuse("connected"));
        }
        Ok(self.with_new_secret(granted, now).announcing(vec![EventKind::Connected]))
    }

    /// Records the intent to POST this generation's refresh token; refused while another one is open. Nothing is
    /// announced: nothing has changed for anybody outside.
    pub fn begin_refresh(&self, intent: Intent) -> Result<Transition, InvalidTransition> {
        let under_way = self.refresh.intent.is_some();
        if !self.state.refreshes() || !self.refreshable || under_way || intent.generation != self.generation {
            return Err(self.refuse("refreshing"));
        }
        let mut next = self.clone();
        next.refresh.attempts = intent.attempt;
        next.refresh.intent = Some(intent);
        Ok(next.announcing(Vec::new()))
    }

    /// The provider answered with a new secret.
    pub fn refreshed(&self, granted: Granted, now: Timestamp) -> Result<Transition, InvalidTransition> {
        if !self.state.refreshes() {
            return Err(self.refuse("refreshed"));
        }
        let mut events = Vec::new();
        if self.state == CredentialState::RefreshFailing {
            events.push(EventKind::Recovered);
        }
        events.push(EventKind::Refreshed);
        let mut next = self.with_new_secret(granted, now);
        next.refresh_token_end = next.refresh_token_end.map(|end| end.after(self.refresh_token_end));
        next.told_end = self.told_end;
        Ok(next.announcing(events))
    }

    /// The POST under way failed for a passing reason. `spent` says that the refresh token may have been consumed (the
    /// answer was lost), so the attempt stays counted.
    pub fn refresh_failed(
        &self,
        reason: Reason,
        retry_at: Timestamp,
        spent: bool,
    ) -> Result<Transition, InvalidTransition> {
        if !self.state.refreshes() || self.refresh.intent.is_none() {
            return Err(self.refuse("refresh failing"));
        }
        let mut next = self.clone();
        next.refresh.close_intent(spent);
        next.refresh.failures = next.refresh.failures.saturating_add(1);
        next.refresh.excused = 0;
        next.refresh.retry_at = Some(retry_at);
        next.reason = Some(reason);
        next.state = CredentialState::RefreshFailing;
        let newly = self.state != CredentialState::RefreshFailing;
        Ok(next.announcing(if newly { vec![EventKind::RefreshFailing] } else { Vec::new() }))
    }

    /// As [`Credential::refresh_failed`], by the judgement of a rule that takes only so many answers in a row for a
    /// passing failure.
    pub fn refresh_excused(&self, reason: Reason, retry_at: Timestamp) -> Result<Transition, InvalidTransition> {
        let mut transition = self.refresh_failed(reason, retry_at, false)?;
        transition.credential.refresh.excused = self.refresh.excused.saturating_add(1);
        Ok(transition)
    }

    /// The POST under way says nothing about this credential: our registration was refused, or it was never sent. The
    /// intent is closed and all else stays; when to try again is the provider's matter. `spent` as in
    /// [`Credential::refresh_failed`].
    pub fn refresh_deferred(&self, spent: bool) -> Transition {
        let mut next = self.clone();
        next.refresh.close_intent(spent);
        next.announcing(Vec::new())
    }

    /// Only the user can help now, by an authorization that fulfils `hints`. The secrets stay sealed beside the record:
    /// quarantined, not deleted.
    pub fn reauthorization_required(
        &self,
        reason: Reason,
        hints: Option<Hints>,
    ) -> Result<Transition, InvalidTransition> {
        if self.state.is_stopped() || self.state == CredentialState::ReauthorizationRequired {
            return Err(self.refuse("in need of reauthorization"));
        }
        let mut next = self.clone();
        next.refresh.intent = None;
        next.refresh.retry_at = None;
        next.reason = Some(reason);
        next.hints = hints;
        next.state = CredentialState::ReauthorizationRequired;
        Ok(next.announcing(vec![EventKind::ReauthorizationRequired]))
    }

    /// What time alone brings: `EXPIRING` when nothing will refresh the token, `EXPIRED` when it lapsed unrefreshed;
    /// each once a generation. `None`: nothing is due.
    pub fn aged(&self, now: Timestamp) -> Option<Transition> {
        let expires_at = self.expires_at?;
        if !self.state.refreshes() {
            return None;
        }
        if now >= expires_at && !self.announced_expired {
            let mut next = self.clone();
            next.announced_expired = true;
            next.announced_expiring = true;
            if next.state != CredentialState::RefreshFailing {
                next.state = CredentialState::Expired;
            }
            return Some(next.announcing(vec![EventKind::Expired]));
        }
        if !self.refreshable && !self.announced_expiring && now >= expires_at.minus(self.margin()) {
            let mut next = self.clone();
            next.announced_expiring = true;
            next.state = CredentialState::Expiring;
            return Some(next.announcing(vec![EventKind::Expiring]));
        }
        None
    }

    /// Watchers are told when the authorization ends.
    pub fn foretold(&self, ends_at: Timestamp) -> Transition {
        let next = Self { told_end: Some(ends_at), ..self.clone() };
        next.announcing(vec![EventKind::Forecast])
    }

    /// Stops serving, whatever the state was.
    pub fn begin_revocation(&self) -> Result<Transition, InvalidTransition> {
        if self.state.is_stopped() {
            return Err(self.refuse("revoking"));
        }
        let mut next = self.clone();
        next.state = CredentialState::Revoking;
        next.refresh.retry_at = None;
        next.reason = None;
        Ok(next.announcing(vec![EventKind::Revoked]))
    }

    /// The provider has been told, or cannot be.
    pub fn revoked(&self) -> Result<Transition, InvalidTransition> {
        if self.state != CredentialState::Revoking {
            return Err(self.refuse("revoked"));
        }
        let mut next = self.clone();
        next.state = CredentialState::Revoked;
        next.refresh = Refresh::default();
        next.refreshable = false;
        Ok(next.announcing(vec![EventKind::Revoked]))
    }

    fn with_new_secret(&self, granted: Granted, now: Timestamp) -> Self {
        Self {
            id: self.id,
            state: CredentialState::Connected,
            generation: self.generation + 1,
            scopes: granted.scopes,
            obtained_at: now,
            expires_at: granted.expires_at,
            refreshable: granted.refreshable,
            refresh: Refresh::default(),
            announced_expiring: false,
            announced_expired: false,
            reason: None,
            hints: None,
            refresh_token_end: granted.refresh_token_end,
            told_end: None,
        }
    }

    fn announcing(self, events: Vec<EventKind>) -> Transition {
        Transition { credential: self, events }
    }

    fn refuse(&self, to: &'static str) -> InvalidTransition {
        InvalidTransition { from: self.state, to }
    }
}
