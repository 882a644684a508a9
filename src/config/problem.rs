//! What can be wrong with a configuration; each says what to do about it.

use std::net::SocketAddr;

use crate::domain::{PluginId, ProviderId, TenantId};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Letting it through would grant what the operator meant to restrict.
    #[error("{section}: agents, toolboxes and grants are not served by this version; remove the setting")]
    NotServed { section: String },
    #[error("{section}: {id} is there twice; remove one")]
    Twice { section: &'static str, id: String },
    #[error("plugins.{plugin}: there is no provider {provider}; add it to [[providers]]")]
    ProviderMissing { plugin: PluginId, provider: ProviderId },
    #[error("providers.{provider}: there is no definition {definition:?}; take one of those that are shipped")]
    DefinitionUnknown { provider: ProviderId, definition: String },
    #[error("providers.{provider}: {problem}")]
    Definition { provider: ProviderId, problem: String },
    #[error("identity: tokens would belong to tenant {tenant}, which is not configured; add it to [[tenants]]")]
    TenantMissing { tenant: TenantId },
    #[error("identity: no issuer is configured, so no caller could be let in; add one")]
    NoIssuer,
    #[error(
        "{section}.listen: {listen} is reached from other machines, and tokens would cross the network in the clear; \
         give {section}.tls a certificate_file and a private_key_file, or set it to \"off\" where something in front encrypts"
    )]
    Plaintext { section: &'static str, listen: SocketAddr },
    #[error("{section}.tls: {problem}")]
    Tls { section: &'static str, problem: String },
    #[error("{section}.tls.client_certificates: nobody is named whose certificates are taken; add client_ca_file")]
    NoClientAuthority { section: &'static str },
    #[error("limits.{key}: 0 would let nobody in; leave it out for the default")]
    LimitZero { key: &'static str },
    #[error("limits.header_list: platform tokens alone may take 8 KiB; give it more, 24 KiB is the default")]
    HeaderList,
    #[error("limits.shutdown_grace: must be at most 30 seconds, after which orchestrators kill")]
    ShutdownGrace,
    #[error("outbound.timeout: must be 1 to 60 seconds")]
    Timeout,
}
