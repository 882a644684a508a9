//! What a development server is started with, and the cast that it comes with: two users, two plugins, three clients.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::domain::{ClientSecret, Rotation, ScopeSet};

/// How a development server behaves. The defaults are those of `claviger dev`.
#[derive(Clone)]
pub struct Options {
    /// Where keys, grants and tokens persist (files 0600). Made with 0700 where it is missing, refused where others can
    /// enter it. `None`: in memory.
    pub directory: Option<PathBuf>,
    /// Secret of [`CLIENT_ID`] and [`SIGN_IN_CLIENT_ID`]. `None`: the persisted one, or a new one.
    pub client_secret: Option<ClientSecret>,
    /// Where [`CLIENT_ID`] and [`PUBLIC_CLIENT_ID`] may be called back; compared as strings, in [`Url`]'s
    /// spelling, but for the port of a literal loopback address (RFC 8252 §7.3).
    pub redirect_uris: Vec<Url>,
    /// Where [`SIGN_IN_CLIENT_ID`] may be called back.
    pub sign_in_redirect_uris: Vec<Url>,
    pub access_token_lifetime: Duration,
    /// Of the demo provider; those that the server plays beside it rotate as they do.
    pub rotation: Rotation,
    /// Whether the played Slack's app rotates tokens; if not, they do not lapse.
    pub slack_token_rotation: bool,
    pub id_token_algorithm: SigningAlgorithm,
}

/// JWS algorithms that the server signs with (RFC 7518 §3.1); it has one key for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "RS256")]
    Rs256,
}

/// Somebody who can log in; there are no passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Both the user name and the `sub` claim, at either issuer.
    pub id: &'static str,
    pub name: &'static str,
    pub email: &'static str,
}

/// A plugin whose API the server plays at `/api/{id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoPlugin {
    pub id: &'static str,
    pub name: &'static str,
    /// Scope that `GET` needs.
    pub read: &'static str,
    /// Scope that `POST` needs; `None`: the API is read-only.
    pub write: Option<&'static str>,
}

/// Confidential; `client_secret_basic` and `client_secret_post`.
pub const CLIENT_ID: &str = "claviger-dev";
/// Public, PKCE alone.
pub const PUBLIC_CLIENT_ID: &str = "claviger-dev-public";
/// Confidential, at the platform's issuer: signs users in on the broker's own pages.
pub const SIGN_IN_CLIENT_ID: &str = "claviger-sign-in";

pub const USERS: [User; 2] = [
    User { id: "alice", name: "Alice Archer", email: "alice@example.test" },
    User { id: "bob", name: "Bob Baker", email: "bob@example.test" },
];

pub const PLUGINS: [DemoPlugin; 2] = [
    DemoPlugin { id: "calendar", name: "Calendar", read: "calendar.read", write: None },
    DemoPlugin { id: "notes", name: "Notes", read: "notes.read", write: Some("notes.write") },
];

impl Default for Options {
    fn default() -> Self {
        Self {
            directory: None,
            client_secret: None,
            redirect_uris: Vec::new(),
            sign_in_redirect_uris: Vec::new(),
            access_token_lifetime: Duration::from_secs(60),
            rotation: Rotation::Strict,
            slack_token_rotation: true,
            id_token_algorithm: SigningAlgorithm::Es256,
        }
    }
}

impl SigningAlgorithm {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl User {
    pub fn named(id: &str) -> Option<&'static Self> {
        USERS.iter().find(|user| user.id == id)
    }
}

impl DemoPlugin {
    pub fn named(id: &str) -> Option<&'static Self> {
        PLUGINS.iter().find(|plugin| plugin.id == id)
    }

    /// Everything that can be asked for at this plugin.
    pub fn scopes(&self) -> ScopeSet {
        let scope = |text: &str| text.parse().expect("a plugin's scopes are constants of legal characters");
        [Some(self.read), self.write].into_iter().flatten().map(scope).collect()
    }
}
