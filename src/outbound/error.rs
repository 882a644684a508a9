//! Whether a failed request may have been processed: what a refresh with a rotating token lives on.

/// Why there is no answer. Names hosts only: a URL's path and query may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    #[error("calling {host} is refused: {rule}")]
    UrlRefused { host: String, rule: UrlRule },
    #[error("{host} leads to no public address")]
    AddressRefused { host: String },
    /// Nothing of the request reached the server.
    #[error("the request to {host} was not sent: {failure}")]
    NotSent { host: String, failure: Failure },
    /// The request may have been processed: time-out, reset or truncation after the connection stood.
    #[error("the answer of {host} was lost")]
    AnswerLost { host: String },
    #[error("the answer of {host} exceeds {limit} bytes")]
    TooLarge { host: String, limit: usize },
    /// The client could not be built: no usable trust anchors.
    #[error("no usable trust anchors for TLS")]
    TrustAnchors,
}

/// The rule that a URL breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlRule {
    #[error("the scheme must be https")]
    Scheme,
    #[error("credentials in a URL")]
    Credentials,
    #[error("not a public address")]
    Address,
}

/// What failed before the request could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the name does not resolve")]
    Dns,
    #[error("no connection")]
    Connect,
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("the TLS handshake failed")]
    Tls,
}

impl OutboundError {
    /// True unless it is certain that nothing of the request reached the server.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::AnswerLost { .. } | Self::TooLarge { .. } => true,
            Self::UrlRefused { .. } | Self::AddressRefused { .. } | Self::NotSent { .. } | Self::TrustAnchors => false,
        }
    }
}
