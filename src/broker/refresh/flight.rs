//! One flight: re-read the record, commit the intent, POST once, settle the answer.

use std::{sync::Arc, time::Duration};

use super::{Flown, Held, Turn, Urgency, schedule::backoff};
use crate::{
    broker::{Broker, BrokerError, flights::Joined, suspension::Refused, trail::by_broker},
    domain::{
        AfterLostAnswer, AuditAction, AuditResult, Connection, ConnectionId, EntryId, Intent, Provider, Reason,
        RefreshToken, ReplyClass, Rotation, Timestamp,
    },
    metrics::RefreshOutcome::{self, Failed, Refreshed},
    oauth::TokenFailure,
    vault::{FlowTokens, Stored, Tokens, VaultError},
};

impl Broker {
    /// Joins the connection's flight, beginning one that is to move it past `generation`. Somebody waits for it.
    pub(in crate::broker) async fn refresh(&self, id: ConnectionId, generation: u64) -> Flown {
        self.begin_or_join(id, generation, None).await
    }

    /// As [`Broker::refresh`], and nobody waits: the provider's turn was waited for before there is a flight, so that a
    /// caller who comes meanwhile waits behind no queue.
    pub(in crate::broker) async fn refresh_in_turn(&self, id: ConnectionId, generation: u64, turn: Turn) -> Flown {
        self.begin_or_join(id, generation, Some(turn)).await
    }

    async fn begin_or_join(&self, id: ConnectionId, generation: u64, turn: Option<Turn>) -> Flown {
        let broker = self.clone();
        let work = move || async move { broker.fly(id, generation, turn).await };
        match self.flights().join_or_begin(id, work).await {
            Joined::Finished(flown) => flown,
            Joined::Lost | Joined::None => Flown::StoreUnavailable,
        }
    }

    async fn fly(self, id: ConnectionId, generation: u64, turn: Option<Turn>) -> Flown {
        match self.fly_to_verdict(id, generation, turn).await {
            Ok(flown) => flown,
            Err(BrokerError::StoreUnavailable) => Flown::StoreUnavailable,
            Err(error) => {
                tracing::error!(connection.id = %id, %error, "a refresh could not be completed");
                Flown::Failing { reason: error.reason(), retry_after: Duration::from_secs(1) }
            }
        }
    }

    async fn fly_to_verdict(
        &self,
        id: ConnectionId,
        generation: u64,
        mut turn: Option<Turn>,
    ) -> Result<Flown, BrokerError> {
        loop {
            let Some(stored) = self.vault().any_connection(id).await? else { return Ok(Flown::Stopped) };
            let next = match self.before_posting(&stored, generation, &mut turn).await {
                Ok(next) => next,
                Err(BrokerError::Conflict) => continue,
                Err(error) => return Err(error),
            };
            let posting = match next {
                Next::Post(posting) => *posting,
                Next::Again => continue,
                Next::Land(flown) => return Ok(flown),
            };
            if let Some(flown) = self.post_and_settle(&stored, posting).await? {
                return Ok(flown);
            }
        }
    }

    /// Decides whether to POST and makes the intent durable. The record decides, not what the caller had seen.
    async fn before_posting(
        &self,
        stored: &Stored<Connection>,
        generation: u64,
        turn: &mut Option<Turn>,
    ) -> Result<Next, BrokerError> {
        let (credential, now) = (&stored.value.credential, self.now());
        if credential.state.is_stopped() {
            return Ok(Next::Land(Flown::Stopped));
        }
        if credential.generation > generation {
            return Ok(Next::Land(Flown::Generation(credential.generation)));
        }
        if !credential.state.refreshes() || !credential.refreshable {
            return Ok(Next::Land(Flown::ReauthorizationRequired));
        }
        let provider = self.provider(&stored.value.provider)?;
        if self.is_suspended(&provider.id, now) {
            return Ok(Next::Land(Flown::ProviderSuspended));
        }
        if let Some(open) = &credential.refresh.intent {
            return self.recover_intent(stored, &provider, open, now).await;
        }
        if let Some(retry_at) = credential.refresh.retry_at.filter(|at| now < *at) {
            let reason = credential.reason.unwrap_or(Reason::ProviderUnreachable);
            return Ok(Next::Land(Flown::Failing { reason, retry_after: retry_at - now }));
        }
        if !credential.may_post(provider.definition.rotation, now) {
            return self.settle_dead(stored, Reason::RotationLost, None).await.map(Next::Land);
        }
        let Some(refresh_token) = self.vault().refresh_token(stored).await? else {
            return Ok(Next::Land(Flown::ReauthorizationRequired));
        };
        self.servers().find(&provider).await;
        let turn = match turn.take().filter(|turn| turn.is_for(&provider, credential)) {
            Some(turn) => turn,
            None => match self.take_turn(&provider, credential, Urgency::Caller).await? {
                Ok(turn) => turn,
                // Nothing is written: that the provider cannot be asked now says nothing about this connection.
                Err(not_now) => return Ok(Next::Land(not_now.into())),
            },
        };
        let now = self.now();
        if !self.may_attempt(&provider.id, now) {
            return Ok(Next::Land(Flown::ProviderSuspended));
        }
        // A grace may have ended while the turn was waited for.
        if !credential.may_post(provider.definition.rotation, now) {
            return self.settle_dead(stored, Reason::RotationLost, None).await.map(Next::Land);
        }
        let intent = self.commit_intent(stored, &refresh_token, now).await?;
        Ok(Next::Post(Box::new(Posting { provider, intent, refresh_token, turn })))
    }

    /// An intent without an answer: this process or the one before died, or lost the answer, after it may have POSTed.
    async fn recover_intent(
        &self,
        stored: &Stored<Connection>,
        provider: &Provider,
        open: &Intent,
        now: Timestamp,
    ) -> Result<Next, BrokerError> {
        if self.unspent().has(open.owner) {
            self.settle_deferred(stored, false).await?;
            self.unspent().forget(open.owner);
            return Ok(Next::Again);
        }
        tracing::warn!(connection.id = %stored.value.id, attempt = open.attempt, "a refresh was left without an answer");
        let timeout = self.settings().provider_timeout;
        let after =
            stored.value.credential.after_lost_answer(provider.definition.rotation, open.begun_at, now, timeout);
        let flown = self.settle_lost(stored, after, now).await?;
        self.metrics().count_refresh(&provider.id, RefreshOutcome::Interrupted);
        Ok(flown.map_or(Next::Again, Next::Land))
    }

    async fn commit_intent(
        &self,
        stored: &Stored<Connection>,
        refresh_token: &RefreshToken,
        now: Timestamp,
    ) -> Result<Intent, BrokerError> {
        let credential = &stored.value.credential;
        let intent = Intent {
            owner: EntryId::from_bytes(self.fresh()?),
            attempt: credential.refresh.attempts + 1,
            generation: credential.generation,
            begun_at: now,
            until: now.plus(self.settings().provider_timeout),
            fingerprint: self.vault().keys().refresh_token_fingerprint(refresh_token),
        };
        let transition = credential.begin_refresh(intent.clone())?;
        let next = Connection { credential: transition.credential, ..stored.value.clone() };
        let mut change = self.vault().change(&next.tenant, Some(next.subject)).await?;
        change.update_connection(stored, &next, Tokens::Keep, self.next_action(&next)?);
        change.audit(&by_broker(&next, AuditAction::RefreshBegun, AuditResult::Allowed, now));
        // It may be durable although the store says that it does not know; then nothing is POSTed.
        self.unspent().note(intent.owner);
        let committed = change.commit().await;
        if !matches!(committed, Err(VaultError::OutcomeUnknown)) {
            self.unspent().forget(intent.owner);
        }
        committed?;
        Ok(intent)
    }

    /// `None`: try again at once. What is spent is the token that the intent names, whatever stands in the record by
    /// now: a token that the user's reconnecting put there is not this flight's to spend.
    async fn post_and_settle(
        &self,
        stored: &Stored<Connection>,
        posting: Posting,
    ) -> Result<Option<Flown>, BrokerError> {
        let Posting { provider, intent, refresh_token, turn } = posting;
        let credential = &stored.value.credential;
        let (granted, excused) = (&credential.scopes, credential.refresh.excused);
        let answer = self.servers().refresh(&provider, &refresh_token, granted, None, excused).await;
        turn.end(stored.value.id, answer.as_ref().err(), self.now());
        let outcome = answer.as_ref().map_or_else(|failure| Failed(failure.class), |_| Refreshed);
        self.metrics().count_refresh(&provider.id, outcome);
        match answer {
            Ok(tokens) => {
                let FlowTokens { mut tokens, mut granted, obtained_at, .. } =
                    Self::waiting(tokens, &stored.value.credential.scopes, None);
                // RFC 6749 §6: without a new refresh token the old one stays, and so does its end.
                if tokens.refresh.is_none() {
                    granted.refresh_token_end = granted.refresh_token_end.or(credential.refresh_token_end);
                }
                tokens.refresh.get_or_insert(refresh_token);
                granted.refreshable = true;
                let held = Held::of_connection(&stored.value, intent.generation, tokens, granted, obtained_at);
                let flown = self.settle_tokens(stored, held).await?;
                self.registration_accepted(&provider.id, stored.value.id).await;
                Ok(Some(flown))
            }
            Err(failure) => self.settle_failure(stored.value.id, &provider, &intent, &failure).await,
        }
    }

    async fn settle_failure(
        &self,
        id: ConnectionId,
        provider: &Provider,
        intent: &Intent,
        failure: &TokenFailure,
    ) -> Result<Option<Flown>, BrokerError> {
        tracing::warn!(connection.id = %id, provider.id = %provider.id, %failure, "a refresh failed");
        loop {
            let Some(stored) = self.vault().any_connection(id).await? else { return Ok(Some(Flown::Stopped)) };
            let credential = &stored.value.credential;
            // Another write won: its state is the answer, not this failure.
            if credential.refresh.intent.as_ref().is_none_or(|open| open.owner != intent.owner) {
                return Ok(Some(match credential.state.is_stopped() {
                    true => Flown::Stopped,
                    false => Flown::Generation(credential.generation),
                }));
            }
            let settled = self.settle_verdict(&stored, provider, intent, failure).await;
            match settled {
                Err(BrokerError::Conflict) => continue,
                Err(error) => {
                    if failure.class != ReplyClass::Ambiguous && !failure.spent {
                        self.unspent().note(intent.owner);
                    }
                    return Err(error);
                }
                Ok(flown) => return Ok(flown),
            }
        }
    }

    async fn settle_verdict(
        &self,
        stored: &Stored<Connection>,
        provider: &Provider,
        intent: &Intent,
        failure: &TokenFailure,
    ) -> Result<Option<Flown>, BrokerError> {
        let (credential, now) = (&stored.value.credential, self.now());
        if credential.state.is_stopped() {
            return Ok(Some(Flown::Stopped));
        }
        // A provider that always asks for a second is not asked each second.
        let wait = backoff(credential.refresh.failures, self.vault().random())?;
        let wait = failure.retry_after.map_or(wait, |asked| asked.max(wait));
        let later = now.plus(wait);
        match failure.class {
            ReplyClass::Terminal | ReplyClass::Reauthorize => {
                let rotates = matches!(provider.definition.rotation, Rotation::Grace { .. } | Rotation::Strict);
                let lost = rotates && intent.attempt > 1;
                let reason = if lost { Reason::RotationLost } else { Reason::ReauthorizationRequired };
                self.settle_dead(stored, reason, failure.hints.clone()).await.map(Some)
            }
            ReplyClass::Configuration => {
                let flown = match self.registration_refused(provider, stored.value.id).await? {
                    Refused::All => self.settle_deferred(stored, failure.spent).await,
                    Refused::ThisOne => {
                        self.settle_failing(stored, Reason::ProviderReplyInvalid, later, failure.spent).await
                    }
                };
                flown.map(Some)
            }
            ReplyClass::Ambiguous => {
                let timeout = self.settings().provider_timeout;
                let after = credential.after_lost_answer(provider.definition.rotation, intent.begun_at, now, timeout);
                self.settle_lost(stored, after, now).await
            }
            ReplyClass::RateLimited => {
                self.settle_failing(stored, Reason::ProviderRateLimited, later, false).await.map(Some)
            }
            ReplyClass::Transient if failure.excused => {
                self.settle_excused(stored, Reason::ProviderUnreachable, later).await.map(Some)
            }
            ReplyClass::Transient | ReplyClass::Unknown => {
                self.settle_failing(stored, Reason::ProviderUnreachable, later, false).await.map(Some)
            }
        }
    }

    async fn settle_lost(
        &self,
        stored: &Stored<Connection>,
        after: AfterLostAnswer,
        now: Timestamp,
    ) -> Result<Option<Flown>, BrokerError> {
        match after {
            AfterLostAnswer::GiveUp => self.settle_dead(stored, Reason::RotationLost, None).await.map(Some),
            // At most one immediate retry a flight: the second lost answer waits like any other failure.
            AfterLostAnswer::RetryAt(at) if at <= now && stored.value.credential.refresh.attempts < 2 => {
                self.settle_failing(stored, Reason::ProviderUnreachable, now, true).await?;
                Ok(None)
            }
            AfterLostAnswer::RetryAt(at) => {
                let wait = backoff(stored.value.credential.refresh.failures, self.vault().random())?;
                self.settle_failing(stored, Reason::ProviderUnreachable, at.max(now.plus(wait)), true).await.map(Some)
            }
        }
    }
}

enum Next {
    Post(Box<Posting>),
    Again,
    Land(Flown),
}

struct Posting {
    provider: Arc<Provider>,
    intent: Intent,
    refresh_token: RefreshToken,
    turn: Turn,
}
