//! What can go wrong in a use case: facts with data. `grpc/status.rs` alone decides how a client sees them.

use std::time::Duration;

use url::Url;

use crate::{
    domain::{
        CallContext, FlowId, Hints, InvalidTransition, Link, PluginId, ProviderId, Reason, Revision, ScopeSet,
        Timestamp,
    },
    oauth::{AuthorizeError, DiscoveryError},
    sealing::RandomUnavailable,
    vault::VaultError,
};

#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A link of the zero-trust chain said no.
    #[error("the {link:?} link refused: {reason}")]
    Refused { link: Link, reason: Reason },
    #[error("the user must act: {}", .0.reason)]
    AuthenticationRequired(Box<AuthenticationRequired>),
    /// The subject has several accounts there, and the request names none.
    #[error("several accounts are connected")]
    AccountAmbiguous { accounts: Vec<String> },
    /// The tokens belong to another account than the one that was to be renewed; they were not stored.
    #[error("another account was authorized")]
    AccountMismatch,
    #[error("no such plugin")]
    PluginUnknown,
    #[error("no such provider")]
    ProviderUnknown,
    /// Also for somebody else's: it does not exist for this caller.
    #[error("no such connection")]
    ConnectionNotFound,
    /// Also for somebody else's.
    #[error("no such flow")]
    FlowNotFound,
    /// The flow ended, and not with a connection: expired, consumed, denied, refused, interrupted.
    #[error("the flow ended: {0}")]
    FlowEnded(Reason),
    /// The redirect came from another issuer than the flow's (RFC 9207).
    #[error("the authorization response came from another issuer")]
    IssuerMismatch,
    /// Somebody signed in on the page of another's flow.
    #[error("the flow belongs to somebody else")]
    OtherUser,
    /// Not the browser in which the flow's owner signed in, or not the one that the attempt was minted in.
    #[error("the request came from another browser than the flow's")]
    OtherBrowser,
    /// The issuer that signs users in on our pages did not say who is there.
    #[error("the sign-in did not succeed: {0}")]
    SignInFailed(Reason),
    #[error("sign-in in a browser is not configured")]
    SignInNotConfigured,
    #[error("the provider refuses our registration")]
    ProviderSuspended,
    #[error("the provider cannot be reached")]
    ProviderUnreachable { retry_after: Duration },
    #[error("the provider asks for fewer requests")]
    ProviderRateLimited { retry_after: Duration },
    /// Whether a token that was asked about is valid cannot be said now.
    #[error("the issuer's keys are not available")]
    JwksUnavailable { retry_after: Duration },
    /// The provider's answer or metadata cannot be used.
    #[error("the provider's answer cannot be used")]
    ProviderReplyInvalid,
    /// Asked again too soon.
    #[error("too many requests")]
    RateLimited { retry_after: Duration },
    #[error("too many open flows")]
    FlowQuota { retry_after: Duration },
    #[error("a backup is being taken already")]
    BackupRunning,
    /// Its reader was too slow for the writers.
    #[error("more was written than the backup could follow")]
    BackupOutrun,
    #[error("too many watch streams")]
    StreamQuota { retry_after: Duration },
    #[error("events up to {compacted:?} are gone")]
    RevisionCompacted { compacted: Revision, head: Revision },
    #[error("the resume token is ahead of the log")]
    AheadOfLog { head: Revision },
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: &'static str },
    #[error("there is no such key")]
    KeyUnknown,
    #[error("{live_rows} rows are sealed under the key")]
    KeyInUse { live_rows: u64 },
    #[error("there is no root key that was not in force already")]
    NoNewRootKey,
    #[error("the subject was erased")]
    SubjectErased,
    #[error("another change came first")]
    Conflict,
    #[error("shutting down")]
    ShuttingDown,
    #[error("the store is unavailable")]
    StoreUnavailable,
    #[error(transparent)]
    Vault(VaultError),
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
}

/// What the user must do before the agent can go on.
#[derive(Clone, Debug)]
pub struct AuthenticationRequired {
    /// `CONSENT_REQUIRED`, `REAUTHORIZATION_REQUIRED` or `SCOPES_MISSING`.
    pub reason: Reason,
    pub provider: ProviderId,
    pub plugin: Option<PluginId>,
    pub missing_scopes: ScopeSet,
    /// What the provider demands of that authorization; the flow carries it there.
    pub hints: Hints,
    /// Our page for the flow; `None` where nobody could sign in on it, or without a flow.
    pub auth_url: Option<Url>,
    /// `None` when the subject's quota of open flows is used up.
    pub flow: Option<FlowId>,
    pub expires_at: Option<Timestamp>,
    pub context: CallContext,
}

impl BrokerError {
    /// Whether it says that this browser, or whoever sits before it, has no business with the flow.
    pub(super) fn is_refusal_of_visitor(&self) -> bool {
        matches!(self, Self::OtherUser | Self::OtherBrowser)
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused { reason, .. } | Self::FlowEnded(reason) | Self::SignInFailed(reason) => *reason,
            Self::AuthenticationRequired(required) => required.reason,
            Self::AccountAmbiguous { .. } => Reason::AccountAmbiguous,
            Self::AccountMismatch => Reason::AccountMismatch,
            Self::PluginUnknown | Self::ProviderUnknown => Reason::PluginUnknown,
            Self::Invalid { .. } => Reason::InvalidArgument,
            Self::ConnectionNotFound => Reason::ConnectionNotFound,
            Self::FlowNotFound | Self::OtherUser | Self::OtherBrowser => Reason::FlowNotFound,
            Self::IssuerMismatch => Reason::IssuerMismatch,
            Self::SignInNotConfigured => Reason::SignInNotConfigured,
            Self::ProviderSuspended => Reason::ProviderSuspended,
            Self::ProviderUnreachable { .. } => Reason::ProviderUnreachable,
            Self::ProviderRateLimited { .. } => Reason::ProviderRateLimited,
            Self::JwksUnavailable { .. } => Reason::JwksUnavailable,
            Self::ProviderReplyInvalid => Reason::ProviderReplyInvalid,
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::FlowQuota { .. } => Reason::FlowQuota,
            Self::StreamQuota { .. } => Reason::StreamQuota,
            Self::BackupRunning => Reason::BackupRunning,
            Self::BackupOutrun => Reason::BackupOutrun,
            Self::RevisionCompacted { .. } => Reason::RevisionCompacted,
            Self::AheadOfLog { .. } => Reason::AheadOfLog,
            Self::KeyUnknown => Reason::KeyUnknown,
            Self::KeyInUse { .. } => Reason::KeyInUse,
            Self::NoNewRootKey => Reason::NoNewRootKey,
            Self::SubjectErased => Reason::SubjectErased,
            Self::Conflict => Reason::Conflict,
            Self::ShuttingDown => Reason::ShuttingDown,
            Self::StoreUnavailable => Reason::StoreUnavailable,
            Self::Vault(_) | Self::Transition(_) => Reason::Internal,
        }
    }
}

impl From<VaultError> for BrokerError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Unavailable | VaultError::OutcomeUnknown => Self::StoreUnavailable,
            VaultError::Conflict { .. } | VaultError::PreconditionFailed { .. } => Self::Conflict,
            VaultError::KeyUnknown { .. } => Self::KeyUnknown,
            VaultError::KeyInUse { live_rows, .. } => Self::KeyInUse { live_rows },
            VaultError::NoNewRootKey { .. } => Self::NoNewRootKey,
            VaultError::SubjectErased => Self::SubjectErased,
            other => Self::Vault(other),
        }
    }
}

impl From<RandomUnavailable> for BrokerError {
    fn from(error: RandomUnavailable) -> Self {
        Self::Vault(error.into())
    }
}

/// Nobody was sent anywhere: the provider's metadata cannot be had, or must not be used.
impl From<AuthorizeError> for BrokerError {
    fn from(error: AuthorizeError) -> Self {
        match error {
            AuthorizeError::Discovery(DiscoveryError::Unreachable { .. }) => {
                Self::ProviderUnreachable { retry_after: Duration::from_secs(5) }
            }
            AuthorizeError::Discovery(_) | AuthorizeError::Definition(_) | AuthorizeError::Verifier => {
                Self::ProviderReplyInvalid
            }
        }
    }
}
