//! Domain words as wire messages, for more than one RPC.

use std::time::Duration;

use crate::{
    broker::ShownConnection,
    domain::{
        ApplyOutcome, Connection, Credential, CredentialState, Holder, NextActionKind, Reason, ScopeSet, Timestamp,
    },
    proto::v1::{self, ErrorReason},
};

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let millis = i32::try_from(at.as_millis().rem_euclid(1000)).expect("less than a thousand");
    prost_types::Timestamp { seconds: at.as_secs(), nanos: millis * 1_000_000 }
}

/// Ends at the longest duration that protobuf knows.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    const LONGEST: i64 = 315_576_000_000;
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(LONGEST).min(LONGEST);
    let nanos = i32::try_from(duration.subsec_nanos()).expect("less than a thousand million");
    prost_types::Duration { seconds, nanos }
}

pub(super) fn scopes(scopes: &ScopeSet) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

pub(super) fn connection(shown: &ShownConnection) -> v1::Connection {
    let ShownConnection { connection, authorization_ends_at, next, holders } = shown;
    let Connection { id, provider, account, created_at, credential, .. } = connection;
    v1::Connection {
        connection_id: id.to_string(),
        provider: provider.to_string(),
        account: account.clone().unwrap_or_default(),
        state: state(credential.state).into(),
        generation: credential.generation,
        scopes: scopes(&credential.scopes),
        expires_at: credential.expires_at.map(timestamp),
        created_at: Some(timestamp(*created_at)),
        credential_id: credential.id.to_string(),
        reason: optional_reason(credential.reason).into(),
        badge: badge(credential).into(),
        authorization_ends_at: authorization_ends_at.map(timestamp),
        next_action: next.map_or(v1::NextAction::Unspecified, |next| next_action(next.kind)).into(),
        next_action_at: next.and_then(|next| next.at).map(timestamp),
        failures: credential.refresh.failures,
        holders: holders.list().iter().map(holder).collect(),
        holders_forgotten: holders.forgotten(),
    }
}

pub(super) fn holder(holder: &Holder) -> v1::CredentialHolder {
    let Holder { id, held_generation, outcome, reported_generation, at, .. } = holder;
    v1::CredentialHolder {
        holder: id.to_string(),
        generation: held_generation.unwrap_or_default(),
        outcome: match outcome {
            ApplyOutcome::Applied => v1::ApplyOutcome::Applied,
            ApplyOutcome::Failed => v1::ApplyOutcome::Failed,
            ApplyOutcome::Removed => v1::ApplyOutcome::Removed,
        }
        .into(),
        reported_generation: *reported_generation,
        reported_at: Some(timestamp(*at)),
    }
}

const fn next_action(kind: NextActionKind) -> v1::NextAction {
    match kind {
        NextActionKind::Refresh => v1::NextAction::Refresh,
        NextActionKind::Retry => v1::NextAction::Retry,
        NextActionKind::Attempt => v1::NextAction::Attempt,
        NextActionKind::Lapse => v1::NextAction::Lapse,
        NextActionKind::Authorize => v1::NextAction::Authorize,
        NextActionKind::Confirm => v1::NextAction::Confirm,
    }
}

pub(super) const fn state(state: CredentialState) -> v1::CredentialState {
    match state {
        CredentialState::Pending => v1::CredentialState::Pending,
        CredentialState::Connected => v1::CredentialState::Connected,
        CredentialState::Expiring => v1::CredentialState::Expiring,
        CredentialState::Expired => v1::CredentialState::Expired,
        CredentialState::RefreshFailing => v1::CredentialState::RefreshFailing,
        CredentialState::ReauthorizationRequired => v1::CredentialState::ReauthorizationRequired,
        CredentialState::Suspended => v1::CredentialState::Suspended,
        CredentialState::Revoking => v1::CredentialState::Revoking,
        CredentialState::Revoked => v1::CredentialState::Revoked,
    }
}

/// A lapsed access token that can be refreshed is still connected: the user need not care.
const fn badge(credential: &Credential) -> v1::ConnectionBadge {
    match credential.state {
        CredentialState::Connected => v1::ConnectionBadge::Connected,
        CredentialState::Expiring | CredentialState::Expired | CredentialState::RefreshFailing => {
            if credential.refreshable { v1::ConnectionBadge::Connected } else { v1::ConnectionBadge::Reconnect }
        }
        CredentialState::ReauthorizationRequired => v1::ConnectionBadge::Reconnect,
        CredentialState::Suspended => v1::ConnectionBadge::Unavailable,
        CredentialState::Pending | CredentialState::Revoking | CredentialState::Revoked => {
            v1::ConnectionBadge::Disconnected
        }
    }
}

pub(super) fn optional_reason(because: Option<Reason>) -> ErrorReason {
    because.map_or(ErrorReason::Unspecified, reason)
}

pub(super) const fn reason(reason: Reason) -> ErrorReason {
    match reason {
        Reason::TokenMissing => ErrorReason::TokenMissing,
        Reason::TokenInvalid => ErrorReason::TokenInvalid,
        Reason::TokenExpired => ErrorReason::TokenExpired,
        Reason::TokenNotYetValid => ErrorReason::TokenNotYetValid,
        Reason::AudienceMismatch => ErrorReason::AudienceMismatch,
        Reason::IssuerUnknown => ErrorReason::IssuerUnknown,
        Reason::TenantUnknown => ErrorReason::TenantUnknown,
        Reason::SubjectMissing => ErrorReason::SubjectMissing,
        Reason::RoleMissing => ErrorReason::RoleMissing,
        Reason::KeyInUse => ErrorReason::KeyInUse,
        Reason::NoNewRootKey => ErrorReason::NoNewRootKey,
        Reason::SubjectErased => ErrorReason::SubjectErased,
        Reason::KeyUnknown => ErrorReason::KeyUnknown,
        Reason::PluginDenied => ErrorReason::PluginDenied,
        Reason::ScopeExceeded => ErrorReason::ScopeExceeded,
        Reason::ConsentRequired => ErrorReason::ConsentRequired,
        Reason::ReauthorizationRequired => ErrorReason::ReauthorizationRequired,
        Reason::ScopesMissing => ErrorReason::ScopesMissing,
        Reason::AccountAmbiguous => ErrorReason::AccountAmbiguous,
        Reason::SignInNotConfigured => ErrorReason::SignInNotConfigured,
        Reason::ProviderSuspended => ErrorReason::ProviderSuspended,
        Reason::PluginUnknown => ErrorReason::PluginUnknown,
        Reason::ConnectionNotFound => ErrorReason::ConnectionNotFound,
        Reason::FlowNotFound => ErrorReason::FlowNotFound,
        Reason::FlowExpired => ErrorReason::FlowExpired,
        Reason::FlowConsumed => ErrorReason::FlowConsumed,
        Reason::FlowDenied => ErrorReason::FlowDenied,
        Reason::ExchangeRefused => ErrorReason::ExchangeRefused,
        Reason::ExchangeInterrupted => ErrorReason::ExchangeInterrupted,
        Reason::IssuerMismatch => ErrorReason::IssuerMismatch,
        Reason::AccountMismatch => ErrorReason::AccountMismatch,
        Reason::RotationLost => ErrorReason::RotationLost,
        Reason::ProviderUnreachable => ErrorReason::ProviderUnreachable,
        Reason::ProviderRateLimited => ErrorReason::ProviderRateLimited,
        Reason::ProviderReplyInvalid => ErrorReason::ProviderReplyInvalid,
        Reason::JwksUnavailable => ErrorReason::JwksUnavailable,
        Reason::ShuttingDown => ErrorReason::ShuttingDown,
        Reason::StoreUnavailable => ErrorReason::StoreUnavailable,
        Reason::RevisionCompacted => ErrorReason::RevisionCompacted,
        Reason::AheadOfLog => ErrorReason::AheadOfLog,
        Reason::StreamQuota => ErrorReason::StreamQuota,
        Reason::RateLimited => ErrorReason::RateLimited,
        Reason::FlowQuota => ErrorReason::FlowQuota,
        Reason::BackupRunning => ErrorReason::BackupRunning,
        Reason::BackupOutrun => ErrorReason::BackupOutrun,
        Reason::Conflict => ErrorReason::Conflict,
        Reason::InvalidArgument => ErrorReason::InvalidArgument,
        Reason::Internal => ErrorReason::Internal,
    }
}
