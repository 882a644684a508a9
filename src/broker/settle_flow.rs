//! Judges tokens that an exchange has parked in its flow: whose account they are, and which connection they become.

use super::{Broker, BrokerError};
use crate::{
    domain::{
        AuditAction, AuditResult, Connection, ConnectionId, Consent, Credential, Flow, FlowId, FlowState, JobKind,
        Reason, TenantId,
    },
    oauth::AccountTokens,
    vault::{Parked, Stored, Tokens},
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
            let Some(parked) = self.vault().parked_tokens(&flow).await? else {
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

    /// Ends a flow without a connection.
    pub(super) async fn end_flow(&self, tenant: &TenantId, id: FlowId, reason: Reason) -> Result<(), BrokerError> {
        let Some(flow) = self.vault().flow(tenant, id).await? else { return Ok(()) };
        let mut change = self.vault().change(tenant, Some(flow.value.subject)).await?;
        change.update_flow(&flow, &Flow { state: FlowState::Failed { reason }, ..flow.value.clone() });
        change.audit(&of_flow(&flow.value, None, AuditResult::Failed, Some(reason), self.now()));
        change.commit().await?;
        Ok(())
    }

    /// The provider's id of the account. A provider that cannot say now leaves it unknown: no check may throw a fresh
    /// token away.
    async fn account_of(&self, flow: &Flow, parked: &Parked) -> Option<String> {
        let provider = self.provider(&flow.provider).ok()?;
        let tokens = AccountTokens {
            access: &parked.tokens.access,
            id_token: parked.tokens.id_token.as_ref(),
            nonce: parked.nonce.as_ref(),
        };
        match self.servers().account(provider, &tokens, self.now()).await {
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
            let differs = matches!((&stored.value.account, account), (Some(old), Some(new)) if old != new);
            return Ok(if differs { Renewed::Mismatch } else { Renewed::Existing(Box::new(stored)) });
        }
        if let (Some(wanted), Some(account)) = (&flow.account, account)
            && wanted != account
        {
            return Ok(Renewed::Mismatch);
        }
        let connections = self.vault().connections(&flow.tenant, flow.subject, Some(&flow.provider)).await?;
        let same = connections.into_iter().find(|stored| {
            !stored.value.credential.state.is_stopped() && account.is_some() && stored.value.account.as_deref() == account
        });
        Ok(same.map_or(Renewed::New, |stored| Renewed::Existing(Box::new(stored))))
    }

    async fn connect(&self, flow: &Stored<Flow>, parked: &Parked, account: Option<String>) -> Result<(), BrokerError> {
        let now = self.now();
        let random = self.vault().random();
        let transition = Credential::pending(random.id(), now).authorized(parked.granted.clone(), now)?;
        let connection = Connection {
            id: random.id(),
            tenant: flow.value.tenant.clone(),
            subject: flow.value.subject,
            provider: flow.value.provider.clone(),
            account,
            created_at: now,
            consent: consent(&flow.value, parked, now),
            credential: transition.credential,
            remote_revocation: None,
        };
        let mut change = self.completing(flow, connection.id).await?;
        change.insert_connection(&connection, &parked.tokens, self.next_action(&connection));
        self.announce(&mut change, &connection, &transition.events);
        change.audit(&of_flow(&flow.value, Some(&connection), AuditResult::Allowed, None, now));
        change.commit().await?;
        Ok(())
    }

    async fn renew(&self, flow: &Stored<Flow>, stored: &Stored<Connection>, parked: &Parked, account: Option<String>) -> Result<(), BrokerError> {
        let now = self.now();
        let transition = stored.value.credential.authorized(parked.granted.clone(), now)?;
        let connection = Connection {
            account: account.or_else(|| stored.value.account.clone()),
            consent: consent(&flow.value, parked, now),
            credential: transition.credential,
            ..stored.value.clone()
        };
        let mut change = self.completing(flow, connection.id).await?;
        change.update_connection(stored, &connection, Tokens::Replace(&parked.tokens), self.next_action(&connection));
        self.announce(&mut change, &connection, &transition.events);
        change.audit(&of_flow(&flow.value, Some(&connection), AuditResult::Allowed, None, now));
        change.commit().await?;
        Ok(())
    }

    /// Another account than asked for: nobody gets these tokens, and the provider is told so.
    async fn refuse_tokens(&self, flow: &Stored<Flow>, parked: &Parked) -> Result<(), BrokerError> {
        let (now, reason) = (self.now(), Reason::AccountMismatch);
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.unpark_tokens(flow, &Flow { state: FlowState::Failed { reason }, ..flow.value.clone() });
        let kind = JobKind::RevokeTokens { provider: flow.value.provider.clone(), connection: None };
        change.insert_job(&self.new_job(&flow.value.tenant, flow.value.subject, kind), Some(&parked.tokens), now);
        change.audit(&of_flow(&flow.value, None, AuditResult::Refused, Some(reason), now));
        change.commit().await?;
        Ok(())
    }

    async fn completing(&self, flow: &Stored<Flow>, connection: ConnectionId) -> Result<crate::vault::Change, BrokerError> {
        let mut change = self.vault().change(&flow.value.tenant, Some(flow.value.subject)).await?;
        change.unpark_tokens(flow, &Flow { state: FlowState::Completed { connection }, ..flow.value.clone() });
        Ok(change)
    }
}

enum Renewed {
    New,
    Existing(Box<Stored<Connection>>),
    Mismatch,
}

fn consent(flow: &Flow, parked: &Parked, now: crate::domain::Timestamp) -> Consent {
    Consent { subject: flow.subject, agent: flow.agent.clone(), scopes: parked.granted.scopes.clone(), at: now }
}

fn of_flow(
    flow: &Flow,
    connection: Option<&Connection>,
    result: AuditResult,
    reason: Option<Reason>,
    at: crate::domain::Timestamp,
) -> crate::domain::AuditRecord {
    let mut record = crate::domain::AuditRecord {
        at,
        tenant: flow.tenant.clone(),
        subject: Some(flow.subject),
        agent: flow.agent.clone(),
        action: AuditAction::ConnectionChanged,
        result,
        reason,
        link: None,
        provider: Some(flow.provider.clone()),
        plugin: flow.plugin.clone(),
        connection: None,
        generation: None,
        request_id: None,
        peer: None,
        user_agent: None,
        context: crate::domain::CallContext::default(),
        repeated: None,
    };
    if let Some(connection) = connection {
        record.connection = Some(connection.id);
        record.generation = Some(connection.credential.generation);
    }
    record
}
