//! Which configuration is in force.

use serde::{Deserialize, Serialize};

use super::{TenantId, Timestamp};

/// The configuration in force, as it is on record: the file itself is the operator's to keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The installation's own: [`installation_tenant`].
    pub tenant: TenantId,
    /// Rises by one with every configuration that came into force.
    pub version: u64,
    pub digest: ConfigurationDigest,
    pub since: Timestamp,
}

/// SHA-256 over what was read: the file and the variables that override it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigurationDigest(pub [u8; 32]);

/// Whose records concern no tenant but the installation. No tenant may have this name.
pub fn installation_tenant() -> TenantId {
    INSTALLATION.parse().expect("a well-formed name")
}

/// The name of [`installation_tenant`].
pub const INSTALLATION: &str = "claviger";
