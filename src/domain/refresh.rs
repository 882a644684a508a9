//! What is known of refreshing a credential, what a lost answer means, and when to look at the credential again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Credential, EntryId, Rotation, Timestamp};

/// What is known of refreshing the present generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Durable before each POST; unfinished after a crash, it says that the refresh token may be spent.
    pub intent: Option<Intent>,
    /// POSTs made with this generation's refresh token whose answer was lost, and the one under way.
    pub attempts: u32,
    /// When the first of the lost ones began: from then on the provider may count its grace.
    pub first_lost_at: Option<Timestamp>,
    /// Failures in a row, for back-off.
    pub failures: u32,
    /// The last answers in a row that a rule judged which does so only a few times ([`super::ErrorRule::at_most`]).
    #[serde(default, skip_serializing_if = "is_none")]
    pub excused: u32,
    /// Not before this time.
    pub retry_at: Option<Timestamp>,
}

/// Intent and lease in one: committed before the POST that it announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The flight that owns it.
    pub owner: EntryId,
    /// 1 for the first POST of this generation.
    pub attempt: u32,
    pub generation: u64,
    pub begun_at: Timestamp,
    /// When the POST is certainly over: begun + the provider time-out.
    pub until: Timestamp,
    /// Keyed fingerprint of the refresh token that is being spent.
    pub fingerprint: [u8; 32],
}

/// What to do about a refresh whose answer never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLostAnswer {
    RetryAt(Timestamp),
    /// A further POST would only prove the loss, or trigger the provider's theft alarm.
    GiveUp,
}

impl Refresh {
    /// Ends the POST under way. Only a lost one stays counted, and only one that was under way is uncounted.
    pub(super) fn close_intent(&mut self, lost: bool) {
        let Some(intent) = self.intent.take() else { return };
        if lost {
            self.first_lost_at.get_or_insert(intent.begun_at);
        } else {
            self.attempts = self.attempts.saturating_sub(1);
        }
    }
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Credential {
    /// When a refresh whose answer was lost may be tried again, by the provider's rotation policy. `begun_at` is the
    /// lost attempt's; `timeout` the provider time-out: before it is over the old request may still arrive there.
    pub fn after_lost_answer(
        &self,
        rotation: Rotation,
        begun_at: Timestamp,
        now: Timestamp,
        timeout: Duration,
    ) -> AfterLostAnswer {
        match rotation {
            Rotation::None | Rotation::Reuse => AfterLostAnswer::RetryAt(now),
            Rotation::Grace { seconds } if self.in_grace(seconds, begun_at, now) => AfterLostAnswer::RetryAt(now),
            Rotation::Grace { .. } | Rotation::Strict => {
                if self.refresh.attempts >= 2 {
                    return AfterLostAnswer::GiveUp;
                }
                // A reuse alarm kills the access token too: first live off the one that still works.
                let safe = begun_at.plus(timeout);
                let spent = self.expires_at.map_or(safe, |at| at.minus(self.margin().min(timeout)));
                AfterLostAnswer::RetryAt(safe.max(spent.min(self.expires_at.unwrap_or(safe))))
            }
        }
    }

    /// Whether the refresh token may be sent once more. It always may before its first answer was lost.
    pub fn may_post(&self, rotation: Rotation, now: Timestamp) -> bool {
        match rotation {
            Rotation::None | Rotation::Reuse => true,
            Rotation::Grace { seconds } => self.refresh.attempts < 2 || self.in_grace(seconds, now, now),
            Rotation::Strict => self.refresh.attempts < 2,
        }
    }

    /// Whether a POST that begins now arrives while the provider still takes the old token. Its last quarter, at most
    /// 5 s, is left for the way there.
    fn in_grace(&self, seconds: u64, begun_at: Timestamp, now: Timestamp) -> bool {
        let grace = Duration::from_secs(seconds);
        let way = (grace / 4).min(Duration::from_secs(5));
        let since = self.refresh.first_lost_at.unwrap_or(begun_at);
        // A clock that was set back does not tell how long it has been.
        since <= now && now < since.plus(grace - way)
    }

    /// When the scheduler must look at this credential again, before jitter. `late`: the provider kills the old
    /// access token on refresh, so it is refreshed on demand only, or when it has lapsed. `idle`: how long the refresh
    /// token lives unless it is used; a quarter of that is left for a provider that is away for long.
    pub fn next_action(&self, late: bool, idle: Option<Duration>) -> Timestamp {
        if !self.state.refreshes() {
            return Timestamp::NEVER;
        }
        if let Some(intent) = &self.refresh.intent {
            return intent.until;
        }
        let expiry = self.expires_at.unwrap_or(Timestamp::NEVER);
        if !self.refreshable {
            return match (self.announced_expiring, self.announced_expired) {
                (false, false) => expiry.minus(self.margin()),
                (true, false) => expiry,
                (_, true) => Timestamp::NEVER,
            };
        }
        let unannounced_expiry = if self.announced_expired { Timestamp::NEVER } else { expiry };
        if let Some(retry_at) = self.refresh.retry_at {
            return retry_at.min(unannounced_expiry);
        }
        let planned = match self.expires_at {
            Some(expires_at) if !late => expires_at.minus(self.margin()),
            _ => expiry,
        };
        let keep_alive = idle.map_or(Timestamp::NEVER, |idle| self.obtained_at.plus(idle / 4 * 3));
        planned.min(keep_alive)
    }
}
