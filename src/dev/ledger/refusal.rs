//! Why the token endpoint gives nothing.

/// The fact behind an `invalid_grant` or `invalid_scope` (RFC 6749 §5.2); for logs and tests, the client sees only those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the code is unknown")]
    UnknownCode,
    #[error("the code was used before; its grant has ended")]
    ReplayedCode,
    #[error("the code has expired")]
    ExpiredCode,
    #[error("the code or refresh token belongs to another client")]
    WrongClient,
    #[error("the redirect URI is not the one of the authorization request")]
    WrongRedirectUri,
    #[error("the PKCE verifier does not fit the challenge")]
    WrongVerifier,
    #[error("the refresh token is unknown")]
    UnknownRefreshToken,
    #[error("the refresh token was replaced before; its grant has ended")]
    ReusedRefreshToken,
    #[error("the grant has ended")]
    GrantEnded,
    #[error("the scope exceeds what was granted")]
    ScopeExceeded,
}
