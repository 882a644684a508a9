//! `[sealing]`: where the root key comes from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SealingSection {
    /// The root key: a regular file of this user with mode 0600 or 0400, made by `claviger generate-key`.
    #[schemars(example = &"/etc/claviger/root.key")]
    pub root_key: PathBuf,
}
