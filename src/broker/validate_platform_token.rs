//! Says who a platform token speaks for.

use std::sync::Arc;

use super::{Broker, BrokerError, trail::About};
use crate::{
    domain::{AuditAction, Call, Caller, PresentedToken, Reason},
    identity::{IdentityError, TokenSource},
};

/// What a token says, or why it says nothing.
pub enum Validation {
    Valid(Arc<Caller>),
    Invalid(Reason),
}

impl Broker {
    /// `token` `None`: the caller's own, which is valid or the call would not be here.
    pub async fn validate_platform_token(
        &self,
        call: &Call,
        token: Option<PresentedToken>,
    ) -> Result<Validation, BrokerError> {
        let validation = match token {
            None => Validation::Valid(Arc::clone(&call.caller)),
            Some(token) => match self.authenticator().authenticate(&token, TokenSource::Field).await {
                Ok(caller) => Validation::Valid(caller),
                // No verdict on the token: it may well be valid.
                Err(IdentityError::JwksUnavailable { retry_after }) => {
                    return Err(BrokerError::JwksUnavailable { retry_after });
                }
                Err(error) => Validation::Invalid(error.reason()),
            },
        };
        // A caller may ask about other people's tokens only within its own tenant.
        let validation = match validation {
            Validation::Valid(caller) if caller.tenant != call.caller.tenant => {
                Validation::Invalid(Reason::TenantUnknown)
            }
            other => other,
        };
        self.record_read(call, AuditAction::TokenValidated, About::default(), "").await?;
        Ok(validation)
    }
}
