//! Begins connecting an account: opens the flow, and in binding `CALLER` mints its first attempt at once. In binding
//! `BROWSER` that is for our page to do, when its owner has agreed there.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use url::Url;

use super::{
    Broker, BrokerError, Catalog,
    authorize::Access,
    error::AuthenticationRequired,
    trail::{About, allowed},
};
use crate::{
    domain::{
        Attempt, AuditAction, AuditRecord, Call, ConnectionId, FLOW_LIFETIME, Flow, FlowId, FlowState, Hints, PluginId,
        Provider, ProviderId, Reason, Role, ScopeSet, SubjectId, Timestamp,
    },
    oauth::{AuthorizationRequest, AuthorizationUrl},
    vault::{FlowIntent, Parked, Stored},
};

/// Flows, open or ended, that one subject may have within their ten minutes.
const MOST_FLOWS: usize = 32;
/// Attempts that one flow may mint.
const MOST_ATTEMPTS: u32 = 10;

pub struct StartAuthorization {
    pub target: Target,
    /// Empty: the plugin's.
    pub scopes: ScopeSet,
    pub account: Option<String>,
    pub binding: Binding,
    pub return_url: Option<Url>,
}

/// What to connect to.
#[derive(Clone, Debug)]
pub enum Target {
    Plugin(PluginId),
    Provider(ProviderId),
}

/// Who receives the provider's redirect.
#[derive(Clone, Debug)]
pub enum Binding {
    /// The broker's own pages.
    Browser,
    /// The caller, on this URI.
    Caller { redirect_uri: Url },
}

pub struct StartedAuthorization {
    pub flow: Flow,
    /// Where the user goes: our page, or the provider's. The provider's carries the flow's `state`: whoever opens it can
    /// finish it for the caller.
    pub authorization_url: Url,
}

impl Broker {
    pub async fn start_authorization(
        &self,
        call: &Call,
        request: StartAuthorization,
    ) -> Result<StartedAuthorization, BrokerError> {
        let about = About { plugin: request.target.plugin(), connection: None };
        let outcome = self.begin(call, &request).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, AuditAction::AuthorizationStarted, about, error).await;
        }
        outcome
    }

    async fn begin(&self, call: &Call, request: &StartAuthorization) -> Result<StartedAuthorization, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let catalog = self.catalog();
        let (provider, scopes) = resolve(&catalog, &request.target, &request.scopes)?;
        let redirect_uri = match &request.binding {
            Binding::Browser => None,
            Binding::Caller { redirect_uri } => Some(redirect_uri),
        };
        match redirect_uri {
            None if !self.has_pages(&call.caller) => return Err(BrokerError::SignInNotConfigured),
            Some(uri) if !catalog.tenants[&call.caller.tenant].redirect_uris.iter().any(|rule| rule.allows(uri)) => {
                return Err(BrokerError::Invalid { field: "redirect_uri", problem: "is not on the tenant's list" });
            }
            _ => {}
        }
        let (renews, scopes) = self.aim(call, &provider.id, request.account.as_deref(), scopes).await?;
        let intent = FlowIntent {
            subject: call.caller.subject,
            agent: call.caller.agent.as_ref(),
            plugin: request.target.plugin(),
            provider: &provider.id,
            scopes: &scopes,
            account: request.account.as_deref(),
            return_url: request.return_url.as_ref(),
            renews,
        };
        loop {
            let flow = self.open_flow(call, &intent).await?.ok_or_else(|| quota(self.now(), None))?;
            let Some(redirect_uri) = redirect_uri else {
                let url = self.connect_url(&flow.value).ok_or(BrokerError::SignInNotConfigured)?;
                return Ok(StartedAuthorization { flow: flow.into_value(), authorization_url: url });
            };
            let about = About { plugin: flow.value.plugin.as_ref(), connection: None };
            let record = allowed(call, AuditAction::AuthorizationStarted, about, self.now());
            match self.mint(Minting { flow, provider, redirect_uri, browser: None, record }).await {
                // Another call has minted an attempt of this flow, or ended it.
                Err(BrokerError::Conflict) => {}
                other => return other,
            }
        }
    }

    /// The connection that a new authorization renews, and the scopes to ask for. It follows GetPluginToken's choice, so
    /// that what is started because of its answer is the flow that the answer named: the named account's connection, or
    /// the only one if that is dead or lacks scopes. A connection that works is not renewed unless it is named: then the
    /// user may be adding another account.
    ///
    /// The scopes of what may be renewed are always kept: at many providers a new grant replaces the old one, and asking
    /// for the new scopes alone would take the others away from the plugins that use them.
    async fn aim(
        &self,
        call: &Call,
        provider: &ProviderId,
        account: Option<&str>,
        scopes: ScopeSet,
    ) -> Result<(Option<ConnectionId>, ScopeSet), BrokerError> {
        let mut connections =
            self.vault().connections(&call.caller.tenant, call.caller.subject, Some(provider)).await?;
        connections.retain(|stored| !stored.value.credential.state.is_stopped());
        if account.is_some() {
            connections.retain(|stored| stored.value.account.as_deref() == account);
        }
        if connections.iter().any(|stored| stored.value.credential.state.serves()) {
            connections.retain(|stored| stored.value.credential.state.serves());
        }
        let renews = match connections.as_slice() {
            [only] => {
                let credential = &only.value.credential;
                let works = credential.state.serves() && credential.scopes.contains_all(&scopes);
                (account.is_some() || !works).then_some(only.value.id)
            }
            _ => None,
        };
        let all = connections.iter().fold(scopes, |all, stored| all.union(&stored.value.credential.scopes));
        Ok((renews, all))
    }

    /// The error that sends the user to consent. Its flow is opened now, or found open: a polling agent writes
    /// nothing. With the quota used up it comes without a flow.
    pub(super) async fn authentication_required(
        &self,
        call: &Call,
        reason: Reason,
        intent: &FlowIntent<'_>,
        missing: ScopeSet,
    ) -> BrokerError {
        let flow = match self.open_flow(call, intent).await {
            Ok(flow) => flow,
            Err(error) => return error,
        };
        let hints = match &flow {
            Some(flow) => self.hints_for(&flow.value).await,
            None => Ok(None),
        };
        let hints = match hints {
            Ok(hints) => hints,
            Err(error) => return error,
        };
        BrokerError::AuthenticationRequired(Box::new(AuthenticationRequired {
            reason,
            provider: intent.provider.clone(),
            plugin: intent.plugin.cloned(),
            missing_scopes: missing,
            auth_url: flow.as_ref().and_then(|stored| self.connect_url(&stored.value)),
            hints: hints.unwrap_or_default(),
            flow: flow.as_ref().map(|stored| stored.value.id),
            expires_at: flow.as_ref().map(|stored| stored.value.expires_at),
            context: call.context.clone(),
        }))
    }

    /// The open flow of this intent, or a new one; `None` when the subject has too many.
    async fn open_flow(&self, call: &Call, intent: &FlowIntent<'_>) -> Result<Option<Stored<Flow>>, BrokerError> {
        let (caller, now) = (&call.caller, self.now());
        let catalog = self.catalog();
        let tenant = &catalog.tenants[&caller.tenant];
        if let Some(url) = intent.return_url
            && !tenant.return_urls.iter().any(|rule| rule.allows(url))
        {
            return Err(BrokerError::Invalid { field: "return_url", problem: "is not on the tenant's list" });
        }
        if let Some(open) = self.vault().open_flow(&caller.tenant, intent, now).await? {
            return Ok(Some(open));
        }
        let _turn = self.opening().wait(caller.subject).await;
        if let Some(open) = self.vault().open_flow(&caller.tenant, intent, now).await? {
            return Ok(Some(open));
        }
        match self.require_room_for_flow(call).await {
            Ok(()) => {}
            Err(BrokerError::FlowQuota { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let flow = self.new_flow(call, intent)?;
        let mut change = self.vault().change(&caller.tenant, Some(caller.subject)).await?;
        change.insert_flow(&flow);
        let about = About { plugin: intent.plugin, connection: None };
        change.audit(&allowed(call, AuditAction::AuthorizationStarted, about, now));
        change.commit().await?;
        Ok(self.vault().flow(&caller.tenant, flow.id).await?)
    }

    /// Refuses a subject that has too many flows already.
    pub(super) async fn require_room_for_flow(&self, call: &Call) -> Result<(), BrokerError> {
        let (caller, now) = (&call.caller, self.now());
        let flows = self.vault().flows_of(&caller.tenant, caller.subject, now, MOST_FLOWS).await?;
        if flows < MOST_FLOWS { Ok(()) } else { Err(quota(now, None)) }
    }

    pub(super) fn new_flow(&self, call: &Call, intent: &FlowIntent<'_>) -> Result<Flow, BrokerError> {
        let now = self.now();
        Ok(Flow {
            id: FlowId::from_bytes(self.fresh()?),
            tenant: call.caller.tenant.clone(),
            subject: intent.subject,
            family: call.caller.family.clone(),
            agent: intent.agent.cloned(),
            plugin: intent.plugin.cloned(),
            provider: intent.provider.clone(),
            scopes: intent.scopes.clone(),
            account: intent.account.map(str::to_owned),
            return_url: intent.return_url.cloned(),
            renews: intent.renews,
            attempts: 0,
            created_at: now,
            expires_at: now.plus(FLOW_LIFETIME),
            state: FlowState::Open,
            session: None,
        })
    }

    /// A fresh attempt: state, verifier and nonce are never reused, not even for a repeated question (RFC 9700 §2.1.1).
    pub(super) async fn mint(&self, minting: Minting<'_>) -> Result<StartedAuthorization, BrokerError> {
        let Minting { flow, provider, redirect_uri, browser, record } = minting;
        if flow.value.attempts >= MOST_ATTEMPTS {
            return Err(quota(self.now(), Some(flow.value.expires_at)));
        }
        let hints = self.hints_for(&flow.value).await?;
        let random = self.vault().random();
        let (state, verifier, nonce) = (random.flow_secret()?, random.code_verifier()?, random.nonce()?);
        let request = AuthorizationRequest {
            redirect_uri,
            scopes: &flow.value.scopes,
            state: &state,
            verifier: &verifier,
            nonce: &nonce,
            login_hint: None,
            hints: hints.as_ref(),
        };
        let AuthorizationUrl { url, server } = self.servers().authorization_url(provider, &request).await?;
        let attempt = Attempt {
            flow: flow.value.id,
            tenant: flow.value.tenant.clone(),
            subject: flow.value.subject,
            provider: provider.id.clone(),
            redirect_uri: redirect_uri.clone(),
            issuer: server.issuer.map(|issuer| issuer.as_str().to_owned()),
            iss_parameter_supported: server.iss_parameter_supported,
            token_endpoint: server.token,
            expires_at: flow.value.expires_at,
            consumed_by: None,
            browser,
        };
        let minted = Flow { attempts: flow.value.attempts + 1, ..flow.value.clone() };
        let mut change = self.vault().change(&attempt.tenant, Some(attempt.subject)).await?;
        change.update_flow(&flow, &minted, Parked::Keep);
        change.insert_attempt(&attempt, &state, &verifier, Some(&nonce));
        change.audit(&record);
        change.commit().await?;
        Ok(StartedAuthorization { flow: minted, authorization_url: url })
    }

    /// What the provider demanded when it last refused the connection that the flow renews: without it, the user would
    /// authorize and be refused again.
    async fn hints_for(&self, flow: &Flow) -> Result<Option<Hints>, BrokerError> {
        let Some(id) = flow.renews else { return Ok(None) };
        let renewed = self.vault().connection(&flow.tenant, id).await?;
        Ok(renewed.and_then(|stored| stored.value.credential.hints.clone()))
    }
}

/// An attempt to be minted.
pub(super) struct Minting<'a> {
    pub(super) flow: Stored<Flow>,
    pub(super) provider: &'a Provider,
    pub(super) redirect_uri: &'a Url,
    /// Keyed digest of the cookie that the answer must come with; `None`: binding `CALLER`.
    pub(super) browser: Option<[u8; 32]>,
    /// Goes into the audit trail with it.
    pub(super) record: AuditRecord,
}

/// Lets the calls of one subject pass one after the other: two that open a flow for the same at once must find one flow,
/// and together must not pass the quota. A subject shares its turn with others, so that nothing here grows.
pub(super) struct Turns([Mutex<()>; 64]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    pub(super) async fn wait(&self, subject: SubjectId) -> MutexGuard<'_, ()> {
        self.0[usize::from(subject.as_bytes()[0]) % self.0.len()].lock().await
    }
}

impl Target {
    fn plugin(&self) -> Option<&PluginId> {
        match self {
            Self::Plugin(id) => Some(id),
            Self::Provider(_) => None,
        }
    }
}

fn quota(now: Timestamp, until: Option<Timestamp>) -> BrokerError {
    let retry_after = until.map_or(Duration::from_secs(60), |until| until - now);
    BrokerError::FlowQuota { retry_after }
}

/// The provider and the scopes to ask for.
fn resolve<'a>(
    catalog: &'a Catalog,
    target: &Target,
    asked: &ScopeSet,
) -> Result<(&'a Provider, ScopeSet), BrokerError> {
    let provider = |id| catalog.providers.get(id).map(AsRef::as_ref).ok_or(BrokerError::ProviderUnknown);
    match target {
        Target::Plugin(id) => {
            let asked = (!asked.is_empty()).then_some(asked);
            let allowed = Broker::authorize_plugin(catalog, &Access { plugin: id, scopes: asked })?;
            Ok((provider(&allowed.plugin.provider)?, allowed.scopes.clone()))
        }
        Target::Provider(id) => Ok((provider(id)?, asked.clone())),
    }
}
