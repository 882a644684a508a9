//! Who is calling: a presented token becomes a [`Caller`](crate::domain::Caller), or the reason why not.
//!
//! - [`authenticator`]: the order of checks, and the only way in · [`error`]: the refusals
//! - [`config`]: families and issuers as an operator writes them · [`issuer_name`]: what `iss` must be ·
//!   [`algorithm`]: what may sign · [`problem`]: what cannot be meant
//! - [`token`]: everything before a verified signature · [`judge`]: everything after it · [`claims`]: reading claims
//! - [`sign_in`]: our registration at an issuer, and the ID tokens that people bring from it
//! - [`jwk`]: one issuer's keys · [`key_source`]: fetching them, within limits · [`cache`]: tokens already verified
//!
//! An unknown issuer is answered as such although no signature was verified: there is no key that could verify it.
//! The answer tells a stranger which issuers are configured, which their public metadata tells as well, and tells
//! an operator at once what is missing.

mod algorithm;
mod authenticator;
mod cache;
mod claims;
mod config;
mod error;
mod issuer_name;
mod judge;
mod jwk;
mod key_source;
mod problem;
mod sign_in;
mod token;

pub use algorithm::Algorithm;
pub use authenticator::{Authenticator, SubjectHasher, TokenSource};
pub use config::{Family, Issuer, Keys, RoleRule, TenantRule};
pub use error::{Flaw, IdentityError};
pub use issuer_name::IssuerName;
pub use key_source::{KeysProbe, KeysUnusable};
pub use problem::{ConfigError, problems};
pub use sign_in::{SignIn, SignedIn};
