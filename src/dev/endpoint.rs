//! Where requests go.

use serde::{Deserialize, Serialize};

/// An endpoint that is counted and can be made to fail. Those named `Platform` belong to the platform's issuer, all
/// others to the demo provider and to every provider that is played beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// Both well-known documents (RFC 8414, OpenID Connect Discovery).
    Metadata,
    Jwks,
    Authorize,
    /// The posted consent form, whose answer carries the code.
    Consent,
    Token,
    Revoke,
    Introspect,
    Userinfo,
    /// The demo plugins' APIs.
    Api,
    PlatformMetadata,
    PlatformJwks,
    PlatformAuthorize,
    /// The platform's posted login form, whose answer carries the code.
    PlatformLogin,
    PlatformToken,
    PlatformUserinfo,
}
