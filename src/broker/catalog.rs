//! What the operator configured: tenants, providers, plugins. Immutable; a reload makes a new one.

use std::{collections::HashMap, sync::Arc};

use url::{Host, Url};

use crate::domain::{Plugin, PluginId, Provider, ProviderId, TenantId};

#[derive(Clone, Default)]
pub struct Catalog {
    pub tenants: HashMap<TenantId, Tenant>,
    pub providers: HashMap<ProviderId, Arc<Provider>>,
    pub plugins: HashMap<PluginId, Plugin>,
}

/// A tenant's policy.
#[derive(Clone, Debug, Default)]
pub struct Tenant {
    /// Where a user may be sent after consent.
    pub return_urls: Vec<UrlRule>,
    /// Where a provider may send the code in binding `CALLER`; each must be registered at the provider too.
    pub redirect_uris: Vec<UrlRule>,
}

/// An allowed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlRule {
    /// Exactly this URL, query included.
    Exact(Url),
    /// `http` on a literal loopback address with any port and this path: a native application (RFC 8252 §7.3).
    Loopback { path: String },
}

impl UrlRule {
    pub fn allows(&self, url: &Url) -> bool {
        match self {
            Self::Exact(allowed) => allowed == url,
            Self::Loopback { path } => {
                let loopback = match url.host() {
                    Some(Host::Ipv4(address)) => address.is_loopback(),
                    Some(Host::Ipv6(address)) => address.is_loopback(),
                    Some(Host::Domain(_)) | None => false,
                };
                let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
                url.scheme() == "http" && loopback && bare && url.query().is_none() && url.path() == path
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_rule_allows_any_port_and_nothing_else() {
        let rule = UrlRule::Loopback { path: "/callback".to_owned() };
        for allowed in ["http://127.0.0.1:1/callback", "http://127.0.0.1/callback", "http://[::1]:80/callback"] {
            assert!(rule.allows(&allowed.parse().unwrap()), "{allowed}");
        }
        for refused in [
            "https://127.0.0.1/callback",
            "http://localhost/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://user@127.0.0.1/callback",
            "http://127.0.0.1/callback?x=1",
            "http://127.0.0.1/callback#x",
            "http://127.0.0.1/callback/",
            "http://128.0.0.1/callback",
        ] {
            assert!(!rule.allows(&refused.parse().unwrap()), "{refused}");
        }
    }
}
