//! What a browser is told when a use case refuses or fails: a page, and a status that says as much.

use std::error::Error;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::pages::{self, Trouble};
use crate::{
    broker::{BrokerError, VisitRefused},
    domain::{FlowId, Reason},
};

/// A refusal, and the flow's page if the visitor may find a way on there.
pub(super) struct Refusal {
    error: BrokerError,
    flow: Option<FlowId>,
}

impl Refusal {
    pub(super) fn of(error: BrokerError) -> Self {
        Self { error, flow: None }
    }

    pub(super) fn at(error: BrokerError, flow: FlowId) -> Self {
        Self { error, flow: Some(flow) }
    }
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        Self::of(error)
    }
}

impl From<VisitRefused> for Refusal {
    fn from(VisitRefused { error, flow }: VisitRefused) -> Self {
        Self { error, flow }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { error, flow } = self;
        let (status, trouble) = shown(&error);
        if error.reason() == Reason::Internal {
            tracing::error!(error = &error as &dyn Error, "a page failed");
        } else {
            // Anybody can bring these about as often as they like.
            tracing::debug!(%error, "a browser was refused");
        }
        (status, pages::trouble(trouble, flow)).into_response()
    }
}

fn shown(error: &BrokerError) -> (StatusCode, Trouble) {
    match error {
        BrokerError::FlowNotFound | BrokerError::PluginUnknown | BrokerError::ProviderUnknown => {
            (StatusCode::NOT_FOUND, Trouble::NotFound)
        }
        BrokerError::OtherUser => (StatusCode::FORBIDDEN, Trouble::WrongUser),
        BrokerError::OtherBrowser => (StatusCode::FORBIDDEN, Trouble::OtherBrowser),
        BrokerError::IssuerMismatch => (StatusCode::FORBIDDEN, Trouble::Untrusted),
        BrokerError::FlowEnded(Reason::FlowExpired) => (StatusCode::GONE, Trouble::Expired),
        BrokerError::FlowEnded(Reason::FlowConsumed) => (StatusCode::CONFLICT, Trouble::UsedBefore),
        BrokerError::FlowEnded(_) => (StatusCode::GONE, Trouble::Over),
        BrokerError::Invalid { .. } => (StatusCode::BAD_REQUEST, Trouble::Malformed),
        BrokerError::SignInFailed(reason) => (StatusCode::FORBIDDEN, Trouble::SignInFailed(*reason)),
        BrokerError::SignInNotConfigured => (StatusCode::NOT_FOUND, Trouble::NoSignIn),
        BrokerError::Refused { .. } | BrokerError::SubjectErased => (StatusCode::FORBIDDEN, Trouble::NotAllowed),
        BrokerError::FlowQuota { .. }
        | BrokerError::RateLimited { .. }
        | BrokerError::BackupRunning
        | BrokerError::StreamQuota { .. } => (StatusCode::TOO_MANY_REQUESTS, Trouble::TooMany),
        BrokerError::ProviderUnreachable { .. }
        | BrokerError::ProviderRateLimited { .. }
        | BrokerError::JwksUnavailable { .. }
        | BrokerError::ShuttingDown
        | BrokerError::StoreUnavailable
        | BrokerError::Conflict => (StatusCode::SERVICE_UNAVAILABLE, Trouble::TryAgain),
        BrokerError::ProviderSuspended | BrokerError::ProviderReplyInvalid => {
            (StatusCode::BAD_GATEWAY, Trouble::Provider)
        }
        BrokerError::AuthenticationRequired(_)
        | BrokerError::AccountAmbiguous { .. }
        | BrokerError::AccountMismatch
        | BrokerError::ConnectionNotFound
        | BrokerError::BackupOutrun
        | BrokerError::KeyUnknown
        | BrokerError::KeyInUse { .. }
        | BrokerError::NoNewRootKey
        | BrokerError::RevisionCompacted { .. }
        | BrokerError::AheadOfLog { .. }
        | BrokerError::Vault(_)
        | BrokerError::Transition(_) => (StatusCode::INTERNAL_SERVER_ERROR, Trouble::Failed),
    }
}
