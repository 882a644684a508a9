//! Flows, their attempts, and the tokens that wait in a flow to be judged.

use url::Url;

use super::{AttemptKey, FlowTokens, Stored, Vault, VaultError, place};
use crate::{
    domain::{
        AgentId, Attempt, CodeVerifier, ConnectionId, Flow, FlowId, FlowSecret, Nonce, PluginId, PostedResponse,
        ProviderId, ScopeSet, SubjectId, TenantId, Timestamp,
    },
    store::{FieldTag, IndexKind, RecordKey, RecordKind},
};

/// What makes two requests for authorization the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowIntent<'a> {
    pub subject: SubjectId,
    pub agent: Option<&'a AgentId>,
    pub plugin: Option<&'a PluginId>,
    pub provider: &'a ProviderId,
    pub scopes: &'a ScopeSet,
    pub account: Option<&'a str>,
    pub return_url: Option<&'a Url>,
    pub renews: Option<ConnectionId>,
}

/// Attempts' secrets are written once, with the row's first version.
pub(super) const ATTEMPT_SECRETS: u64 = 1;

impl<'a> FlowIntent<'a> {
    pub fn of(flow: &'a Flow) -> Self {
        Self {
            subject: flow.subject,
            agent: flow.agent.as_ref(),
            plugin: flow.plugin.as_ref(),
            provider: &flow.provider,
            scopes: &flow.scopes,
            account: flow.account.as_deref(),
            return_url: flow.return_url.as_ref(),
            renews: flow.renews,
        }
    }
}

impl Vault {
    /// `None` also for another tenant's flow.
    pub async fn flow(&self, tenant: &TenantId, id: FlowId) -> Result<Option<Stored<Flow>>, VaultError> {
        Ok(self.any_flow(id).await?.filter(|flow| flow.value.tenant == *tenant))
    }

    /// Whatever the tenant: for the connect page, which has yet to learn who comes, and for jobs.
    pub async fn any_flow(&self, id: FlowId) -> Result<Option<Stored<Flow>>, VaultError> {
        let stored = self.read::<Flow>(place::flow_row(id)).await?;
        Ok(stored.filter(|flow| flow.value.id == id))
    }

    /// The flow of this intent that is still open.
    pub async fn open_flow(
        &self,
        tenant: &TenantId,
        intent: &FlowIntent<'_>,
        now: Timestamp,
    ) -> Result<Option<Stored<Flow>>, VaultError> {
        let prefix = place::intent_prefix(self.keys(), tenant, intent);
        for record in self.indexed(IndexKind::FlowsByIntent, prefix).await? {
            let Some(stored) = self.read::<Flow>(record).await? else { continue };
            let flow = &stored.value;
            if flow.tenant == *tenant && FlowIntent::of(flow) == *intent && flow.is_open(now) {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    /// How many flows of the subject are within their time, ended ones included; never more than `limit`.
    pub async fn flows_of(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
        now: Timestamp,
        limit: usize,
    ) -> Result<usize, VaultError> {
        let mut count = 0;
        for record in self.indexed(IndexKind::FlowsOfSubject, place::flows_prefix(self.keys(), tenant, subject)).await?
        {
            let live = self.read::<Flow>(record).await?.is_some_and(|flow| flow.value.is_live(now));
            count += usize::from(live);
            if count >= limit {
                break;
            }
        }
        Ok(count)
    }

    /// The tokens that wait in the flow; `None` when none do.
    pub async fn flow_tokens(&self, flow: &Stored<Flow>) -> Result<Option<FlowTokens>, VaultError> {
        let Some(parked) = flow.parked.clone() else { return Ok(None) };
        let corrupt = || VaultError::corrupt(&flow.key);
        let tokens = self.tokens(flow, parked.version).await?.ok_or_else(corrupt)?;
        let nonce = self.secret(flow, FieldTag::Nonce, parked.version).await?.map(Nonce::new);
        Ok(Some(parked.granted.ok_or_else(corrupt)?.with(tokens, nonce)))
    }

    /// The attempt that carries this `state`, consumed or not.
    pub async fn attempt(&self, state: &FlowSecret) -> Result<Option<Stored<Attempt>>, VaultError> {
        self.read(place::attempt_row(self.keys(), state)).await
    }

    /// The attempt that [`super::DueRecord::Attempt`] names.
    pub async fn attempt_by_key(&self, key: &AttemptKey) -> Result<Option<Stored<Attempt>>, VaultError> {
        self.read(RecordKey::new(RecordKind::Attempt, key.as_bytes())).await
    }

    pub async fn attempt_verifier(&self, attempt: &Stored<Attempt>) -> Result<CodeVerifier, VaultError> {
        let verifier = self.secret(attempt, FieldTag::CodeVerifier, ATTEMPT_SECRETS).await?;
        verifier.map(CodeVerifier::new).ok_or_else(|| VaultError::corrupt(&attempt.key))
    }

    /// The response that was posted for the attempt and waits for its browser.
    pub async fn posted_response(&self, attempt: &Stored<Attempt>) -> Result<Option<PostedResponse>, VaultError> {
        Ok(self.secret(attempt, FieldTag::PostedResponse, ATTEMPT_SECRETS).await?.map(PostedResponse::new))
    }

    /// `None` when the attempt asked for no ID token.
    pub async fn attempt_nonce(&self, attempt: &Stored<Attempt>) -> Result<Option<Nonce>, VaultError> {
        Ok(self.secret(attempt, FieldTag::Nonce, ATTEMPT_SECRETS).await?.map(Nonce::new))
    }
}
