//! Why a token is refused. Nothing of the token is in an error.

use std::time::Duration;

use crate::domain::Reason;

/// The refusals, one for each reason that a client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The flaw is for our log and audit trail; a client sees only that the token is not valid.
    #[error("the token is not valid: {0}")]
    TokenInvalid(#[from] Flaw),
    #[error("the token has expired")]
    TokenExpired,
    #[error("the token is not valid yet")]
    TokenNotYetValid,
    #[error("the token is meant for another audience")]
    AudienceMismatch,
    #[error("the token's issuer is not configured")]
    IssuerUnknown,
    #[error("the token's tenant is not configured")]
    TenantUnknown,
    #[error("the token names no subject")]
    SubjectMissing,
    /// The keys are out of reach, or the token names a key that may only be looked for later.
    #[error("the issuer's keys are not available")]
    JwksUnavailable { retry_after: Duration },
    #[error("the issuer family has no sign-in; add `sign_in` to it")]
    SignInNotConfigured,
}

/// What is wrong with an invalid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("too long")]
    TooLong,
    #[error("not three base64url parts")]
    Shape,
    #[error("unreadable header")]
    Header,
    #[error("algorithm not allowed")]
    Algorithm,
    #[error("critical header extension")]
    Critical,
    #[error("unreadable claims")]
    Claims,
    #[error("signed with no key of the issuer")]
    KeyUnknown,
    /// Of an issuer template: the key is for other directories than the token's.
    #[error("signed with a key of another issuer")]
    KeyOfOtherIssuer,
    #[error("the signature does not match")]
    Signature,
    #[error("not an access token")]
    Kind,
    #[error("not an ID token of our own")]
    NotIdToken,
    #[error("the nonce of another sign-in")]
    Nonce,
    /// Entra leaves out `groups` when there are more than 200.
    #[error("the issuer left out a claim that every role depends on, because it is too long for a token")]
    ClaimLeftOut,
}

impl IdentityError {
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TokenInvalid(_) => Reason::TokenInvalid,
            Self::TokenExpired => Reason::TokenExpired,
            Self::TokenNotYetValid => Reason::TokenNotYetValid,
            Self::AudienceMismatch => Reason::AudienceMismatch,
            Self::IssuerUnknown => Reason::IssuerUnknown,
            Self::TenantUnknown => Reason::TenantUnknown,
            Self::SubjectMissing => Reason::SubjectMissing,
            Self::JwksUnavailable { .. } => Reason::JwksUnavailable,
            Self::SignInNotConfigured => Reason::SignInNotConfigured,
        }
    }
}
