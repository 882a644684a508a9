//! Why something was refused or failed: the closed set that clients switch on and the audit trail records.

use serde::{Deserialize, Serialize};

/// One reason. The gRPC edge gives each its status code; the wire name is [`Reason::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    TokenMissing,
    TokenInvalid,
    TokenExpired,
    TokenNotYetValid,
    AudienceMismatch,
    IssuerUnknown,
    TenantUnknown,
    SubjectMissing,
    RoleMissing,
    PluginDenied,
    ScopeExceeded,
    ConsentRequired,
    ReauthorizationRequired,
    ScopesMissing,
    AccountAmbiguous,
    SignInNotConfigured,
    ProviderSuspended,
    PluginUnknown,
    ConnectionNotFound,
    FlowNotFound,
    FlowExpired,
    FlowConsumed,
    FlowDenied,
    ExchangeRefused,
    ExchangeInterrupted,
    IssuerMismatch,
    AccountMismatch,
    RotationLost,
    KeyInUse,
    NoNewRootKey,
    SubjectErased,
    KeyUnknown,
    ProviderUnreachable,
    ProviderRateLimited,
    ProviderReplyInvalid,
    JwksUnavailable,
    ShuttingDown,
    StoreUnavailable,
    RevisionCompacted,
    AheadOfLog,
    StreamQuota,
    RateLimited,
    FlowQuota,
    BackupRunning,
    BackupOutrun,
    Conflict,
    InvalidArgument,
    Internal,
}

impl Reason {
    pub const ALL: &[Self] = &[
        Self::TokenMissing,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::AudienceMismatch,
        Self::IssuerUnknown,
        Self::TenantUnknown,
        Self::SubjectMissing,
        Self::RoleMissing,
        Self::PluginDenied,
        Self::ScopeExceeded,
        Self::ConsentRequired,
        Self::ReauthorizationRequired,
        Self::ScopesMissing,
        Self::AccountAmbiguous,
        Self::SignInNotConfigured,
        Self::ProviderSuspended,
        Self::PluginUnknown,
        Self::ConnectionNotFound,
        Self::FlowNotFound,
        Self::FlowExpired,
        Self::FlowConsumed,
        Self::FlowDenied,
        Self::ExchangeRefused,
        Self::ExchangeInterrupted,
        Self::IssuerMismatch,
        Self::AccountMismatch,
        Self::RotationLost,
        Self::KeyInUse,
        Self::NoNewRootKey,
        Self::SubjectErased,
        Self::KeyUnknown,
        Self::ProviderUnreachable,
        Self::ProviderRateLimited,
        Self::ProviderReplyInvalid,
        Self::JwksUnavailable,
        Self::ShuttingDown,
        Self::StoreUnavailable,
        Self::RevisionCompacted,
        Self::AheadOfLog,
        Self::StreamQuota,
        Self::RateLimited,
        Self::FlowQuota,
        Self::BackupRunning,
        Self::BackupOutrun,
        Self::Conflict,
        Self::InvalidArgument,
        Self::Internal,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::TokenNotYetValid => "TOKEN_NOT_YET_VALID",
            Self::AudienceMismatch => "AUDIENCE_MISMATCH",
            Self::IssuerUnknown => "ISSUER_UNKNOWN",
            Self::TenantUnknown => "TENANT_UNKNOWN",
            Self::SubjectMissing => "SUBJECT_MISSING",
            Self::RoleMissing => "ROLE_MISSING",
            Self::PluginDenied => "PLUGIN_DENIED",
            Self::ScopeExceeded => "SCOPE_EXCEEDED",
            Self::ConsentRequired => "CONSENT_REQUIRED",
            Self::ReauthorizationRequired => "REAUTHORIZATION_REQUIRED",
            Self::ScopesMissing => "SCOPES_MISSING",
            Self::AccountAmbiguous => "ACCOUNT_AMBIGUOUS",
            Self::SignInNotConfigured => "SIGN_IN_NOT_CONFIGURED",
            Self::ProviderSuspended => "PROVIDER_SUSPENDED",
            Self::PluginUnknown => "PLUGIN_UNKNOWN",
            Self::ConnectionNotFound => "CONNECTION_NOT_FOUND",
            Self::FlowNotFound => "FLOW_NOT_FOUND",
            Self::FlowExpired => "FLOW_EXPIRED",
            Self::FlowConsumed => "FLOW_CONSUMED",
            Self::FlowDenied => "FLOW_DENIED",
            Self::ExchangeRefused => "EXCHANGE_REFUSED",
            Self::ExchangeInterrupted => "EXCHANGE_INTERRUPTED",
            Self::IssuerMismatch => "ISSUER_MISMATCH",
            Self::AccountMismatch => "ACCOUNT_MISMATCH",
            Self::RotationLost => "ROTATION_LOST",
            Self::KeyInUse => "KEY_IN_USE",
            Self::NoNewRootKey => "NO_NEW_ROOT_KEY",
            Self::SubjectErased => "SUBJECT_ERASED",
            Self::KeyUnknown => "KEY_UNKNOWN",
            Self::ProviderUnreachable => "PROVIDER_UNREACHABLE",
            Self::ProviderRateLimited => "PROVIDER_RATE_LIMITED",
            Self::ProviderReplyInvalid => "PROVIDER_REPLY_INVALID",
            Self::JwksUnavailable => "JWKS_UNAVAILABLE",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::StoreUnavailable => "STORE_UNAVAILABLE",
            Self::RevisionCompacted => "REVISION_COMPACTED",
            Self::AheadOfLog => "AHEAD_OF_LOG",
            Self::StreamQuota => "STREAM_QUOTA",
            Self::RateLimited => "RATE_LIMITED",
            Self::FlowQuota => "FLOW_QUOTA",
            Self::BackupRunning => "BACKUP_RUNNING",
            Self::BackupOutrun => "BACKUP_OUTRUN",
            Self::Conflict => "CONFLICT",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::Internal => "INTERNAL",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_stored_name_is_the_wire_name() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
            assert_eq!(serde_json::from_value::<Reason>(reason.as_str().into()).unwrap(), *reason);
        }
    }

    #[test]
    fn all_lists_every_reason_once() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        // The discriminants are dense from 0, so a reason that the list lacks leaves a gap or comes after its end.
        let mut numbers: Vec<_> = Reason::ALL.iter().map(|reason| *reason as usize).collect();
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..Reason::Internal as usize + 1));
    }
}
