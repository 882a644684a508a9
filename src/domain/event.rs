//! What watchers are told. Events hold ids and states, never a secret.

use serde::{Deserialize, Serialize};

use super::{
    AgentId, ConnectionId, Credential, CredentialId, CredentialState, ProviderId, Reason, ScopeSet, SubjectId,
    TenantId, Timestamp,
};

/// Position in the event log: rises by one with every change set of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What happened to a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Connected,
    Refreshed,
    Expiring,
    Expired,
    RefreshFailing,
    Recovered,
    ReauthorizationRequired,
    Suspended,
    Resumed,
    Revoked,
    /// Its subject was erased, and it with them.
    Erased,
    /// Its authorization ends at a known time, unless the user renews it.
    Forecast,
    /// Its owner may not see it any more; until [`Self::AccessGained`] nothing of it is logged.
    AccessLost,
    /// Its owner may see it, perhaps again.
    AccessGained,
}

impl EventKind {
    /// Terminal kinds cannot be filtered out: missing one means using a dead token.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::ReauthorizationRequired | Self::Revoked | Self::Erased | Self::AccessLost)
    }
}

/// One event, with the whole state after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialEvent {
    pub kind: EventKind,
    pub tenant: TenantId,
    pub occurred_at: Timestamp,
    pub status: CredentialStatus,
}

/// What a watcher may know of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStatus {
    pub credential: CredentialId,
    pub connection: ConnectionId,
    pub subject: SubjectId,
    pub agent: Option<AgentId>,
    pub provider: ProviderId,
    pub state: CredentialState,
    pub generation: u64,
    pub scopes: ScopeSet,
    pub expires_at: Option<Timestamp>,
    pub reason: Option<Reason>,
    /// When the authorization ends unless the user renews it, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_ends_at: Option<Timestamp>,
}

impl CredentialStatus {
    /// Without the end of the authorization, which only the provider's definition tells.
    pub fn of(connection: &super::Connection) -> Self {
        let Credential { id, state, generation, scopes, expires_at, reason, .. } = &connection.credential;
        Self {
            credential: *id,
            connection: connection.id,
            subject: connection.subject,
            agent: None,
            provider: connection.provider.clone(),
            state: *state,
            generation: *generation,
            scopes: scopes.clone(),
            expires_at: *expires_at,
            reason: *reason,
            authorization_ends_at: None,
        }
    }
}
