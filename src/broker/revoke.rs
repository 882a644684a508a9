//! Takes access away: here at once, at the provider by a durable job.

use futures_util::future::join_all;

use super::{
    Broker, BrokerError,
    trail::{About, allowed, by_broker},
};
use crate::{
    domain::{
        AuditAction, AuditResult, Call, Connection, ConnectionId, CredentialState, Holders, JobKind, PluginId,
        Provider, RemoteRevocation, Revocation, Role,
    },
    oauth::RevocationFailure,
    vault::{Stored, TokenSet, Tokens},
};

pub struct Revoke {
    pub target: RevokeTarget,
    /// Say what would happen, and do nothing.
    pub preview: bool,
}

#[derive(Clone, Debug)]
pub enum RevokeTarget {
    Connection(ConnectionId),
    /// All of the caller's connections that this plugin uses: other plugins of the provider lose them too.
    Plugin(PluginId),
    AllMine,
}

/// One connection's outcome.
pub struct RevokedConnection {
    pub connection: Connection,
    /// Whether this call stopped it, or with a preview would have; false: it had been stopped before.
    pub stopped: bool,
    pub remote: RemoteRevocation,
    /// What else falls at the provider, in words; empty: nothing.
    pub side_effects: String,
    /// Who said that they hold which generation: of them alone the broker knows.
    pub holders: Holders,
}

impl Broker {
    pub async fn revoke(&self, call: &Call, request: Revoke) -> Result<Vec<RevokedConnection>, BrokerError> {
        let outcome = self.revoke_targets(call, &request).await;
        let nothing_changed = |revoked: &RevokedConnection| request.preview || !revoked.stopped;
        match &outcome {
            Err(error) => self.record_refusal(call, AuditAction::RevocationRequested, About::default(), error).await,
            // What was stopped is on record with its own change set.
            Ok(revoked) if revoked.iter().all(nothing_changed) => {
                self.record_read(call, AuditAction::RevocationRequested, About::default(), "").await?;
            }
            Ok(_) => {}
        }
        outcome
    }

    async fn revoke_targets(&self, call: &Call, request: &Revoke) -> Result<Vec<RevokedConnection>, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let targets = self.targets(call, &request.target).await?;
        if request.preview {
            return self.preview_all(targets).await;
        }
        // A task of its own: a caller who goes away does not leave half of the connections serving.
        let (broker, call) = (self.clone(), call.clone());
        let stopping = self.0.tasks.spawn(async move { broker.stop_and_tell(&call, targets).await });
        stopping.await.unwrap_or(Err(BrokerError::ShuttingDown))
    }

    async fn targets(&self, call: &Call, target: &RevokeTarget) -> Result<Vec<Stored<Connection>>, BrokerError> {
        let caller = &call.caller;
        let catalog = self.catalog();
        let provider = match target {
            RevokeTarget::Connection(id) => return Ok(vec![self.own_connection(call, *id).await?]),
            RevokeTarget::Plugin(id) => {
                let plugin = catalog.plugins.get(id).ok_or(BrokerError::PluginUnknown)?;
                Some(&plugin.provider)
            }
            RevokeTarget::AllMine => None,
        };
        Ok(self.vault().connections(&caller.tenant, caller.subject, provider).await?)
    }

    async fn preview_all(&self, targets: Vec<Stored<Connection>>) -> Result<Vec<RevokedConnection>, BrokerError> {
        let mut outcomes = Vec::with_capacity(targets.len());
        for stored in targets {
            outcomes.push(self.preview(stored.into_value()).await?);
        }
        Ok(outcomes)
    }

    async fn preview(&self, connection: Connection) -> Result<RevokedConnection, BrokerError> {
        if connection.credential.state.is_stopped() {
            return self.outcome_of(connection, false).await;
        }
        let remote =
            self.catalog().providers.get(&connection.provider).map_or(RemoteRevocation::Unsupported, |provider| {
                match provider.definition.revocation {
                    Revocation::None => RemoteRevocation::Unsupported,
                    _ => RemoteRevocation::Pending,
                }
            });
        self.outcome_of(Connection { remote_revocation: Some(remote), ..connection }, true).await
    }

    /// Stops all of them before any provider is asked: one that does not answer must not keep the others serving.
    async fn stop_and_tell(
        &self,
        call: &Call,
        targets: Vec<Stored<Connection>>,
    ) -> Result<Vec<RevokedConnection>, BrokerError> {
        let mut stopped = Vec::with_capacity(targets.len());
        for stored in targets {
            stopped.push((stored.value.id, self.stop_serving(call, stored).await?));
        }
        let telling = stopped.iter().map(|(id, _)| {
            let (broker, id) = (self.clone(), *id);
            self.revocations().join_or_begin(id, move || async move { broker.tell_provider(id).await })
        });
        join_all(telling).await;
        let mut outcomes = Vec::with_capacity(stopped.len());
        for (id, by_this_call) in stopped {
            let connection = self.own_connection(call, id).await?.into_value();
            outcomes.push(self.outcome_of(connection, by_this_call).await?);
        }
        Ok(outcomes)
    }

    /// Stops serving: state, event, audit record and follow-up job in one change set. False: it had been stopped.
    async fn stop_serving(&self, call: &Call, mut stored: Stored<Connection>) -> Result<bool, BrokerError> {
        loop {
            if stored.value.credential.state.is_stopped() {
                return Ok(false);
            }
            let transition = stored.value.credential.begin_revocation()?;
            let next = Connection {
                credential: transition.credential,
                remote_revocation: Some(RemoteRevocation::Pending),
                ..stored.value.clone()
            };
            let mut change = self.vault().change(&next.tenant, Some(next.subject)).await?;
            change.update_connection(&stored, &next, Tokens::Keep, self.next_action(&next)?);
            self.announce(&mut change, &next, &transition.events);
            let about = About { plugin: None, connection: Some(&next) };
            change.audit(&allowed(call, AuditAction::RevocationRequested, about, self.now()));
            let kind = JobKind::RevokeConnection { connection: next.id };
            let job = self.new_job(&next.tenant, next.subject, kind)?;
            change.insert_job(&job, None, self.now().plus(super::jobs::FIRST_RETRY));
            match change.commit().await.map_err(BrokerError::from) {
                Ok(_) => return Ok(true),
                Err(BrokerError::Conflict) => stored = self.own_connection(call, next.id).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells the provider, and settles the connection when it has answered. False: not yet; the job repeats it.
    pub(super) async fn tell_provider(&self, id: ConnectionId) -> bool {
        match self.try_tell_provider(id).await {
            Ok(settled) => settled,
            Err(error) => {
                tracing::warn!(connection.id = %id, %error, "a revocation could not be settled; it is retried");
                false
            }
        }
    }

    async fn try_tell_provider(&self, id: ConnectionId) -> Result<bool, BrokerError> {
        // What is revoked must be the newest refresh token, so a refresh on its way lands first.
        self.flights().join(&id).await;
        loop {
            let Some(stored) = self.vault().any_connection(id).await? else { return Ok(true) };
            if stored.value.credential.state != CredentialState::Revoking {
                return Ok(true);
            }
            let provider = self.provider(&stored.value.provider)?;
            let remote = match self.vault().connection_tokens(&stored).await? {
                Some(tokens) => self.tell_of_tokens(&provider, &tokens).await,
                None => Ok(RemoteRevocation::Confirmed),
            };
            let remote = match remote {
                Ok(remote) => remote,
                Err(failure) => {
                    tracing::warn!(connection.id = %id, provider.id = %provider.id, %failure, "the provider did not confirm a revocation");
                    return Ok(false);
                }
            };
            match self.settle_revocation(&stored, remote).await {
                Err(BrokerError::Conflict) => continue,
                other => return other.map(|()| true),
            }
        }
    }

    pub(super) async fn tell_of_tokens(
        &self,
        provider: &Provider,
        tokens: &TokenSet,
    ) -> Result<RemoteRevocation, RevocationFailure> {
        self.servers().revoke(provider, Some(&tokens.access), tokens.refresh.as_ref()).await
    }

    /// The end: the tokens are dropped, the outcome is kept.
    pub(super) async fn settle_revocation(
        &self,
        stored: &Stored<Connection>,
        remote: RemoteRevocation,
    ) -> Result<(), BrokerError> {
        let transition = stored.value.credential.revoked()?;
        let next =
            Connection { credential: transition.credential, remote_revocation: Some(remote), ..stored.value.clone() };
        let result = if remote == RemoteRevocation::Failed { AuditResult::Failed } else { AuditResult::Allowed };
        let mut change = self.vault().change(&next.tenant, Some(next.subject)).await?;
        change.update_connection(stored, &next, Tokens::Drop, self.next_action(&next)?);
        self.announce(&mut change, &next, &transition.events);
        change.audit(&by_broker(&next, AuditAction::RevocationSettled, result, self.now()));
        change.commit().await?;
        Ok(())
    }

    async fn outcome_of(&self, connection: Connection, stopped: bool) -> Result<RevokedConnection, BrokerError> {
        let holders = self.holders(&connection).await?;
        let remote = connection.remote_revocation.unwrap_or(RemoteRevocation::Pending);
        let side_effects = self
            .catalog()
            .providers
            .get(&connection.provider)
            .map(|provider| provider.definition.revocation_side_effects.clone())
            .unwrap_or_default();
        Ok(RevokedConnection { connection, stopped, remote, side_effects, holders })
    }
}
