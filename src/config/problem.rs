//! What can be wrong with a configuration; each says what to do about it.

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
    #[error("outbound.timeout: must be 1 to 60 seconds")]
    Timeout,
}
