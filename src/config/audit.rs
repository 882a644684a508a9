//! `[audit]`: how much the trail says, and for how long.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Finding, KeyPath, Period, range};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// For how long one record covers repeated reads, at most 1 h; `"0s"`: every read has its own.
    #[schemars(example = &"10s")]
    pub window: Period,
    /// For how long records are kept, from 1 d to 100 years of 365 d. What is older is removed, and `AUDIT_PURGED`
    /// says so.
    #[schemars(example = &"400d")]
    pub retention: Period,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { window: Period::from_secs(10), retention: Period::from_days(400) }
    }
}

impl AuditSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let window = (Period::from_secs(0), Period::from_secs(3600));
        let retention = (Period::from_days(1), Period::from_days(36_500));
        [("audit.window", self.window, window), ("audit.retention", self.retention, retention)]
            .into_iter()
            .filter_map(|(key, period, (least, most))| range(KeyPath::of(key), &period, &least, &most))
            .collect()
    }
}
