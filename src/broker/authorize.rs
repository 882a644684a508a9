//! The zero-trust chain: session, agent, toolbox, plugin, connection, grant. The first refusal is the answer.
//!
//! Agents, toolboxes and grants are not served yet, and a configuration that asks for them is refused at start; so a
//! tenant here runs without agents, and the user's own token passes those links.

use super::{Broker, BrokerError, Catalog};
use crate::{
    domain::{Call, Caller, Link, Plugin, PluginId, Reason, Role, ScopeSet},
    vault::{Stored, Subject},
};

/// What a plugin use needs to be allowed.
pub(super) struct Access<'a> {
    pub(super) plugin: &'a PluginId,
    /// `None`: all of the plugin's scopes.
    pub(super) scopes: Option<&'a ScopeSet>,
}

/// What the chain let through.
pub(super) struct Allowed<'a> {
    pub(super) plugin: &'a Plugin,
    /// The scopes that the token must carry.
    pub(super) scopes: &'a ScopeSet,
}

impl Broker {
    /// The session link: a caller of a known tenant, in the role that the operation needs, whose token was issued
    /// after the subject's sessions were last ended.
    pub(super) async fn authorize_session(&self, call: &Call, role: Role) -> Result<(), BrokerError> {
        self.session(&call.caller, role).await.map(drop)
    }

    /// The session link of whoever is given secrets: nothing is served to who was erased, also while the erasure is not at
    /// its end.
    pub(super) async fn authorize_secrets(&self, call: &Call, role: Role) -> Result<(), BrokerError> {
        match self.session(&call.caller, role).await? {
            Some(subject) if subject.value.erased.is_some() => Err(BrokerError::SubjectErased),
            _ => Ok(()),
        }
    }

    /// The link itself, with what is known of the subject.
    pub(super) async fn session(&self, caller: &Caller, role: Role) -> Result<Option<Stored<Subject>>, BrokerError> {
        let refused = |reason| BrokerError::Refused { link: Link::Session, reason };
        if !self.catalog().tenants.contains_key(&caller.tenant) {
            return Err(refused(Reason::TenantUnknown));
        }
        if !caller.has(role) {
            return Err(refused(Reason::RoleMissing));
        }
        let subject = self.vault().subject(&caller.tenant, caller.subject).await?;
        match subject.as_ref().and_then(|stored| stored.value.not_before) {
            Some(not_before) if caller.issued_at < not_before => Err(refused(Reason::TokenExpired)),
            _ => Ok(subject),
        }
    }

    /// The plugin link.
    pub(super) fn authorize_plugin<'a>(catalog: &'a Catalog, access: &Access<'a>) -> Result<Allowed<'a>, BrokerError> {
        let plugin = catalog.plugins.get(access.plugin).ok_or(BrokerError::PluginUnknown)?;
        let refused = |reason| BrokerError::Refused { link: Link::Plugin, reason };
        if !plugin.enabled {
            return Err(refused(Reason::PluginDenied));
        }
        let scopes = access.scopes.unwrap_or(&plugin.scopes);
        if !plugin.scopes.contains_all(scopes) {
            return Err(refused(Reason::ScopeExceeded));
        }
        Ok(Allowed { plugin, scopes })
    }
}
