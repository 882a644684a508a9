//! What the answer to a refresh changes: each outcome is one change set with its event and its audit record.

use super::{Beside, Flown, Held};
use crate::{
    broker::{Broker, BrokerError, trail::by_broker},
    domain::{
        AuditAction, AuditResult, Connection, ConnectionId, CredentialState, Hints, JobKind, Reason, Timestamp,
        Transition,
    },
    vault::{Stored, TokenSet, Tokens},
};

impl Broker {
    /// Stores new tokens, whatever it takes: the old refresh token may be dead already.
    pub(super) async fn settle_tokens(&self, stored: &Stored<Connection>, held: Held) -> Result<Flown, BrokerError> {
        Ok(self.until_stored(&held, Beside::Connection(stored)).await?.unwrap_or(Flown::Stopped))
    }

    /// Applies tokens to the record as it is now: still connected → store them; stopped → the revocation gets them
    /// and nobody else; already moved on → nothing.
    pub(in crate::broker) async fn apply_tokens(&self, id: ConnectionId, held: &Held) -> Result<Flown, BrokerError> {
        loop {
            let Some(stored) = self.vault().any_connection(id).await? else { return Ok(Flown::Stopped) };
            let credential = &stored.value.credential;
            if credential.state.is_stopped() {
                match self.hand_to_revocation(&stored, held.tokens()).await {
                    Err(BrokerError::Conflict) => continue,
                    other => return other.map(|()| Flown::Stopped),
                }
            }
            if credential.generation != held.generation() {
                return Ok(Flown::Generation(credential.generation));
            }
            if credential.state == CredentialState::ReauthorizationRequired {
                // Given up before these turned up: watchers were told that it is the end, and the user was asked.
                match self.hand_to_revocation(&stored, held.tokens()).await {
                    Err(BrokerError::Conflict) => continue,
                    other => return other.map(|()| Flown::ReauthorizationRequired),
                }
            }
            let transition = credential.refreshed(held.granted().clone(), self.now())?;
            let generation = transition.credential.generation;
            match self.settle(&stored, transition, Tokens::Replace(held.tokens()), AuditResult::Allowed).await {
                Err(BrokerError::Conflict) => continue,
                other => return other.map(|()| Flown::Generation(generation)),
            }
        }
    }

    /// `hints`: what the provider demands of the next authorization.
    pub(super) async fn settle_dead(
        &self,
        stored: &Stored<Connection>,
        reason: Reason,
        hints: Option<Hints>,
    ) -> Result<Flown, BrokerError> {
        let transition = stored.value.credential.reauthorization_required(reason, hints)?;
        self.settle(stored, transition, Tokens::Keep, AuditResult::Failed).await?;
        if reason == Reason::RotationLost {
            self.metrics().count_rotation_lost(&stored.value.provider);
        }
        Ok(Flown::ReauthorizationRequired)
    }

    pub(super) async fn settle_failing(
        &self,
        stored: &Stored<Connection>,
        reason: Reason,
        retry_at: Timestamp,
        spent: bool,
    ) -> Result<Flown, BrokerError> {
        let transition = stored.value.credential.refresh_failed(reason, retry_at, spent)?;
        self.settle(stored, transition, Tokens::Keep, AuditResult::Failed).await?;
        Ok(Flown::Failing { reason, retry_after: retry_at - self.now() })
    }

    pub(super) async fn settle_excused(
        &self,
        stored: &Stored<Connection>,
        reason: Reason,
        retry_at: Timestamp,
    ) -> Result<Flown, BrokerError> {
        let transition = stored.value.credential.refresh_excused(reason, retry_at)?;
        self.settle(stored, transition, Tokens::Keep, AuditResult::Failed).await?;
        Ok(Flown::Failing { reason, retry_after: retry_at - self.now() })
    }

    pub(super) async fn settle_deferred(&self, stored: &Stored<Connection>, spent: bool) -> Result<Flown, BrokerError> {
        let transition = stored.value.credential.refresh_deferred(spent);
        self.settle(stored, transition, Tokens::Keep, AuditResult::Failed).await?;
        Ok(Flown::ProviderSuspended)
    }

    /// One change set: the record, its events, the audit record.
    pub(in crate::broker) async fn settle(
        &self,
        stored: &Stored<Connection>,
        transition: Transition,
        tokens: Tokens<'_>,
        result: AuditResult,
    ) -> Result<(), BrokerError> {
        let next = Connection { credential: transition.credential, ..stored.value.clone() };
        let mut change = self.vault().change(&next.tenant, Some(next.subject)).await?;
        change.update_connection(stored, &next, tokens, self.next_action(&next)?);
        self.announce(&mut change, &next, &transition.events);
        change.audit(&by_broker(&next, AuditAction::RefreshSettled, result, self.now()));
        change.commit().await?;
        Ok(())
    }

    /// Fresh tokens of a connection that was revoked while they were on their way: they replace the spent ones under
    /// the revocation that is still to run, or get a revocation of their own; either way they are never served.
    async fn hand_to_revocation(&self, stored: &Stored<Connection>, tokens: &TokenSet) -> Result<(), BrokerError> {
        let connection = &stored.value;
        let mut change = self.vault().change(&connection.tenant, Some(connection.subject)).await?;
        if connection.credential.state == CredentialState::Revoking {
            change.update_connection(stored, connection, Tokens::Replace(tokens), self.next_action(connection)?);
        } else {
            let kind = JobKind::RevokeTokens { provider: connection.provider.clone(), connection: Some(connection.id) };
            change.insert_job(&self.new_job(&connection.tenant, connection.subject, kind)?, Some(tokens), self.now());
        }
        change.audit(&by_broker(connection, AuditAction::RefreshSettled, AuditResult::Refused, self.now()));
        change.commit().await?;
        Ok(())
    }
}
