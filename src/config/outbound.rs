//! `[outbound]`: calls to providers and issuers.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::{Finding, KeyPath, Period, range};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundSection {
    /// Lets providers and issuers be plain `http` on literal loopback addresses: for development and tests.
    pub allow_http_loopback: bool,
    /// The longest that one request to a provider may take in all: 1 s to 60 s.
    #[schemars(example = &"15s")]
    pub timeout: Period,
    /// Hosts that may be called although their addresses are not public, over https: exact names or addresses, each
    /// with a port or for any. Everything else on private networks stays refused.
    #[schemars(example = ["keycloak.internal", "10.0.0.7:8443"])]
    pub internal_hosts: Vec<InternalHost>,
    /// PEM file with authorities that are trusted beside the system's.
    #[schemars(example = &"/etc/claviger/internal-ca.pem")]
    pub extra_roots: Option<PathBuf>,
    /// What was read from `extra_roots`.
    #[serde(skip)]
    pub extra_roots_pem: Vec<u8>,
}

/// An entry of `internal_hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct InternalHost(pub crate::outbound::InternalHost);

impl TryFrom<String> for InternalHost {
    type Error = crate::outbound::InvalidHost;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl Serialize for InternalHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Default for OutboundSection {
    fn default() -> Self {
        Self {
            allow_http_loopback: false,
            timeout: Period::from_secs(15),
            internal_hosts: Vec::new(),
            extra_roots: None,
            extra_roots_pem: Vec::new(),
        }
    }
}

impl OutboundSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let (least, most) = (Period::from_secs(1), Period::from_secs(60));
        range(KeyPath::of("outbound.timeout"), &self.timeout, &least, &most).into_iter().collect()
    }
}
