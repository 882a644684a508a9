//! Talking to authorization servers.
//!
//! - [`servers`]: the calls that the broker makes · [`definitions`]: the providers that ship with it, as data
//! - [`discovery`], [`metadata`], [`endpoints`]: where a server's endpoints are, and whether to believe that
//! - [`authorize`], [`callback`]: out through the user's browser, and back · [`token`]: requests to the token endpoint
//! - [`reply`], [`classify`], [`failure`]: what its answers mean · [`revoke`], [`account`]: the end, and whose it is
//! - [`credentials`], [`json`], [`retry_after`]: encodings

mod account;
mod authorize;
mod callback;
mod classify;
mod credentials;
pub mod definitions;
mod discovery;
mod endpoints;
mod failure;
mod json;
mod metadata;
mod reply;
mod retry_after;
mod revoke;
mod servers;
mod token;

pub use account::AccountError;
pub use authorize::{AuthorizationRequest, AuthorizationUrl, AuthorizeError};
pub use callback::{
    AuthorizationAnswer, AuthorizationError, AuthorizationResponse, IssuerMismatch, LONGEST_RESPONSE,
    MalformedResponse, check_iss, check_issuer,
};
pub use discovery::DiscoveryError;
pub use endpoints::ServerEndpoints;
pub use failure::{ErrorCode, Evidence, TokenFailure};
pub use metadata::{EndpointName, Metadata, Pkce, RefusedMetadata};
pub use reply::Tokens;
pub use revoke::RevocationFailure;
pub use servers::AuthorizationServers;
