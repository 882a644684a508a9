//! Who is calling, as verified tokens say; nothing here comes from a request field.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{AgentId, FamilyId, RequestId, ScopeSet, SubjectId, TenantId, Timestamp};

/// A verified caller. Made only by `identity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub tenant: TenantId,
    pub subject: SubjectId,
    pub family: FamilyId,
    /// The subject claim as the issuer wrote it (`oid`, `sub`); for the caller's own eyes, never logged or stored.
    pub external_id: String,
    /// The agent that the token names, if it names one.
    pub agent: Option<AgentId>,
    pub audience: Vec<String>,
    pub scopes: ScopeSet,
    pub roles: BTreeSet<Role>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// What a caller may do beyond acting for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Acts for themselves.
    User,
    /// Runs the installation; sees no token.
    Operator,
}

/// One call: who, under which name, from where. Goes with every use case into the audit trail.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: std::sync::Arc<Caller>,
    pub request_id: RequestId,
    /// The peer's address without its port.
    pub peer: Option<std::net::IpAddr>,
    pub user_agent: Option<String>,
    pub context: CallContext,
}

/// One request of a browser to our pages: under which name, from where. Who sends it is what the pages find out.
#[derive(Clone, Debug)]
pub struct Visit {
    pub request_id: RequestId,
    /// The peer's address without its port.
    pub peer: Option<std::net::IpAddr>,
    pub user_agent: Option<String>,
}

/// The platform's own ids: audited and echoed, never interpreted. Each at most 128 visible characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CallContext {
    pub session_id: Option<String>,
    pub task_id: Option<String>,
    pub platform_request_id: Option<String>,
}

impl Caller {
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}
