//! What a user has connected, and how an authorization of theirs stands.

use std::{cmp::Reverse, time::Duration};

use super::{Broker, BrokerError, trail::About};
use crate::{
    domain::{
        AuditAction, Call, Connection, ConnectionId, Flow, FlowId, FlowState, Holders, NextAction, ProviderId, Role,
        Timestamp,
    },
    vault::Stored,
};

/// The longest wait that GetAuthorization grants.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection as its owner is shown it.
#[derive(Clone, Debug)]
pub struct ShownConnection {
    /// Of a suspended provider it is suspended, whatever is stored.
    pub connection: Connection,
    /// When the authorization ends unless the user renews it; `None`: not known.
    pub authorization_ends_at: Option<Timestamp>,
    /// `None`: nothing will happen to it any more, or not before somebody asks.
    pub next: Option<NextAction>,
    pub holders: Holders,
}

impl Broker {
    /// The caller's connections, newest first.
    pub async fn list_connections(
        &self,
        call: &Call,
        provider: Option<&ProviderId>,
    ) -> Result<Vec<ShownConnection>, BrokerError> {
        let outcome = self.connections_of(call, provider).await;
        self.record_answer(call, AuditAction::ConnectionsRead, About::default(), outcome.as_ref().err()).await?;
        outcome
    }

    pub async fn get_connection(&self, call: &Call, id: ConnectionId) -> Result<ShownConnection, BrokerError> {
        let outcome = self.connection_of(call, id).await;
        let about = About { plugin: None, connection: outcome.as_ref().ok().map(|shown| &shown.connection) };
        self.record_answer(call, AuditAction::ConnectionsRead, about, outcome.as_ref().err()).await?;
        outcome
    }

    /// How a flow stands, waiting up to `wait` for it to end. An expired flow is shown as one for as long as its
    /// record is there.
    pub async fn get_authorization(&self, call: &Call, id: FlowId, wait: Duration) -> Result<Flow, BrokerError> {
        let outcome = self.flow_of(call, id, wait).await;
        let plugin = outcome.as_ref().ok().and_then(|flow| flow.plugin.as_ref());
        let about = About { plugin, connection: None };
        self.record_answer(call, AuditAction::AuthorizationRead, about, outcome.as_ref().err()).await?;
        outcome
    }

    async fn connections_of(
        &self,
        call: &Call,
        provider: Option<&ProviderId>,
    ) -> Result<Vec<ShownConnection>, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let stored = self.vault().connections(&call.caller.tenant, call.caller.subject, provider).await?;
        let mut connections = Vec::with_capacity(stored.len());
        for stored in &stored {
            connections.push(self.show(stored).await?);
        }
        connections.sort_by_key(|shown| Reverse((shown.connection.created_at, shown.connection.id)));
        Ok(connections)
    }

    async fn connection_of(&self, call: &Call, id: ConnectionId) -> Result<ShownConnection, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        self.show(&self.own_connection(call, id).await?).await
    }

    pub(super) async fn show(&self, stored: &Stored<Connection>) -> Result<ShownConnection, BrokerError> {
        let connection = self.shown(&stored.value);
        let next = NextAction::of(&connection, stored.due(), self.next_attempt_at(&connection.provider));
        let holders = self.holders(&stored.value).await?;
        Ok(ShownConnection { authorization_ends_at: self.ends_at(&stored.value), next, holders, connection })
    }

    async fn flow_of(&self, call: &Call, id: FlowId, wait: Duration) -> Result<Flow, BrokerError> {
        self.authorize_session(call, Role::User).await?;
        let deadline = self.now().plus(wait.min(LONGEST_WAIT));
        let mut head = self.vault().store().watch_head();
        loop {
            head.mark_unchanged();
            let stored = self.vault().flow(&call.caller.tenant, id).await?.ok_or(BrokerError::FlowNotFound)?;
            if stored.value.subject != call.caller.subject {
                return Err(BrokerError::FlowNotFound);
            }
            let pending = matches!(stored.value.state, FlowState::Open | FlowState::Exchanging | FlowState::Exchanged);
            if !pending || !stored.value.is_live(self.now()) || self.now() >= deadline {
                return Ok(stored.into_value());
            }
            tokio::select! {
                _ = head.changed() => {}
                () = self.clock().sleep_until(deadline.min(stored.value.expires_at)) => {}
                () = self.stopping().cancelled() => return Ok(stored.into_value()),
            }
        }
    }

    /// The connection if it is the caller's; somebody else's does not exist.
    pub(super) async fn own_connection(
        &self,
        call: &Call,
        id: ConnectionId,
    ) -> Result<Stored<Connection>, BrokerError> {
        let stored = self.vault().connection(&call.caller.tenant, id).await?;
        stored.filter(|stored| stored.value.subject == call.caller.subject).ok_or(BrokerError::ConnectionNotFound)
    }
}
