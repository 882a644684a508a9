//! Finishes an authorization: consume the attempt, exchange the code, park the tokens, judge them.
//!
//! The order is the point. The attempt is consumed durably *before* the exchange, so of two racing answers one
//! exchanges. The tokens are persisted *before* anything is judged, so no check can throw a fresh token away.

use url::Url;

use super::{
    Broker, BrokerError, Catalog, Target,
    authorize::Access,
    flights::Joined,
    jobs::FIRST_RETRY,
    refresh::{Beside, Held},
    trail::{About, allowed},
};
use crate::{
    domain::{
        Attempt, AuditAction, AuthorizationCode, Call, CodeVerifier, Connection, FLOW_LIFETIME, Flow, FlowId,
        FlowSecret, FlowState, JobKind, PluginId, Provider, Reason, ReplyClass, Role, ScopeSet,
    },
    oauth::{Evidence, IssuerMismatch, TokenFailure, check_issuer},
    vault::{FlowIntent, FlowTokens, Parked, Stored},
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

/// How an exchange ended, for everybody who waits for it.
#[derive(Clone, Debug)]
pub(super) enum Exchanged {
    /// The flow says how it ended.
    Settled,
    /// Another answer consumed the attempt first.
    Contested,
    /// The code is unspent: the provider was never reached, and the attempt can be used again.
    Unsent,
    Unavailable,
}

#[derive(Clone)]
struct Answer {
    digest: [u8; 32],
    state: FlowSecret,
    code: AuthorizationCode,
    iss: Option<String>,
}

impl Broker {
    /// Stores the connection behind an authorization code. Safe to repeat: the same code of the same caller gets the
    /// same outcome for the flow's life.
    pub async fn store_auth_code(&self, call: &Call, request: StoreAuthCode) -> Result<Connection, BrokerError> {
        let outcome = self.finish(call, request).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, AuditAction::CodeStored, About::default(), error).await;
        }
        outcome
    }

    async fn finish(&self, call: &Call, request: StoreAuthCode) -> Result<Connection, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let (state, code, iss) = match request {
            StoreAuthCode::Flow { state, code, iss } => (state, code, iss),
            StoreAuthCode::Own(own) => (self.adopt(call, &own).await?, own.code, None),
        };
        let answer = Answer { digest: self.vault().keys().code_digest(&code), state, code, iss };
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
            check_issuer(&attempt.value, answer.iss.as_deref())
                .map_err(|IssuerMismatch| BrokerError::IssuerMismatch)?;
            // Consuming and exchanging are one detached task: a caller that goes away in between must not lose the
            // code, nor the tokens that are on their way.
            let work =
                || self.clone().consume_and_exchange(call.clone(), flow.clone(), attempt.clone(), answer.clone());
            match self.exchanges().join_or_begin(flow.value.id, work).await {
                Joined::Finished(Exchanged::Settled | Exchanged::Contested) => {}
                Joined::Finished(Exchanged::Unsent) => {
                    return Err(BrokerError::ProviderUnreachable { retry_after: FIRST_RETRY });
                }
                Joined::Finished(Exchanged::Unavailable) => return Err(BrokerError::StoreUnavailable),
                Joined::Lost | Joined::None => return Err(BrokerError::ShuttingDown),
            }
        }
    }

    /// The attempt and flow behind a state, if they are this caller's.
    async fn attempt_of(
        &self,
        call: &Call,
        state: &FlowSecret,
    ) -> Result<(Stored<Flow>, Stored<Attempt>), BrokerError> {
        let attempt = self.vault().attempt(state).await?.ok_or(BrokerError::FlowNotFound)?;
        if attempt.value.tenant != call.caller.tenant || attempt.value.subject != call.caller.subject {
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

    async fn consume_and_exchange(
        self,
        call: Call,
        flow: Stored<Flow>,
        attempt: Stored<Attempt>,
        answer: Answer,
    ) -> Exchanged {
        match self.consume(&call, &flow, &attempt, answer.digest).await {
            Ok(()) => self.exchange(&flow.value, &answer).await,
            Err(BrokerError::Conflict) => Exchanged::Contested,
            Err(error) => {
                tracing::error!(flow.id = %flow.value.id, %error, "an attempt could not be consumed");
                Exchanged::Unavailable
            }
        }
    }

    /// Marks the attempt consumed and the flow exchanging; of two racing answers one gets through.
    async fn consume(
        &self,
        call: &Call,
        flow: &Stored<Flow>,
        attempt: &Stored<Attempt>,
        digest: [u8; 32],
    ) -> Result<(), BrokerError> {
        let mut change = self.vault().change(&call.caller.tenant, Some(call.caller.subject)).await?;
        change.update_attempt(attempt, &Attempt { consumed_by: Some(digest), ..attempt.value.clone() });
        change.update_flow(flow, &Flow { state: FlowState::Exchanging, ..flow.value.clone() }, Parked::Keep);
        let about = About { plugin: flow.value.plugin.as_ref(), connection: None };
        change.audit(&allowed(call, AuditAction::CodeStored, about, self.now()));
        change.commit().await?;
        Ok(())
    }

    async fn exchange(&self, flow: &Flow, answer: &Answer) -> Exchanged {
        match self.try_exchange(flow, answer).await {
            Ok(exchanged) => exchanged,
            Err(error) => {
                tracing::error!(flow.id = %flow.id, %error, "an exchange could not be recorded");
                Exchanged::Unavailable
            }
        }
    }

    /// Everything that keeping the tokens needs is read before the code is spent: between the answer and the tokens'
    /// first safe place nothing may fail.
    async fn try_exchange(&self, flow: &Flow, answer: &Answer) -> Result<Exchanged, BrokerError> {
        let stored = self.vault().attempt(&answer.state).await?.ok_or(BrokerError::FlowNotFound)?;
        let verifier = self.vault().attempt_verifier(&stored).await?;
        let nonce = self.vault().attempt_nonce(&stored).await?;
        let attempt = &stored.value;
        let provider = self.provider(&attempt.provider)?;
        let (endpoint, redirect_uri) = (&attempt.token_endpoint, &attempt.redirect_uri);
        match self.servers().exchange(&provider, endpoint, &answer.code, &verifier, redirect_uri).await {
            Ok(tokens) => {
                self.park(&stored, &Self::waiting(tokens, &flow.scopes, nonce)).await?;
                self.settle_flow(&attempt.tenant, attempt.flow).await?;
                Ok(Exchanged::Settled)
            }
            Err(failure) if failure.evidence == Evidence::NotSent => {
                self.reopen(&stored).await?;
                Ok(Exchanged::Unsent)
            }
            Err(failure) => {
                tracing::warn!(flow.id = %attempt.flow, provider.id = %attempt.provider, %failure, "the provider did not exchange a code");
                self.end_flow(&attempt.tenant, attempt.flow, reason_of(&failure)).await?;
                Ok(Exchanged::Settled)
            }
        }
    }

    /// Persists the tokens in the flow's own record with the job that will judge them, whatever happens next.
    async fn park(&self, attempt: &Stored<Attempt>, parked: &FlowTokens) -> Result<(), BrokerError> {
        let held = Held::of_flow(&attempt.value, parked);
        self.until_stored(&held, Beside::Attempt(attempt)).await?;
        Ok(())
    }

    /// Does nothing when the flow has them already.
    pub(super) async fn try_park(&self, attempt: &Attempt, parked: &FlowTokens) -> Result<(), BrokerError> {
        loop {
            let Some(flow) = self.vault().flow(&attempt.tenant, attempt.flow).await? else { return Ok(()) };
            if flow.value.state != FlowState::Exchanging {
                return Ok(());
            }
            let exchanged = Flow { state: FlowState::Exchanged, ..flow.value.clone() };
            let job = self.new_job(&attempt.tenant, attempt.subject, JobKind::SettleFlow { flow: attempt.flow })?;
            let mut change = self.vault().change(&attempt.tenant, Some(attempt.subject)).await?;
            change.update_flow(&flow, &exchanged, Parked::Replace(parked));
            change.insert_job(&job, None, self.now().plus(FIRST_RETRY));
            match change.commit().await.map_err(BrokerError::from) {
                // Giving up here would throw the tokens away.
                Err(BrokerError::Conflict) => continue,
                other => return other.map(|_| ()),
            }
        }
    }

    /// Undoes the consumption: nothing was sent, so the code is still good.
    async fn reopen(&self, attempt: &Stored<Attempt>) -> Result<(), BrokerError> {
        let Some(flow) = self.vault().flow(&attempt.value.tenant, attempt.value.flow).await? else { return Ok(()) };
        let mut change = self.vault().change(&attempt.value.tenant, Some(attempt.value.subject)).await?;
        change.update_attempt(attempt, &Attempt { consumed_by: None, ..attempt.value.clone() });
        change.update_flow(&flow, &Flow { state: FlowState::Open, ..flow.value.clone() }, Parked::Keep);
        change.commit().await?;
        Ok(())
    }

    async fn outcome(&self, call: &Call, id: FlowId) -> Result<Connection, BrokerError> {
        self.exchanges().join(&id).await;
        // A process that died after the exchange left its tokens here. Nobody need wait for the job that judges them.
        self.settle_flow(&call.caller.tenant, id).await?;
        let flow = self.vault().flow(&call.caller.tenant, id).await?.ok_or(BrokerError::FlowNotFound)?.into_value();
        match &flow.state {
            FlowState::Completed { connection } => {
                let stored = self.vault().connection(&call.caller.tenant, *connection).await?;
                Ok(stored.ok_or(BrokerError::ConnectionNotFound)?.into_value())
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
        let server = self.servers().endpoints(provider).await?;
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

fn ended(flow: &Flow) -> Reason {
    match &flow.state {
        FlowState::Failed { reason } => *reason,
        FlowState::Denied => Reason::FlowDenied,
        FlowState::Open | FlowState::Exchanging | FlowState::Exchanged => Reason::ExchangeInterrupted,
        FlowState::Completed { .. } => Reason::FlowConsumed,
    }
}

fn reason_of(failure: &TokenFailure) -> Reason {
    match failure.class {
        ReplyClass::Ambiguous | ReplyClass::Transient | ReplyClass::RateLimited => Reason::ExchangeInterrupted,
        ReplyClass::Configuration => Reason::ProviderSuspended,
        ReplyClass::Unknown => Reason::ProviderReplyInvalid,
        ReplyClass::Terminal | ReplyClass::Reauthorize => Reason::ExchangeRefused,
    }
}
