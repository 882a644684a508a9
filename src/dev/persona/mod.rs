//! The providers that the server can play: what each of them does otherwise than the demo provider, as data where data
//! can say it. Wire shapes and error bodies are theirs; accounts, grants and tokens are the demo provider's.
//!
//! - [`google`], [`entra`], [`slack`]: routes, and the functions that [`Manners`] names

mod entra;
mod google;
mod slack;

use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

pub use self::entra::ENTRA_DIRECTORY;
pub(super) use self::{entra::routes as entra_routes, google::routes as google_routes, slack::routes as slack_routes};
use super::{TokenRefusal, oauth_error::OauthError, options::User, parameters::Parameters, realm::Realm, site::Site};
use crate::domain::{Rotation, ScopeSet};

/// What an issuer does its own way.
pub(super) struct Manners {
    /// For the pages.
    pub(super) name: &'static str,
    /// Between the server's base URL and the issuer's own paths.
    pub(super) path: &'static str,
    /// After `path`: the rest of the issuer.
    pub(super) issuer: &'static str,
    /// After `path`.
    pub(super) authorize: &'static str,
    /// RFC 9207.
    pub(super) names_issuer: bool,
    /// `None`: as the options say.
    pub(super) rotation: Option<Rotation>,
    /// An access token without a refresh token never lapses.
    pub(super) lasting: bool,
    pub(super) ask: fn(&Site, &Parameters) -> Result<Asked, Objection>,
    /// Claims of an ID token beside the standard ones.
    pub(super) identify: fn(&User, &mut Map<String, Value>),
    /// From the standard answer of the token endpoint to this issuer's.
    pub(super) dress: fn(&mut Map<String, Value>, &Worn),
    pub(super) refuse: fn(&OauthError, Option<TokenRefusal>) -> Response,
    /// What a refresh must say that RFC 6749 §6 leaves out: parameter, and error code of its absence.
    pub(super) refresh_needs: Option<(&'static str, &'static str)>,
}

/// What an authorization request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) scopes: ScopeSet,
    /// A refresh token too.
    pub(super) offline: bool,
    /// A token that acts as the client's bot.
    pub(super) as_bot: bool,
}

/// Error code and description of an authorization request that is refused.
pub(super) type Objection = (&'static str, &'static str);

/// What an answer's shape depends on.
pub(super) struct Worn {
    pub(super) user: String,
    /// Of a code, not of a refresh token.
    pub(super) of_code: bool,
    pub(super) offline: bool,
    pub(super) as_bot: bool,
}

impl Realm {
    pub(super) fn manners(self) -> &'static Manners {
        match self {
            Self::Provider => &PROVIDER,
            Self::Platform => &PLATFORM,
            Self::Google => &google::MANNERS,
            Self::Entra => &entra::MANNERS,
            Self::Slack => &slack::MANNERS,
        }
    }
}

const PROVIDER: Manners = Manners {
    name: "the demo provider",
    path: "",
    issuer: "",
    authorize: "/authorize",
    names_issuer: true,
    rotation: None,
    lasting: false,
    ask: |site, parameters| {
        let scopes = scopes_of(parameters, "scope", ' ').filter(|scopes| site.realm.scopes().contains_all(scopes));
        let scopes = scopes.ok_or(("invalid_scope", "scope must name scopes that this server knows"))?;
        // Signing in to the platform leaves nothing behind that could be refreshed.
        Ok(Asked { scopes, offline: site.realm.grants_offline_access(), as_bot: false })
    },
    identify: |_, _| {},
    dress: |_, _| {},
    refuse: |error, _| error.into_response(),
    refresh_needs: None,
};

const PLATFORM: Manners = Manners { name: "the demo platform", path: "/platform", ..PROVIDER };

/// `None`: absent, empty or malformed.
fn scopes_of(parameters: &Parameters, name: &str, separator: char) -> Option<ScopeSet> {
    let scopes = ScopeSet::parse(parameters.single(name)?, separator).ok();
    scopes.filter(|scopes| !scopes.is_empty())
}

/// The answer's scopes, each as `spell` writes it; `None` leaves it out.
fn respell(body: &mut Map<String, Value>, spell: fn(&str) -> Option<String>) {
    if let Some(Value::String(scopes)) = body.get_mut("scope") {
        *scopes = scopes.split(' ').filter_map(spell).collect::<Vec<_>>().join(" ");
    }
}
