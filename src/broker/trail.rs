//! How the use cases write the audit trail: a state change's record goes into its change set; reads and refusals are
//! recorded here, at most once a window.

use super::{Broker, BrokerError};
use crate::{
    audit::{Coverage, WindowKey},
    domain::{
        AuditAction, AuditRecord, AuditResult, Call, Connection, Flow, Link, PluginId, RequestId, SubjectId, TenantId,
        Timestamp, Visit,
    },
    identity::SignedIn,
};

/// What a record is about.
#[derive(Clone, Copy, Default)]
pub(super) struct About<'a> {
    pub(super) plugin: Option<&'a PluginId>,
    pub(super) connection: Option<&'a Connection>,
}

impl Broker {
    /// Records a read durably before its answer may leave, unless an open window covers it.
    pub(super) async fn record_read(
        &self,
        call: &Call,
        action: AuditAction,
        about: About<'_>,
        scopes: &str,
    ) -> Result<(), BrokerError> {
        let record = allowed(call, action, about, self.now());
        self.record_windowed(record, scopes).await
    }

    /// Records a read or why it was refused, before the answer may leave.
    pub(super) async fn record_answer(
        &self,
        call: &Call,
        action: AuditAction,
        about: About<'_>,
        refused: Option<&BrokerError>,
    ) -> Result<(), BrokerError> {
        match refused {
            None => self.record_read(call, action, about, "").await,
            Some(error) => {
                self.record_refusal(call, action, about, error).await;
                Ok(())
            }
        }
    }

    /// Records a refusal or failure, at most once a window. A trail that cannot be written must not hide the reason
    /// from the caller, who got nothing; so its own error is only logged.
    pub(super) async fn record_refusal(&self, call: &Call, action: AuditAction, about: About<'_>, error: &BrokerError) {
        // An unknown plugin's name is the caller's own invention: each would open a window of its own.
        let plugin = about.plugin.filter(|plugin| self.catalog().plugins.contains_key(plugin));
        let record = allowed(call, action, About { plugin, ..about }, self.now());
        self.record_refused(record, error).await;
    }

    /// As [`Broker::record_refusal`], for a record that is made already.
    pub(super) async fn record_refused(&self, mut record: AuditRecord, error: &BrokerError) {
        record.result = AuditResult::Failed;
        record.reason = Some(error.reason());
        if let BrokerError::Refused { link, .. } = error {
            record.result = AuditResult::Refused;
            record.link = Some(*link);
        }
        if error.is_refusal_of_visitor() {
            record.result = AuditResult::Refused;
            record.link = Some(Link::Session);
        }
        let request_id = record.request_id.clone();
        if let Err(error) = self.record_windowed(record, "").await {
            let request_id = request_id.as_ref().map(RequestId::as_str);
            tracing::error!(request.id = request_id, %error, "a refusal could not be audited");
        }
    }

    /// Appends `READS_REPEATED` for every window that has closed by now.
    pub(super) async fn close_audit_windows(&self) -> Result<(), BrokerError> {
        let closed = self.windows().closed(self.now());
        self.record_repeated(closed).await
    }

    pub(super) async fn record_repeated(&self, mut closed: Vec<AuditRecord>) -> Result<(), BrokerError> {
        // In an order that is the same in every run: windows are kept in none.
        let first = |record: &AuditRecord| record.repeated.as_ref().map(|repeated| repeated.first);
        closed.sort_by(|a, b| (&a.tenant, first(a)).cmp(&(&b.tenant, first(b))));
        for records in closed.chunk_by(|a, b| a.tenant == b.tenant).flat_map(|of_tenant| of_tenant.chunks(100)) {
            let mut change = self.vault().change(&records[0].tenant, None).await?;
            records.iter().for_each(|record| change.audit(record));
            change.commit().await?;
        }
        Ok(())
    }

    /// As [`Broker::record_read`], for a record that is made already.
    pub(super) async fn record_windowed(&self, record: AuditRecord, scopes: &str) -> Result<(), BrokerError> {
        let key = WindowKey::of(&record, scopes);
        match self.windows().cover(&key, record.at) {
            Coverage::Covered => Ok(()),
            // On the heap, so that the calls that are covered carry no room for it.
            Coverage::Uncovered => Box::pin(self.record_uncovered(key, record)).await,
        }
    }

    async fn record_uncovered(&self, key: WindowKey, record: AuditRecord) -> Result<(), BrokerError> {
        let mut change = self.vault().change(&record.tenant, None).await?;
        // A window that is over makes room for the next at once, or every read until the timer comes by would be on
        // its own.
        if let Some(repeated) = self.windows().close(&key, record.at) {
            change.audit(&repeated);
        }
        change.audit(&record);
        let receipt = change.commit().await?;
        if let Some(sequence) = receipt.audit.last() {
            self.windows().open(key, *sequence, record);
        }
        Ok(())
    }
}

/// The record of something that was allowed.
pub(super) fn allowed(call: &Call, action: AuditAction, about: About<'_>, at: Timestamp) -> AuditRecord {
    AuditRecord {
        subject: Some(call.caller.subject),
        agent: call.caller.agent.clone(),
        provider: about.connection.map(|connection| connection.provider.clone()),
        plugin: about.plugin.cloned(),
        connection: about.connection.map(|connection| connection.id),
        generation: about.connection.map(|connection| connection.credential.generation),
        request_id: Some(call.request_id.clone()),
        peer: call.peer,
        user_agent: call.user_agent.clone(),
        context: call.context.clone(),
        ..AuditRecord::by_broker(call.caller.tenant.clone(), action, at)
    }
}

/// The record of what a browser did with a flow, in its owner's name.
pub(super) fn visited(visit: &Visit, flow: &Flow, action: AuditAction, at: Timestamp) -> AuditRecord {
    AuditRecord {
        agent: flow.agent.clone(),
        provider: Some(flow.provider.clone()),
        plugin: flow.plugin.clone(),
        ..of_visit(visit, flow.tenant.clone(), flow.subject, action, at)
    }
}

/// The record of what somebody did with a flow that is not theirs; it does not say whose it is.
pub(super) fn visited_by(visit: &Visit, who: &SignedIn, action: AuditAction, at: Timestamp) -> AuditRecord {
    of_visit(visit, who.tenant.clone(), who.subject, action, at)
}

fn of_visit(visit: &Visit, tenant: TenantId, subject: SubjectId, action: AuditAction, at: Timestamp) -> AuditRecord {
    AuditRecord {
        subject: Some(subject),
        request_id: Some(visit.request_id.clone()),
        peer: visit.peer,
        user_agent: visit.user_agent.clone(),
        ..AuditRecord::by_broker(tenant, action, at)
    }
}

/// The record of something that the broker did by itself.
pub(super) fn by_broker(
    connection: &Connection,
    action: AuditAction,
    result: AuditResult,
    at: Timestamp,
) -> AuditRecord {
    AuditRecord {
        subject: Some(connection.subject),
        result,
        reason: connection.credential.reason,
        provider: Some(connection.provider.clone()),
        connection: Some(connection.id),
        generation: Some(connection.credential.generation),
        ..AuditRecord::by_broker(connection.tenant.clone(), action, at)
    }
}
