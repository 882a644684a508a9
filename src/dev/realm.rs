//! The issuers that one server plays. Apart, so that none takes another's tokens.

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
    /// Below `/google`.
    Google,
    /// Microsoft Entra, below `/entra/{directory}`.
    Entra,
    /// Below `/slack`.
    Slack,
}

/// A registered client.
pub(super) struct Client {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) confidential: bool,
    pub(super) redirect_uris: Vec<String>,
}

impl Realm {
    pub(super) const ALL: [Self; 5] = [Self::Provider, Self::Platform, Self::Google, Self::Entra, Self::Slack];

    pub(super) fn clients(self, options: &Options) -> Vec<Client> {
        let plugins = texts(&options.redirect_uris);
        match self {
            Self::Provider | Self::Google | Self::Entra | Self::Slack => vec![
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
            Self::Provider | Self::Google | Self::Entra | Self::Slack => {
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
        self != Self::Platform
    }

    /// The platform's own pages are first party and are not asked about.
    pub(super) fn asks_for_consent(self) -> bool {
        self != Self::Platform
    }
}

fn texts(uris: &[url::Url]) -> Vec<String> {
    uris.iter().map(ToString::to_string).collect()
}
