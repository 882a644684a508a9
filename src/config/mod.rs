//! What an operator decides, as one value. Every section refuses unknown keys; what cannot be meant is refused, all
//! problems at once, before anything is opened.
//!
//! - a section a file: [`grpc`], [`http`] (with [`tls`]), [`limits`], [`store`], [`sealing`], [`outbound`], [`audit`], [`events`],
//!   [`watch`],//!   [`observability`], [`tenants`], [`providers`], [`plugins`]; `[[identity]]` is `identity`'s own · [`units`]: durations and sizes
//! - [`load`]: the stages · [`tree`]: what is written, and where · [`environment`]: variables over it · [`de`],
//!   [`read`]: from there to values · [`schema`]: what the types say about the keys · [`check`]: what refers to what
//!   · [`files`]: secrets and certificates
//! - [`problem`]: what can be wrong · [`path`]: names of keys · [`mod@reference`]: the document of all of them ·
//!   [`reload`]: what changes without a restart

mod audit;
mod check;
mod de;
mod environment;
mod events;
mod files;
mod grpc;
mod http;
mod limits;
mod load;
mod observability;
mod outbound;
mod path;
mod plugins;
mod problem;
mod providers;
mod read;
mod reference;
mod reload;
mod schema;
mod sealing;
mod store;
mod tenants;
mod tls;
mod tree;
mod units;
mod watch;

use std::fmt::Display;

use schemars::JsonSchema;
use serde::Deserialize;

pub use audit::AuditSection;
pub use environment::variables;
pub use events::EventsSection;
pub use grpc::{GrpcSection, Reflection};
pub use http::HttpSection;
pub use limits::LimitsSection;
pub use observability::{LogSection, MetricsSection, TracesSection};
pub use outbound::{InternalHost, OutboundSection};
pub use path::{KeyPath, Step};
pub use plugins::PluginSection;
pub use problem::{Fault, Finding, Place, Problem};
pub use providers::ProviderSection;
pub use reference::reference;
pub use sealing::SealingSection;
pub use store::StoreSection;
pub use tenants::{RedirectRule, TenantSection};
pub use tls::TlsSection;
pub use units::{Period, Size};
pub use watch::WatchSection;

use crate::identity::Family;

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where agents and platforms call.
    #[serde(default)]
    pub grpc: GrpcSection,
    /// Where browsers and health checks come.
    #[serde(default)]
    pub http: HttpSection,
    /// What strangers may cost us, on both listeners.
    #[serde(default)]
    pub limits: LimitsSection,
    /// The embedded store.
    pub store: StoreSection,
    /// Where the root key comes from.
    pub sealing: SealingSection,
    /// Calls to providers and issuers.
    #[serde(default)]
    pub outbound: OutboundSection,
    /// How much the audit trail says, and for how long.
    #[serde(default)]
    pub audit: AuditSection,
    /// How far back the event log reaches.
    #[serde(default)]
    pub events: EventsSection,
    /// How many status streams may be open.
    #[serde(default)]
    pub watch: WatchSection,
    /// What is logged, on standard error.
    #[serde(default)]
    pub log: LogSection,
    /// What Prometheus may collect.
    #[serde(default)]
    pub metrics: MetricsSection,
    /// Where traces go.
    #[serde(default)]
    pub traces: TracesSection,
    /// Whose tokens callers present: the issuers of one identity system each. A person has one subject id in a whole
    /// family, so its `id`, `subject_claims` and `realm_claim` must not change while data exists.
    #[serde(default)]
    pub identity: Vec<Family>,
    /// The customers of the installation.
    #[serde(default)]
    pub tenants: Vec<TenantSection>,
    /// Authorization servers, and our registrations there.
    #[serde(default)]
    pub providers: Vec<ProviderSection>,
    /// What agents ask tokens for: tools, MCP servers, APIs.
    #[serde(default)]
    pub plugins: Vec<PluginSection>,
    /// Not served yet; see [`Fault::NotServed`].
    #[serde(default)]
    #[schemars(skip)]
    pub agents: Vec<toml::Value>,
    #[serde(default)]
    #[schemars(skip)]
    pub toolboxes: Vec<toml::Value>,
    #[serde(default)]
    #[schemars(skip)]
    pub grants: Vec<toml::Value>,
}

fn range<T: PartialOrd + Display>(key: KeyPath, value: &T, least: &T, most: &T) -> Option<Finding> {
    let inside = least <= value && value <= most;
    (!inside).then(|| Finding::new(key, Fault::Range { least: least.to_string(), most: most.to_string() }))
}
