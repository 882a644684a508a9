//! Who is calling: a presented token becomes a [`Caller`](crate::domain::Caller), or the reason why not.
//!
//! - [`authenticator`]: the order of checks, and the only way in · [`config`]: families and issuers as an operator
//!   writes them · [`error`]: the refusals
//! - [`token`]: everything before a verified signature · [`judge`]: everything after it · [`claims`]: reading claims
//! - [`sign_in`]: our registration at an issuer, and the ID tokens that people bring from it
//! - [`jwk`]: one issuer's keys · [`key_source`]: fetching them, within limits · [`cache`]: tokens already verified
//!
//! An unknown issuer is answered as such although no signature was verified: there is no key that could verify it.
//! The answer tells a stranger which issuers are configured, which their public metadata tells as well, and tells
//! an operator at once what is missing.

mod authenticator;
mod cache;
mod claims;
mod config;
mod error;
mod judge;
mod jwk;
mod key_source;
mod sign_in;
mod token;

pub use authenticator::{Authenticator, SubjectHasher, TokenSource};
pub use config::{Algorithm, ConfigError, Family, Issuer, IssuerName, Keys, RoleRule, TenantRule};
pub use error::{Flaw, IdentityError};
pub use sign_in::{SignIn, SignedIn};
