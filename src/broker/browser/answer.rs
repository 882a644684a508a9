//! The provider's answer, brought back by a browser.

use super::{Broker, BrokerError, Cookies, VisitRefused, sign_in::reason_of};
use crate::{
    broker::{
        exchange::{Answer, Raced, ended},
        trail::visited,
    },
    domain::{
        Attempt, AuditAction, AuditResult, AuthorizationCode, Flow, FlowId, FlowSecret, FlowState, PostedResponse,
        Reason, Visit,
    },
    oauth::{
        AuthorizationAnswer, AuthorizationError, AuthorizationResponse, IssuerMismatch, MalformedResponse, check_issuer,
    },
    sealing::BrowserPurpose,
    vault::{Parked, Stored},
};

/// In [`Attempt::consumed_by`]: there was no code.
const AN_ERROR: [u8; 32] = [0; 32];

impl Broker {
    /// Takes an authorization response. Only from the browser that the attempt was minted in, in which the flow's owner
    /// is signed in, and once: the attempt is consumed before its code is exchanged. Refusals are audited when the
    /// response names an attempt; its `state` is known to nobody by guessing.
    pub async fn answer_authorization(
        &self,
        visit: &Visit,
        unverified: &[u8],
        cookies: &Cookies,
    ) -> Result<FlowId, VisitRefused> {
        let response = match AuthorizationResponse::parse(unverified) {
            Ok(response) => response,
            Err(malformed) => return Err(self.refuse_malformed(visit, malformed).await.into()),
        };
        loop {
            let (flow, attempt) = self.answered(&response.state).await?;
            let id = flow.value.id;
            match self.take(visit, flow.clone(), attempt, &response, cookies).await {
                Ok(Raced::First) => return Ok(id),
                // Another answer was faster, or the flow's record moved: the next look tells which.
                Ok(Raced::Later) | Err(BrokerError::Conflict) => {}
                Err(error) => {
                    let record = visited(visit, &flow.value, AuditAction::AuthorizationAnswered, self.now());
                    self.record_refused(record, &error).await;
                    return Err(error.at(id));
                }
            }
        }
    }

    /// Keeps a response that a provider made the browser post (OAuth 2.0 Form Post Response Mode). Such a request is
    /// another site's and carries no cookie, so nothing is believed and nothing happens: the browser is sent on to come
    /// back with its cookies. Bounded: one response an attempt, and none without one.
    pub async fn park_answer(&self, visit: &Visit, unverified: &[u8]) -> Result<FlowSecret, BrokerError> {
        let response = match AuthorizationResponse::parse(unverified) {
            Ok(response) => response,
            Err(malformed) => return Err(self.refuse_malformed(visit, malformed).await),
        };
        let (flow, attempt) = self.answered(&response.state).await?;
        let is_used = attempt.value.consumed_by.is_some() || !flow.value.is_open(self.now());
        if is_used || self.vault().posted_response(&attempt).await?.is_some() {
            return Ok(response.state);
        }
        let text = String::from_utf8_lossy(unverified).into_owned();
        let mut change = self.vault().change(&attempt.value.tenant, Some(attempt.value.subject)).await?;
        change.park_response(&attempt, &PostedResponse::new(text));
        match change.commit().await.map_err(BrokerError::from) {
            // Somebody else has parked one, or used the attempt: continuing tells.
            Ok(_) | Err(BrokerError::Conflict) => Ok(response.state),
            Err(error) => Err(error),
        }
    }

    /// Goes on with what [`Broker::park_answer`] kept.
    pub async fn continue_authorization(
        &self,
        visit: &Visit,
        unverified_state: FlowSecret,
        cookies: &Cookies,
    ) -> Result<FlowId, VisitRefused> {
        let (_, attempt) = self.answered(&unverified_state).await?;
        let posted = self.vault().posted_response(&attempt).await.map_err(BrokerError::from)?;
        let posted = posted.ok_or(BrokerError::FlowNotFound)?;
        self.answer_authorization(visit, posted.expose().as_bytes(), cookies).await
    }

    /// The attempt that a state names, with its flow. One of binding `CALLER` does not exist here.
    async fn answered(&self, state: &FlowSecret) -> Result<(Stored<Flow>, Stored<Attempt>), BrokerError> {
        let attempt = self.vault().attempt(state).await?.filter(|attempt| attempt.value.browser.is_some());
        let attempt = attempt.ok_or(BrokerError::FlowNotFound)?;
        let flow = self.visited_flow(attempt.value.flow).await?;
        if flow.value.state == FlowState::Open {
            return Ok((flow, attempt));
        }
        // Whoever used the attempt meanwhile ended its flow: looked at again, so that this answer is called the second,
        // not one to a flow that is over for some other reason.
        let attempt = self.vault().attempt(state).await?.ok_or(BrokerError::FlowNotFound)?;
        Ok((flow, attempt))
    }

    async fn take(
        &self,
        visit: &Visit,
        flow: Stored<Flow>,
        attempt: Stored<Attempt>,
        response: &AuthorizationResponse,
        cookies: &Cookies,
    ) -> Result<Raced, BrokerError> {
        if !self.is_attempts(&attempt.value, cookies) || !self.is_owners(&flow.value, cookies).await? {
            return Err(BrokerError::OtherBrowser);
        }
        if attempt.value.consumed_by.is_some() {
            return Err(BrokerError::FlowEnded(Reason::FlowConsumed));
        }
        if self.now() >= attempt.value.expires_at {
            return Err(BrokerError::FlowEnded(Reason::FlowExpired));
        }
        if flow.value.state != FlowState::Open {
            return Err(BrokerError::FlowEnded(ended(&flow.value)));
        }
        // Before anything else of the response is acted upon, an error too (RFC 9207 §2.4).
        check_issuer(&attempt.value, response.iss.as_deref()).map_err(|IssuerMismatch| BrokerError::IssuerMismatch)?;
        match &response.answer {
            AuthorizationAnswer::Code(code) => self.take_code(visit, flow, attempt, response, code).await,
            AuthorizationAnswer::Error(error) => {
                self.take_error(visit, &flow, &attempt, *error).await?;
                Ok(Raced::First)
            }
        }
    }

    fn is_attempts(&self, attempt: &Attempt, cookies: &Cookies) -> bool {
        let digest = |secret| self.vault().keys().browser(BrowserPurpose::Attempt, attempt.flow, secret);
        attempt.browser.is_some() && cookies.attempts.get(&attempt.flow).map(digest) == attempt.browser
    }

    async fn take_code(
        &self,
        visit: &Visit,
        flow: Stored<Flow>,
        attempt: Stored<Attempt>,
        response: &AuthorizationResponse,
        code: &AuthorizationCode,
    ) -> Result<Raced, BrokerError> {
        let record = visited(visit, &flow.value, AuditAction::AuthorizationAnswered, self.now());
        let digest = self.vault().keys().code_digest(code);
        let answer = Answer { digest, state: response.state.clone(), code: code.clone() };
        self.exchange(flow, attempt, answer, record).await
    }

    /// The provider said no, or could not: the attempt is spent, and the flow says why.
    async fn take_error(
        &self,
        visit: &Visit,
        flow: &Stored<Flow>,
        attempt: &Stored<Attempt>,
        error: AuthorizationError,
    ) -> Result<(), BrokerError> {
        let reason = reason_of(error);
        let state = match error {
            AuthorizationError::Denied => FlowState::Denied,
            _ => FlowState::Failed { reason },
        };
        let mut record = visited(visit, &flow.value, AuditAction::AuthorizationAnswered, self.now());
        (record.result, record.reason) = (AuditResult::Failed, Some(reason));
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.update_attempt(attempt, &Attempt { consumed_by: Some(AN_ERROR), ..attempt.value.clone() });
        change.update_flow(flow, &Flow { state, ..flow.value.clone() }, Parked::Keep);
        change.audit(&record);
        change.commit().await?;
        Ok(())
    }

    async fn refuse_malformed(&self, visit: &Visit, malformed: MalformedResponse) -> BrokerError {
        let error = BrokerError::Invalid { field: "response", problem: "is malformed" };
        if let Some(state) = malformed.unverified_state
            && let Ok((flow, _)) = self.answered(&state).await
        {
            let record = visited(visit, &flow.value, AuditAction::AuthorizationAnswered, self.now());
            self.record_refused(record, &error).await;
        }
        error
    }
}
