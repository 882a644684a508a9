//! An authorization as an intent: asked for once, however often it is asked again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    AgentId, ConnectionId, FamilyId, FlowId, PluginId, ProviderId, Reason, ScopeSet, SubjectId, TenantId, Timestamp,
};

/// How long a flow and its attempts live.
pub const FLOW_LIFETIME: Duration = Duration::from_secs(600);

/// How long a flow and its attempts are remembered after their time, so that whoever comes late is told that it is
/// over, and not that it never was.
pub const FLOW_MEMORY: Duration = Duration::from_secs(600);

/// An open or ended authorization. It holds no secret: those belong to its [`Attempt`]s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub id: FlowId,
    pub tenant: TenantId,
    pub subject: SubjectId,
    /// Where the owner signs in on our pages.
    pub family: FamilyId,
    pub agent: Option<AgentId>,
    pub plugin: Option<PluginId>,
    pub provider: ProviderId,
    pub scopes: ScopeSet,
    /// The account that the caller wants to (re)connect.
    pub account: Option<String>,
    pub return_url: Option<Url>,
    /// The connection that this flow renews, if it was started for one.
    pub renews: Option<ConnectionId>,
    /// How many attempts were minted; bounded.
    pub attempts: u32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub state: FlowState,
    /// The browser in which the owner last signed in for this flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<BrowserSession>,
}

/// What remains of a sign-in on our pages: good for this flow alone, in one browser, as long as the flow is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrowserSession {
    /// Keyed digest of the session cookie.
    pub cookie: [u8; 32],
    pub signed_in_at: Timestamp,
}

/// Where a flow stands. Ended states are kept for the flow's life, so that a repeated question gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    Open,
    /// An attempt was consumed; the code is being exchanged.
    Exchanging,
    /// The tokens are sealed in this flow's record and wait to be judged.
    Exchanged,
    Completed {
        connection: ConnectionId,
    },
    Denied,
    Failed {
        reason: Reason,
    },
}

/// What the end user's browser carries through the provider: minted per attempt, single use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub flow: FlowId,
    pub tenant: TenantId,
    pub subject: SubjectId,
    pub provider: ProviderId,
    /// Exactly as sent; the token request repeats it.
    pub redirect_uri: Url,
    /// The issuer that the answer must come from (RFC 9207), and the token endpoint of that same metadata: mix-up
    /// defence (RFC 9700 §4.4).
    pub issuer: Option<String>,
    pub iss_parameter_supported: bool,
    pub token_endpoint: Url,
    pub expires_at: Timestamp,
    /// Keyed digest of the code that consumed it; zeros: an error came instead.
    pub consumed_by: Option<[u8; 32]>,
    /// Keyed digest of the flow cookie that must come with the answer (binding `BROWSER`); `None`: the caller brings the
    /// answer with a token of their own (binding `CALLER`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<[u8; 32]>,
}

impl Flow {
    pub fn is_live(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    pub fn forgotten_at(&self) -> Timestamp {
        self.expires_at.plus(FLOW_MEMORY)
    }

    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == FlowState::Open && self.is_live(now)
    }
}

impl Attempt {
    pub fn forgotten_at(&self) -> Timestamp {
        self.expires_at.plus(FLOW_MEMORY)
    }
}
