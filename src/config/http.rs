//! `[http]`: where browsers and health checks come.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

use super::{Fault, Finding, KeyPath, TlsSection};
use crate::domain::PublicUrl;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Address and port; port 0 takes any.
    #[schemars(example = &"127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Needed unless `listen` is a loopback address.
    pub tls: Option<TlsSection>,
    /// Where browsers reach this listener, without a path: links to our pages and the redirect URI at providers start
    /// with it. Needed for binding `BROWSER`.
    #[schemars(example = &"https://connect.example.com")]
    pub public_url: Option<Url>,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8080).into(), tls: None, public_url: None }
    }
}

impl HttpSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let Some(url) = &self.public_url else { return Vec::new() };
        let fault = PublicUrl::new(url.clone()).err().map(Fault::PublicUrl);
        fault.map(|fault| Finding::new(KeyPath::of("http.public_url"), fault)).into_iter().collect()
    }
}

/// What browsers may be sent to: anything else is read and changed on its way.
pub(super) fn is_https_or_loopback(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}
