//! `[events]`: how far back the event log reaches.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Finding, KeyPath, Period, range};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventsSection {
    /// For how long events are kept, from 1 min to 365 d. A watcher that comes back later begins with a snapshot.
    #[schemars(example = &"24h")]
    pub retention: Period,
    /// How many revisions back events are kept, from 10,000 on, however young they are.
    pub most_revisions: u64,
}

impl Default for EventsSection {
    fn default() -> Self {
        Self { retention: Period::from_days(1), most_revisions: 2_000_000 }
    }
}

impl EventsSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let (least, most) = (Period::from_secs(60), Period::from_days(365));
        let retention = range(KeyPath::of("events.retention"), &self.retention, &least, &most);
        let revisions = range(KeyPath::of("events.most_revisions"), &self.most_revisions, &10_000, &u64::MAX);
        retention.into_iter().chain(revisions).collect()
    }
}
