//! What is known of a refresh before, while and after it is tried.

use serde::{Deserialize, Serialize};

use super::{EntryId, Timestamp};

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
