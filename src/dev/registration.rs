//! How the broker would be configured for this server: the demo provider and its plugins in the domain's words.

use url::Url;

use super::{CLIENT_ID, DevProvider, PLUGINS};
use crate::domain::{
    AccountSource, ClientAuthentication, Definition, Endpoints, Plugin, Provider, ProviderId, Revocation, TokenUsage,
};

impl DevProvider {
    /// The broker's registration as [`CLIENT_ID`]; endpoints are left to discovery.
    pub fn registration(&self) -> Provider {
        let definition = Definition {
            display_name: "Demo provider".to_owned(),
            issuer: Some(self.base()),
            endpoints: Endpoints::default(),
            scope_separator: ' ',
            response_scope_separator: ' ',
            client_authentication: ClientAuthentication::Basic,
            always_scopes: ["openid".parse().expect("a legal scope")].into_iter().collect(),
            authorization_parameters: Default::default(),
            token_parameters: Default::default(),
            rotation: self.rotation(),
            refresh_invalidates_access_token: false,
            error_rules: Vec::new(),
            revocation: Revocation::Rfc7009,
            revocation_side_effects: String::new(),
            account: Some(AccountSource::IdToken { claim: "sub".to_owned() }),
        };
        Provider {
            id: provider_id(),
            definition,
            client_id: CLIENT_ID.to_owned(),
            client_secret: Some(self.client_secret()),
        }
    }

    /// The demo plugins, whose tokens open `/api/{id}` here.
    pub fn plugins(&self) -> Vec<Plugin> {
        let plugin = |demo: &super::DemoPlugin| Plugin {
            id: demo.id.parse().expect("the demo plugins' ids are legal"),
            display_name: demo.name.to_owned(),
            provider: provider_id(),
            scopes: demo.scopes(),
            usage: TokenUsage {
                base_url: self.base().join(&format!("/api/{}", demo.id)).ok(),
                ..TokenUsage::default()
            },
            enabled: true,
        };
        PLUGINS.iter().map(plugin).collect()
    }

    fn base(&self) -> Url {
        self.issuer().parse().expect("the issuer is built from a socket address")
    }
}

fn provider_id() -> ProviderId {
    "demo".parse().expect("a legal provider id")
}
