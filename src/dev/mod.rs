//! A real OAuth 2.1 and OpenID Connect authorization server for development and tests, on loopback only.
//!
//! Users log in without passwords, and errors say more than they should: that is what it is for. Everything else is as
//! in earnest: PKCE with S256 always, exact redirect URIs, codes used once, rotation with reuse detection, opaque access
//! tokens, `iss` in every authorization response, and state that survives a restart.
//!
//! It plays two issuers, so that neither's tokens pass for the other's: the *provider* (`<base>`), whose clients are
//! [`CLIENT_ID`] and [`PUBLIC_CLIENT_ID`] and whose APIs are the [`PLUGINS`], and the *platform* (`<base>/platform`),
//! which signs users in for [`SIGN_IN_CLIENT_ID`] and whose access tokens [`DevProvider::mint_platform_token`] makes.
//! Beside them it plays Google (`<base>/google`), Microsoft Entra (`<base>/entra/{directory}/v2.0`) and Slack
//! (`<base>/slack`), for the provider's clients: with their endpoints' paths, wire shapes, error bodies and odd ways.
//!
//! # Where things are
//!
//! - `site`: routes · `metadata`, `authorize`, `login`, `token`, `revoke`, `introspect`, `resources`:
//!   one endpoint each · `pages`, `session`: what the browser gets
//! - `persona`: what Google, Entra and Slack do their own way
//! - `ledger`: what was granted · `identity`, `keys`, `id_token`, `platform`: what is signed
//! - `faults`: what goes wrong on demand, by handle or over HTTP · `journal`: what was asked · `settings`: what can change
//! - [`visitor`]: a user with a browser, without a browser
//!
//! # Faults
//!
//! `provider.faults().arm(Endpoint::Token, Fault::CommitThenDrop, 1)` or, from another process, `POST /dev/faults` with
//! `{"endpoint": "token", "count": 1, "fault": "commit_then_drop"}`; the bodies are [`Arm`]'s. `DELETE /dev/faults`
//! disarms, `GET /dev/stats` counts, `PATCH /dev/settings` changes [`Settings`]. [`Faults::hold`] keeps requests waiting until they are released, before or after they
//! took effect, so that a test waits for "two requests are there" and never for time.

mod authorize;
mod client_authentication;
mod connection;
mod endpoint;
mod faults;
mod id_token;
mod identity;
mod introspect;
mod journal;
mod keys;
mod ledger;
mod login;
mod metadata;
mod oauth_error;
mod options;
mod pages;
mod parameters;
mod persona;
mod platform;
mod provider;
mod random;
mod realm;
mod redirect;
mod resources;
mod revoke;
mod session;
mod settings;
mod site;
mod state_file;
mod token;
pub mod visitor;

pub use endpoint::Endpoint;
pub use faults::{
    Answer, Arm, Count, Expiry, Fault, Faults, Hold, HoldPoint, InvalidAnswer, InvalidArm, MissingRefreshToken,
    NAMED_FAULTS, NamedFault, RetryAfter, UnknownFault,
};
pub use journal::{GrantType, Stats, TokenOutcome, TokenRequest};
pub use ledger::{GrantId, TokenRefusal};
pub use options::{
    CLIENT_ID, DemoPlugin, Options, PLUGINS, PUBLIC_CLIENT_ID, SIGN_IN_CLIENT_ID, SigningAlgorithm, USERS, User,
};
pub use persona::ENTRA_DIRECTORY;
pub use platform::{PlatformClaims, Signer};
pub use provider::{DevError, DevProvider, GrantState};
pub use realm::Realm;
pub use settings::Settings;
pub use state_file::StateError;
