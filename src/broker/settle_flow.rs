//! Judges tokens that an exchange has parked in its flow: whose account they are, and which connection they become.

use super::{Broker, BrokerError};
use crate::{
    domain::{
        AuditAction, AuditRecord, AuditResult, Connection, ConnectionId, Consent, Credential, CredentialId, Flow,
        FlowId, FlowState, JobKind, Reason, TenantId, Timestamp,
    },
    oauth::Tokens,
    vault::{self, FlowTokens, Parked, Stored, TokenSet},
};

impl Broker {
    /// Turns an exchanged flow into a connection, or ends it. Does nothing when that has happened already, so the
    /// durable job may repeat it.
    pub(super) async fn settle_flow(&self, tenant: &TenantId, id: FlowId) -> Result<(), BrokerError> {
        loop {
            let Some(flow) = self.vault().flow(tenant, id).await? else { return Ok(()) };
            if flow.value.state != FlowState::Exchanged {
                return Ok(());
            }
            let Some(parked) = self.vault().flow_tokens(&flow).await? else {
                return self.end_flow(tenant, id, Reason::ExchangeInterrupted).await;
            };
            let account = self.account_of(&flow.value, &parked).await;
            let settled = match self.renewed(&flow.value, account.as_deref()).await? {
                Renewed::Mismatch => self.refuse_tokens(&flow, &parked).await,
                Renewed::Existing(connection) => self.renew(&flow, &connection, &parked, account).await,
                Renewed::New => self.connect(&flow, &parked, account).await,
            };
            match settled {
                Err(BrokerError::Conflict) => continue,
                other => return other,
            }
        }
    }

    /// What the durable job does for a flow whose exchange began; false while whoever began it is at it. An exchange that
    /// nobody is at any more died with its process: whether the provider has spent the code is unknown.
    pub(super) async fn settle_left(&self, tenant: &TenantId, id: FlowId) -> Result<bool, BrokerError> {
        // Read before the flights are asked: a flow that was exchanging then and has no flight now was left behind, or
        // has moved, and then the change is refused.
        let flow = self.vault().flow(tenant, id).await?;
        if self.exchanges().has(&id) {
            return Ok(false);
        }
        match flow {
            Some(flow) if flow.value.state == FlowState::Exchanging => {
                self.end(&flow, Reason::ExchangeInterrupted).await
            }
            _ => self.settle_flow(tenant, id).await,
        }
        .map(|()| true)
    }

    /// Ends a flow without a connection.
    pub(super) async fn end_flow(&self, tenant: &TenantId, id: FlowId, reason: Reason) -> Result<(), BrokerError> {
        match self.vault().flow(tenant, id).await? {
            Some(flow) => self.end(&flow, reason).await,
            None => Ok(()),
        }
    }

    async fn end(&self, flow: &Stored<Flow>, reason: Reason) -> Result<(), BrokerError> {
        let Flow { tenant, subject, .. } = &flow.value;
        let mut change = self.vault().change(tenant, Some(*subject)).await?;
        change.update_flow(flow, &Flow { state: FlowState::Failed { reason }, ..flow.value.clone() }, Parked::Drop);
        change.audit(&of_flow(&flow.value, None, AuditResult::Failed, Some(reason), self.now()));
        change.commit().await?;
        Ok(())
    }

    /// The provider's id of the account. A provider that cannot say now leaves it unknown: no check may throw a fresh
    /// token away.
    async fn account_of(&self, flow: &Flow, parked: &FlowTokens) -> Option<String> {
        let provider = self.provider(&flow.provider).ok()?;
        let tokens = Tokens {
            asked_at: parked.obtained_at,
            access: parked.tokens.access.clone(),
            refresh: None,
            id_token: parked.tokens.id_token.clone(),
            expires_in: None,
            refresh_expires_in: None,
            scopes: None,
        };
        match self.servers().account(&provider, &tokens, parked.nonce.as_ref()).await {
            Ok(account) => account,
            Err(error) => {
                tracing::warn!(flow.id = %flow.id, provider.id = %flow.provider, %error, "the account stays unknown");
                None
            }
        }
    }

    async fn renewed(&self, flow: &Flow, account: Option<&str>) -> Result<Renewed, BrokerError> {
        if let Some(id) = flow.renews
            && let Some(stored) = self.vault().connection(&flow.tenant, id).await?
            && !stored.value.credential.state.is_stopped()
        {
            return Ok(match (&stored.value.account, account) {
                (Some(old), Some(new)) if old != new => Renewed::Mismatch,
                // Whose they are could not be learnt: they are kept, but never under a name that nobody confirmed.
                (Some(_), None) => Renewed::New,
                _ => Renewed::Existing(Box::new(stored)),
            });
        }
        if let (Some(wanted), Some(account)) = (&flow.account, account)
            && wanted != account
        {
            return Ok(Renewed::Mismatch);
        }
        let connections = self.vault().connections(&flow.tenant, flow.subject, Some(&flow.provider)).await?;
        let same = connections.into_iter().find(|stored| {
            !stored.value.credential.state.is_stopped()
                && account.is_some()
                && stored.value.account.as_deref() == account
        });
        Ok(same.map_or(Renewed::New, |stored| Renewed::Existing(Box::new(stored))))
    }

    async fn connect(
        &self,
        flow: &Stored<Flow>,
        parked: &FlowTokens,
        account: Option<String>,
    ) -> Result<(), BrokerError> {
        let now = self.now();
        let transition = Credential::pending(CredentialId::from_bytes(self.fresh()?), now)
            .authorized(parked.granted.clone(), now)?;
        let connection = Connection {
            id: ConnectionId::from_bytes(self.fresh()?),
            tenant: flow.value.tenant.clone(),
            subject: flow.value.subject,
            provider: flow.value.provider.clone(),
            account,
            created_at: now,
            consent: consent(&flow.value, parked, now),
            credential: transition.credential,
            remote_revocation: None,
            withheld: false,
        };
        let mut change = self.completing(flow, connection.id).await?;
        change.insert_connection(&connection, &judged(parked), self.next_action(&connection)?);
        self.announce(&mut change, &connection, &transition.events);
        change.audit(&of_flow(&flow.value, Some(&connection), AuditResult::Allowed, None, now));
        change.commit().await?;
        match self.provider(&connection.provider) {
            Err(BrokerError::ProviderUnknown) => self.connected_too_late().await,
            _ => Ok(()),
        }
    }

    async fn renew(
        &self,
        flow: &Stored<Flow>,
        stored: &Stored<Connection>,
        parked: &FlowTokens,
        account: Option<String>,
    ) -> Result<(), BrokerError> {
        let now = self.now();
        let transition = stored.value.credential.authorized(parked.granted.clone(), now)?;
        let connection = Connection {
            account: account.or_else(|| stored.value.account.clone()),
            consent: consent(&flow.value, parked, now),
            credential: transition.credential,
            ..stored.value.clone()
        };
        let mut change = self.completing(flow, connection.id).await?;
        change.update_connection(
            stored,
            &connection,
            vault::Tokens::Replace(&judged(parked)),
            self.next_action(&connection)?,
        );
        self.announce(&mut change, &connection, &transition.events);
        change.audit(&of_flow(&flow.value, Some(&connection), AuditResult::Allowed, None, now));
        change.commit().await?;
        Ok(())
    }

    /// Another account than asked for: nobody gets these tokens, and the provider is told so.
    async fn refuse_tokens(&self, flow: &Stored<Flow>, parked: &FlowTokens) -> Result<(), BrokerError> {
        let (now, reason) = (self.now(), Reason::AccountMismatch);
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.update_flow(flow, &Flow { state: FlowState::Failed { reason }, ..flow.value.clone() }, Parked::Drop);
        let kind = JobKind::RevokeTokens { provider: flow.value.provider.clone(), connection: None };
        change.insert_job(&self.new_job(&flow.value.tenant, flow.value.subject, kind)?, Some(&parked.tokens), now);
        change.audit(&of_flow(&flow.value, None, AuditResult::Refused, Some(reason), now));
        change.commit().await?;
        Ok(())
    }

    async fn completing(&self, flow: &Stored<Flow>, connection: ConnectionId) -> Result<vault::Change, BrokerError> {
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.update_flow(
            flow,
            &Flow { state: FlowState::Completed { connection }, ..flow.value.clone() },
            Parked::Drop,
        );
        Ok(change)
    }
}

/// What the connection keeps: the ID token has told whose account it is, and is not needed again.
fn judged(parked: &FlowTokens) -> TokenSet {
    TokenSet { id_token: None, ..parked.tokens.clone() }
}

enum Renewed {
    New,
    Existing(Box<Stored<Connection>>),
    Mismatch,
}

fn consent(flow: &Flow, parked: &FlowTokens, now: Timestamp) -> Consent {
    Consent { subject: flow.subject, agent: flow.agent.clone(), scopes: parked.granted.scopes.clone(), at: now }
}

fn of_flow(
    flow: &Flow,
    connection: Option<&Connection>,
    result: AuditResult,
    reason: Option<Reason>,
    at: Timestamp,
) -> AuditRecord {
    let mut record = AuditRecord {
        subject: Some(flow.subject),
        agent: flow.agent.clone(),
        result,
        reason,
        provider: Some(flow.provider.clone()),
        plugin: flow.plugin.clone(),
        ..AuditRecord::by_broker(flow.tenant.clone(), AuditAction::ConnectionChanged, at)
    };
    if let Some(connection) = connection {
        record.connection = Some(connection.id);
        record.generation = Some(connection.credential.generation);
    }
    record
}
