//! The two issuers that one server plays. Apart, so that neither takes the other's tokens.

use serde::{Deserialize, Serialize};

use super::{
    Options, PLUGINS,
    options::{CLIENT_ID, PUBLIC_CLIENT_ID, SIGN_IN_CLIENT_ID},
};
use crate::domain::ScopeSet;

/// Which issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Realm {
    /// The authorization server of the demo plugins.
    Provider,
    /// The platform's identity provider: signs users in and says who calls the broker.
    Platform,
}

/// A registered client.
pub(super) struct Client {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) confidential: bool,
    pub(super) redirect_uris: Vec<String>,
}

impl Realm {
    /// Between the server's base URL and the issuer's own paths.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Provider => "",
            Self::Platform => "/platform",
        }
    }

    pub(super) fn clients(self, options: &Options) -> Vec<Client> {
        let plugins = texts(&options.redirect_uris);
        match self {
            Self::Provider => vec![
                Client {
                    id: CLIENT_ID,
                    name: "Claviger (development)",
                    confidential: true,
                    redirect_uris: plugins.clone(),
                },
                Client { id: PUBLIC_CLIENT_ID, name: "Claviger (public)", confidential: false, redirect_uris: plugins },
            ],
            Self::Platform => vec![Client {
                id: SIGN_IN_CLIENT_ID,
                name: "Claviger's own pages",
                confidential: true,
                redirect_uris: texts(&options.sign_in_redirect_uris),
            }],
        }
    }

    pub(super) fn scopes(self) -> ScopeSet {
        let identity: ScopeSet = ["openid", "profile", "email"]
            .map(|scope| scope.parse().expect("OpenID Connect's scopes are legal"))
            .into_iter()
            .collect();
        match self {
            Self::Provider => {
                let offline = "offline_access".parse().expect("OpenID Connect's scopes are legal");
                PLUGINS
                    .iter()
                    .fold(identity.union(&[offline].into_iter().collect()), |all, plugin| all.union(&plugin.scopes()))
            }
            Self::Platform => identity,
        }
    }

    /// Signing in to the platform leaves nothing behind that could be refreshed.
    pub(super) fn grants_offline_access(self) -> bool {
        self == Self::Provider
    }

    /// The platform's own pages are first party and are not asked about.
    pub(super) fn asks_for_consent(self) -> bool {
        self == Self::Provider
    }
}

fn texts(uris: &[url::Url]) -> Vec<String> {
    uris.iter().map(ToString::to_string).collect()
}
