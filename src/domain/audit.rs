//! The audit trail's words. Typed fields only: nothing free from upstream, never a secret.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    AgentId, ApplyOutcome, CallContext, ConnectionId, KeyId, Link, PluginId, ProviderId, Reason, RequestId, Sealed,
    SubjectId, TenantId, Timestamp,
};

/// One thing that was done, decided or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    pub at: Timestamp,
    pub tenant: TenantId,
    /// `None`: the broker itself acted.
    pub subject: Option<SubjectId>,
    pub agent: Option<AgentId>,
    pub action: AuditAction,
    pub result: AuditResult,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionId>,
    /// Of the credential; for [`AuditAction::AppliedReported`] the one that was reported, if it was ever given out; for
    /// [`AuditAction::ConfigurationChanged`] the version of the configuration in force, for
    /// [`AuditAction::BackupEnded`] and [`AuditAction::StoreRestored`] the revision that the copy shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(default)]
    pub context: CallContext,
    /// What an operator's action was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<AuditTarget>,
    /// For [`AuditAction::AppliedReported`]: who said it, and what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<AuditedReport>,
    /// For [`AuditAction::ReadsRepeated`]: how many reads the first record covers beyond itself, and its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Repeated>,
    /// For [`AuditAction::AuditPurged`]: the last record that was removed; the chain is checked from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purged: Option<ChainPosition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditTarget {
    Key(KeyId),
    /// The tenant's keys.
    Tenant(TenantId),
    Subject(SubjectId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedReport {
    /// SHA-256 of the name that the holder has for itself. The name may tell who the subject is, and the trail outlives an
    /// erasure; whoever knows the name finds its reports.
    pub holder_sha256: [u8; 32],
    pub outcome: ApplyOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    pub first: u64,
    pub last_at: Timestamp,
    pub count: u64,
}

/// Where the audit chain stands after a record; where a check begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPosition {
    /// The record's number.
    pub sequence: u64,
    /// Its authenticator, which covers all before it.
    pub mac: [u8; 32],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditAction {
    TokenRead,
    ReadsRepeated,
    TokenValidated,
    AuthorizationStarted,
    AuthorizationRead,
    /// Somebody signed in on our pages, for a flow.
    SignedIn,
    /// A flow's owner agreed on our page, and was sent to the provider.
    ConsentGiven,
    /// A flow's owner declined on our page.
    ConsentDeclined,
    /// The provider's answer came back to our pages.
    AuthorizationAnswered,
    CodeStored,
    ConnectionChanged,
    ConnectionsRead,
    RevocationRequested,
    RevocationSettled,
    /// A holder said what it has done with a generation.
    AppliedReported,
    RefreshBegun,
    RefreshSettled,
    WatchOpened,
    ConfigurationChanged,
    /// A provider refused our client registration.
    ProviderSuspended,
    /// It accepted our registration again, or we have another one.
    ProviderResumed,
    StatusRead,
    /// An operator began to copy the whole store.
    BackupBegun,
    /// The copying ended, and how.
    BackupEnded,
    /// The store was filled from a backup; all records up to here were in it.
    StoreRestored,
    /// Records that reached the end of their retention were removed: a checkpoint of the chain.
    AuditPurged,
    KeyRotated,
    KeyRetired,
    KeysListed,
    SubjectErased,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditResult {
    Allowed,
    Refused,
    Failed,
}

impl AuditRecord {
    /// Of something that the broker did by itself, and that was allowed.
    pub fn by_broker(tenant: TenantId, action: AuditAction, at: Timestamp) -> Self {
        Self {
            at,
            tenant,
            subject: None,
            agent: None,
            action,
            result: AuditResult::Allowed,
            reason: None,
            link: None,
            provider: None,
            plugin: None,
            connection: None,
            generation: None,
            request_id: None,
            peer: None,
            user_agent: None,
            context: CallContext::default(),
            target: None,
            applied: None,
            repeated: None,
            purged: None,
        }
    }
}

/// Links audit records in commit order. The store's writer calls it, and only for change sets that commit, so a
/// failed compare-and-swap leaves no hole.
pub trait AuditLinker: Send + 'static {
    /// Makes the stored form of the record with sequence number `sequence` (dense, from 1). `previous` is the stored
    /// form of the record before it, `None` for the first.
    fn link(&self, sequence: u64, previous: Option<&[u8]>, body: &Sealed) -> Vec<u8>;
}
