//! From an authorization code to tokens: consume the attempt, exchange the code, park what comes.
//!
//! The order is the point. The attempt is consumed durably *before* the exchange, so of two racing answers one
//! exchanges. The tokens are persisted *before* anything is judged, so no check can throw a fresh token away.

use super::{
    Broker, BrokerError,
    flights::Joined,
    jobs::FIRST_RETRY,
    refresh::{Beside, Held},
};
use crate::{
    domain::{Attempt, AuditRecord, AuthorizationCode, Flow, FlowSecret, FlowState, JobKind, Reason, ReplyClass},
    oauth::{Evidence, TokenFailure},
    vault::{FlowTokens, Parked, Stored},
};

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

/// A code and the `state` that came with it.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) digest: [u8; 32],
    pub(super) state: FlowSecret,
    pub(super) code: AuthorizationCode,
}

/// Of several that bring answers for one flow at once, who was this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raced {
    First,
    Later,
}

impl Broker {
    /// Exchanges the code of an attempt that nobody has used, or waits for whoever does. Consuming and exchanging are
    /// one detached task: a caller that goes away in between must not lose the code, nor the tokens that are on their
    /// way. `record` goes into the audit trail with the consumption.
    pub(super) async fn exchange(
        &self,
        flow: Stored<Flow>,
        attempt: Stored<Attempt>,
        answer: Answer,
        record: AuditRecord,
    ) -> Result<Raced, BrokerError> {
        let mut raced = Raced::Later;
        let id = flow.value.id;
        let work = || {
            raced = Raced::First;
            self.clone().consume_and_exchange(flow, attempt, answer, record)
        };
        match self.exchanges().join_or_begin(id, work).await {
            Joined::Finished(Exchanged::Settled) => Ok(raced),
            Joined::Finished(Exchanged::Contested) => Ok(Raced::Later),
            Joined::Finished(Exchanged::Unsent) => Err(BrokerError::ProviderUnreachable { retry_after: FIRST_RETRY }),
            Joined::Finished(Exchanged::Unavailable) => Err(BrokerError::StoreUnavailable),
            Joined::Lost | Joined::None => Err(BrokerError::ShuttingDown),
        }
    }

    async fn consume_and_exchange(
        self,
        flow: Stored<Flow>,
        attempt: Stored<Attempt>,
        answer: Answer,
        record: AuditRecord,
    ) -> Exchanged {
        match self.consume(&flow, &attempt, answer.digest, &record).await {
            Ok(()) => self.exchange_consumed(&flow.value, &answer).await,
            Err(BrokerError::Conflict) => Exchanged::Contested,
            Err(error) => {
                tracing::error!(flow.id = %flow.value.id, %error, "an attempt could not be consumed");
                Exchanged::Unavailable
            }
        }
    }

    /// Marks the attempt consumed and the flow exchanging; of two racing answers one gets through. The job brings the flow
    /// to its end should this process not live to do it.
    async fn consume(
        &self,
        flow: &Stored<Flow>,
        attempt: &Stored<Attempt>,
        digest: [u8; 32],
        record: &AuditRecord,
    ) -> Result<(), BrokerError> {
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.update_attempt(attempt, &Attempt { consumed_by: Some(digest), ..attempt.value.clone() });
        change.update_flow(flow, &Flow { state: FlowState::Exchanging, ..flow.value.clone() }, Parked::Keep);
        let kind = JobKind::SettleFlow { flow: flow.value.id };
        let job = self.new_job(&flow.value.tenant, flow.value.subject, kind)?;
        change.insert_job(&job, None, self.now().plus(FIRST_RETRY));
        change.audit(record);
        change.commit().await?;
        Ok(())
    }

    async fn exchange_consumed(&self, flow: &Flow, answer: &Answer) -> Exchanged {
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

    /// Persists the tokens in the flow's own record, whatever happens next.
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
            let mut change = self.vault().change(&attempt.tenant, Some(attempt.subject)).await?;
            change.update_flow(&flow, &exchanged, Parked::Replace(parked));
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
}

/// Why a flow that is not open brings no connection.
pub(super) fn ended(flow: &Flow) -> Reason {
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
