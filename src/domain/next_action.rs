//! What happens to a connection next, for whoever looks at it.

use super::{Connection, CredentialState, Timestamp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextAction {
    pub kind: NextActionKind,
    /// `None`: it has no time of its own.
    pub at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextActionKind {
    /// The broker gets a new access token; without a time, when somebody asks for one.
    Refresh,
    /// The broker tries again what failed.
    Retry,
    /// The broker finds out, with one connection's refresh, whether the provider still refuses our registration.
    Attempt,
    /// The access token lapses, and nothing can be done about it without the user.
    Lapse,
    /// The user authorizes.
    Authorize,
    /// The provider is asked to confirm a revocation.
    Confirm,
}

impl NextAction {
    /// Of a connection at which the scheduler looks at `due`; `attempt_at`: its provider refuses us until then.
    pub fn of(connection: &Connection, due: Option<Timestamp>, attempt_at: Option<Timestamp>) -> Option<Self> {
        let credential = &connection.credential;
        let planned = due.filter(|due| *due != Timestamp::NEVER);
        let (kind, at) = match credential.state {
            CredentialState::Pending | CredentialState::ReauthorizationRequired => (NextActionKind::Authorize, None),
            CredentialState::Revoking => (NextActionKind::Confirm, None),
            CredentialState::Revoked => return None,
            CredentialState::Suspended => (NextActionKind::Attempt, attempt_at),
            CredentialState::Connected
            | CredentialState::Expiring
            | CredentialState::Expired
            | CredentialState::RefreshFailing => match (credential.refreshable, credential.refresh.retry_at) {
                (false, _) if credential.announced_expired => (NextActionKind::Authorize, None),
                (false, _) => (NextActionKind::Lapse, Some(credential.expires_at?)),
                (true, Some(retry_at)) => (NextActionKind::Retry, Some(retry_at)),
                (true, None) => (NextActionKind::Refresh, planned),
            },
        };
        Some(Self { kind, at })
    }
}
