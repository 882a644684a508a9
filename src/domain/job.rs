//! Durable follow-up work: committed with the change that needs it, retried until it is settled.

use serde::{Deserialize, Serialize};

use super::{ConnectionId, FlowId, JobId, ProviderId, SubjectId, TenantId};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub tenant: TenantId,
    pub subject: SubjectId,
    pub kind: JobKind,
    /// Failed tries so far, for back-off.
    pub failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Tell the provider that a connection is revoked; the tokens are the connection's own.
    RevokeConnection { connection: ConnectionId },
    /// Tell the provider to revoke tokens that never became a connection's (a refresh that lost against a
    /// revocation, an account mismatch); they are sealed in the job's record.
    RevokeTokens { provider: ProviderId, connection: Option<ConnectionId> },
    /// Tell the provider to revoke tokens of a subject who was erased; they are sealed in the job's record.
    RevokeErased { provider: ProviderId },
    /// Judge tokens that an exchange has stored in its flow, or end the flow of an exchange that died with its process.
    SettleFlow { flow: FlowId },
}

impl Job {
    /// Whose key the job is sealed under; `None`: its tenant's, because it outlives its subject's.
    pub fn owner(&self) -> Option<SubjectId> {
        match self.kind {
            JobKind::RevokeErased { .. } => None,
            JobKind::RevokeConnection { .. } | JobKind::RevokeTokens { .. } | JobKind::SettleFlow { .. } => {
                Some(self.subject)
            }
        }
    }
}
