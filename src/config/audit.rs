//! `[audit]`: how much the trail says.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Finding, KeyPath, Period, range};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// For how long one record covers repeated reads, at most 1 h; `"0s"`: every read has its own.
    #[schemars(example = &"10s")]
    pub window: Period,
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { window: Period::from_secs(10) }
    }
}

impl AuditSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let (least, most) = (Period::from_secs(0), Period::from_secs(3600));
        range(KeyPath::of("audit.window"), &self.window, &least, &most).into_iter().collect()
    }
}
