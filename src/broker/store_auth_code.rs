//! Finishes an authorization in binding `CALLER`: the application hands over the code that it received.

use url::Url;

use super::{
    Broker, BrokerError, Catalog, ShownConnection, Target,
    authorize::Access,
    exchange::{Answer, ended},
    flights::Joined,
    trail::{About, allowed},
};
use crate::{
    domain::{
        Attempt, AuditAction, AuthorizationCode, Call, CodeVerifier, FLOW_LIFETIME, Flow, FlowId, FlowSecret,
        FlowState, PluginId, Provider, Reason, Role, ScopeSet,
    },
    oauth::{IssuerMismatch, check_issuer},
    vault::{FlowIntent, Stored},
};

/// An authorization response.
pub enum StoreAuthCode {
    /// Of a flow that StartAuthorization began.
    Flow { state: FlowSecret, code: AuthorizationCode, iss: Option<String> },
    /// Of a flow that the caller ran itself.
    Own(OwnFlow),
}

/// An authorization that the caller ran itself.
pub struct OwnFlow {
    pub target: Target,
    pub code: AuthorizationCode,
    pub redirect_uri: Url,
    pub verifier: CodeVerifier,
    /// What was asked for, as far as the caller says: granted where the provider does not say otherwise. Empty: the
    /// plugin's.
    pub scopes: ScopeSet,
}

impl Broker {
    /// Stores the connection behind an authorization code. Safe to repeat: the same code of the same caller gets the
    /// same outcome for the flow's life.
    pub async fn store_auth_code(&self, call: &Call, request: StoreAuthCode) -> Result<ShownConnection, BrokerError> {
        let outcome = self.finish(call, request).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, AuditAction::CodeStored, About::default(), error).await;
        }
        outcome
    }

    async fn finish(&self, call: &Call, request: StoreAuthCode) -> Result<ShownConnection, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let (state, code, iss) = match request {
            StoreAuthCode::Flow { state, code, iss } => (state, code, iss),
            StoreAuthCode::Own(own) => (self.adopt(call, &own).await?, own.code, None),
        };
        let answer = Answer { digest: self.vault().keys().code_digest(&code), state, code };
        loop {
            let (flow, attempt) = self.attempt_of(call, &answer.state).await?;
            match attempt.value.consumed_by {
                Some(by) if by == answer.digest => return self.outcome(call, flow.value.id).await,
                Some(_) => return Err(BrokerError::FlowEnded(Reason::FlowConsumed)),
                None if self.now() >= attempt.value.expires_at => {
                    return Err(BrokerError::FlowEnded(Reason::FlowExpired));
                }
                None if !matches!(flow.value.state, FlowState::Open) => {
                    self.await_other(call, &answer.state, &flow.value).await?;
                    continue;
                }
                None => {}
            }
            check_issuer(&attempt.value, iss.as_deref()).map_err(|IssuerMismatch| BrokerError::IssuerMismatch)?;
            let about = About { plugin: flow.value.plugin.as_ref(), connection: None };
            let record = allowed(call, AuditAction::CodeStored, about, self.now());
            self.exchange(flow, attempt, answer.clone(), record).await?;
        }
    }

    /// The attempt and flow behind a state, if they are this caller's.
    async fn attempt_of(
        &self,
        call: &Call,
        state: &FlowSecret,
    ) -> Result<(Stored<Flow>, Stored<Attempt>), BrokerError> {
        let attempt = self.vault().attempt(state).await?.ok_or(BrokerError::FlowNotFound)?;
        let theirs = attempt.value.tenant == call.caller.tenant && attempt.value.subject == call.caller.subject;
        // What was minted for a browser is answered by that browser alone.
        if !theirs || attempt.value.browser.is_some() {
            return Err(BrokerError::FlowNotFound);
        }
        let flow =
            self.vault().flow(&attempt.value.tenant, attempt.value.flow).await?.ok_or(BrokerError::FlowNotFound)?;
        Ok((flow, attempt))
    }

    /// An attempt is unused and its flow is not open: another attempt of the flow was used, or this one was between the
    /// two reads. Returns when it is worth another look; the error says how the flow ended.
    async fn await_other(&self, call: &Call, state: &FlowSecret, seen: &Flow) -> Result<(), BrokerError> {
        match self.exchanges().join(&seen.id).await {
            Joined::Finished(_) => return Ok(()),
            Joined::Lost => return Err(BrokerError::ShuttingDown),
            Joined::None => {}
        }
        let (flow, attempt) = self.attempt_of(call, state).await?;
        if attempt.value.consumed_by.is_some() || flow.value.state == FlowState::Open {
            return Ok(());
        }
        Err(BrokerError::FlowEnded(ended(&flow.value)))
    }

    async fn outcome(&self, call: &Call, id: FlowId) -> Result<ShownConnection, BrokerError> {
        self.exchanges().join(&id).await;
        // A process that died after the exchange left its tokens here. Nobody need wait for the job that judges them.
        self.settle_flow(&call.caller.tenant, id).await?;
        let flow = self.vault().flow(&call.caller.tenant, id).await?.ok_or(BrokerError::FlowNotFound)?.into_value();
        match &flow.state {
            FlowState::Completed { connection } => {
                let stored = self.vault().connection(&call.caller.tenant, *connection).await?;
                self.show(&stored.ok_or(BrokerError::ConnectionNotFound)?).await
            }
            FlowState::Failed { reason: Reason::AccountMismatch } => Err(BrokerError::AccountMismatch),
            _ => Err(BrokerError::FlowEnded(ended(&flow))),
        }
    }

    /// Makes a flow for an authorization that the caller ran itself, under a state made of its code, so that it is
    /// repeat-safe in the same way.
    async fn adopt(&self, call: &Call, own: &OwnFlow) -> Result<FlowSecret, BrokerError> {
        let state = adopted_state(&self.vault().keys().code_digest(&own.code));
        if self.vault().attempt(&state).await?.is_some() {
            return Ok(state);
        }
        let catalog = self.catalog();
        let (provider, plugin, scopes) = asked_by_caller(&catalog, own)?;
        // A code that was made for our own pages is bound to the browser that they have asked: nobody else redeems it.
        let of_pages = self.public_url().is_some_and(|url| url.is_origin_of(&own.redirect_uri));
        let listed = &catalog.tenants[&call.caller.tenant].redirect_uris;
        if of_pages || !listed.iter().any(|rule| rule.allows(&own.redirect_uri)) {
            return Err(BrokerError::Invalid { field: "redirect_uri", problem: "is not on the tenant's list" });
        }
        let server = self.servers().endpoints(provider).await?;
        let _turn = self.opening().wait(call.caller.subject).await;
        self.require_room_for_flow(call).await?;
        let intent = FlowIntent {
            subject: call.caller.subject,
            agent: call.caller.agent.as_ref(),
            plugin,
            provider: &provider.id,
            scopes,
            account: None,
            return_url: None,
            renews: None,
        };
        let now = self.now();
        let flow = self.new_flow(call, &intent)?;
        let attempt = Attempt {
            flow: flow.id,
            tenant: flow.tenant.clone(),
            subject: flow.subject,
            provider: provider.id.clone(),
            redirect_uri: own.redirect_uri.clone(),
            issuer: None,
            iss_parameter_supported: false,
            token_endpoint: server.token,
            expires_at: now.plus(FLOW_LIFETIME),
            consumed_by: None,
            browser: None,
        };
        let mut change = self.vault().change(&flow.tenant, Some(flow.subject)).await?;
        change.insert_flow(&flow);
        change.insert_attempt(&attempt, &state, &own.verifier, None);
        change.audit(&allowed(call, AuditAction::AuthorizationStarted, About { plugin, connection: None }, now));
        match change.commit().await.map_err(BrokerError::from) {
            // The same code came twice at once, and the other call was first.
            Err(BrokerError::Conflict) if self.vault().attempt(&state).await?.is_some() => Ok(state),
            other => other.map(|_| state),
        }
    }
}

fn asked_by_caller<'a>(
    catalog: &'a Catalog,
    own: &'a OwnFlow,
) -> Result<(&'a Provider, Option<&'a PluginId>, &'a ScopeSet), BrokerError> {
    let provider = |id| catalog.providers.get(id).map(AsRef::as_ref).ok_or(BrokerError::ProviderUnknown);
    match &own.target {
        Target::Plugin(id) => {
            let allowed = Broker::authorize_plugin(catalog, &Access { plugin: id, scopes: None })?;
            let scopes = if own.scopes.is_empty() { allowed.scopes } else { &own.scopes };
            Ok((provider(&allowed.plugin.provider)?, Some(id), scopes))
        }
        Target::Provider(id) => Ok((provider(id)?, None, &own.scopes)),
    }
}

/// Under this state an own flow's attempt is found again: nobody ever receives it from outside, and no minted state
/// has its form.
fn adopted_state(code_digest: &[u8; 32]) -> FlowSecret {
    FlowSecret::new(code_digest.iter().fold("own:".to_owned(), |state, byte| format!("{state}{byte:02x}")))
}
