//! The one HTTP client that talks to the world: authorization servers, JWKS and metadata documents.
//!
//! - [`client`]: one request, one answer, no redirects, no retries · [`request`]: what is sent and what comes back
//! - [`wire`]: what carries them · [`direct`]: over sockets
//! - [`target`]: which URLs may be called · [`resolver`], [`address`]: which addresses a name may lead to
//! - [`internal`]: hosts on private networks that the operator vouches for
//! - [`error`]: whether a failed request may have been processed

mod address;
mod client;
mod direct;
mod error;
mod internal;
mod request;
mod resolver;
mod target;
mod wire;

pub use address::is_public;
pub use client::{Outbound, Policy};
pub use error::{Failure, OutboundError, UrlRule};
pub use internal::{InternalHost, InvalidHost};
pub use request::{Reply, Request};
pub use resolver::Lookup;
pub use wire::Wire;
