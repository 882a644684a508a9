//! A user's account at a provider, with its one credential.

use serde::{Deserialize, Serialize};

use super::{AgentId, ConnectionId, Credential, ProviderId, ScopeSet, SubjectId, TenantId, Timestamp};

/// Connection and credential are one record: they change together and are 1 : 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub tenant: TenantId,
    pub subject: SubjectId,
    pub provider: ProviderId,
    /// The provider's stable id of the account; `None` when the provider does not say.
    pub account: Option<String>,
    pub created_at: Timestamp,
    pub consent: Consent,
    pub credential: Credential,
    /// Set by the revocation job.
    pub remote_revocation: Option<RemoteRevocation>,
    /// Its owner was told that they may not see it any more: nothing that happens to it is announced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
}

/// Who agreed to what, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub subject: SubjectId,
    pub agent: Option<AgentId>,
    pub scopes: ScopeSet,
    pub at: Timestamp,
}

/// What the provider said to a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteRevocation {
    /// The provider confirmed it.
    Confirmed,
    /// Asked and not yet answered; a durable job retries.
    Pending,
    /// The provider offers no revocation.
    Unsupported,
    /// The provider refused; the access ended here only.
    Failed,
}
