//! What an operator decides, as one value. Every section refuses unknown keys; what cannot be meant is refused by
//! [`Config::check`], all problems at once, before anything is opened.
//!
//! - [`catalog`]: tenants, providers, plugins · [`tls`], [`limits`]: the listeners
//! - [`problem`]: what can be wrong

mod catalog;
mod limits;
mod problem;
mod tls;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;
use url::Url;

pub use catalog::{PluginSection, ProviderSection, RedirectRule, TenantSection};
pub use limits::LimitsSection;
pub use problem::Problem;
pub use tls::TlsSection;

use crate::identity::Family;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub grpc: GrpcSection,
    #[serde(default)]
    pub http: HttpSection,
    #[serde(default)]
    pub limits: LimitsSection,
    pub store: StoreSection,
    pub sealing: SealingSection,
    #[serde(default)]
    pub outbound: OutboundSection,
    #[serde(default)]
    pub audit: AuditSection,
    /// Whose tokens callers present.
    #[serde(default)]
    pub identity: Vec<Family>,
    #[serde(default)]
    pub tenants: Vec<TenantSection>,
    #[serde(default)]
    pub providers: Vec<ProviderSection>,
    #[serde(default)]
    pub plugins: Vec<PluginSection>,
    /// Not served yet; see [`Problem::NotServed`].
    #[serde(default)]
    pub agents: Vec<toml::Value>,
    #[serde(default)]
    pub toolboxes: Vec<toml::Value>,
    #[serde(default)]
    pub grants: Vec<toml::Value>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcSection {
    pub listen: SocketAddr,
    /// Needed unless `listen` is a loopback address.
    pub tls: Option<TlsSection>,
    pub reflection: Reflection,
    /// Calls per second that one principal may make in the long run; bursts of ten times that pass. 0: no limit.
    pub rate: u32,
}

/// Who may read the service descriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reflection {
    Open,
    #[default]
    Authenticated,
    Off,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    pub listen: SocketAddr,
    /// Needed unless `listen` is a loopback address.
    pub tls: Option<TlsSection>,
    /// Where browsers reach this listener, without a path: links to our pages and the redirect URI at providers start
    /// with it. Needed for binding `BROWSER`.
    pub public_url: Option<Url>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    /// Of this process alone; made with mode 0700 when it is not there.
    pub directory: PathBuf,
    /// Bytes that sled may keep of its pages.
    #[serde(default = "page_cache")]
    pub page_cache: u64,
    /// Bytes of sealed rows kept at hand.
    #[serde(default = "row_cache")]
    pub row_cache: u64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealingSection {
    /// The root key; a regular file of mode 0600.
    pub root_key: PathBuf,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundSection {
    /// Lets providers and issuers be plain `http` on literal loopback addresses: for development and tests.
    pub allow_http_loopback: bool,
    /// Seconds that one request to a provider may take in all.
    pub timeout: u64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSection {
    /// Seconds for which one record covers repeated reads; 0: every read has its own.
    pub window: u64,
}

impl Config {
    /// Everything that is wrong, not only the first.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let present = [
            ("agents", !self.agents.is_empty()),
            ("toolboxes", !self.toolboxes.is_empty()),
            ("grants", !self.grants.is_empty()),
        ];
        problems.extend(
            present
                .iter()
                .filter(|(_, there)| *there)
                .map(|(section, _)| Problem::NotServed { section: (*section).to_owned() }),
        );
        for tenant in self.tenants.iter().filter(|tenant| tenant.require_agent) {
            problems.push(Problem::NotServed { section: format!("tenants.{}.require_agent", tenant.id) });
        }
        problems.extend(tls::check("grpc", self.grpc.listen, self.grpc.tls.as_ref()));
        problems.extend(tls::check("http", self.http.listen, self.http.tls.as_ref()));
        problems.extend(limits::check(&self.limits));
        problems.extend(catalog::check(self));
        problems
    }
}

impl Default for GrpcSection {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 50051).into(), tls: None, reflection: Reflection::default(), rate: 100 }
    }
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8080).into(), tls: None, public_url: None }
    }
}

impl Default for OutboundSection {
    fn default() -> Self {
        Self { allow_http_loopback: false, timeout: 15 }
    }
}

impl Default for AuditSection {
    fn default() -> Self {
        Self { window: 10 }
    }
}

fn page_cache() -> u64 {
    256 * 1024 * 1024
}

fn row_cache() -> u64 {
    64 * 1024 * 1024
}
