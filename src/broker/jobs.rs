//! Runs the durable follow-up jobs until each is settled.

use std::time::Duration;

use super::{Broker, BrokerError, trail::by_broker};
use crate::{
    domain::{
        AuditAction, AuditRecord, AuditResult, ConnectionId, CredentialState, Job, JobId, JobKind, ProviderId,
        RemoteRevocation, SubjectId, TenantId,
    },
    vault::Stored,
};

/// A job runs at once by whoever made it; this is when the scheduler takes over.
pub(super) const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(3600);
/// Tries before a provider's silence is taken for a no: about a week.
const MOST_FAILURES: u32 = 170;

impl Broker {
    pub(super) fn new_job(&self, tenant: &TenantId, subject: SubjectId, kind: JobKind) -> Result<Job, BrokerError> {
        Ok(Job { id: JobId::from_bytes(self.fresh()?), tenant: tenant.clone(), subject, kind, failures: 0 })
    }

    pub(super) async fn run_job(&self, id: JobId) -> Result<(), BrokerError> {
        let Some(stored) = self.vault().job(id).await? else { return Ok(()) };
        let settled = match self.work_on(&stored).await {
            Ok(settled) => settled,
            Err(error @ (BrokerError::StoreUnavailable | BrokerError::Conflict)) => return Err(error),
            // Put off like any other failure: what stays due at once would be tried every second.
            Err(error) => {
                tracing::error!(job.id = %id, %error, "a job could not be worked on");
                false
            }
        };
        let mut change = self.vault().change(&stored.value.tenant, stored.value.owner()).await?;
        if settled {
            change.delete_job(&stored);
        } else {
            let failures = stored.value.failures.saturating_add(1);
            let wait = FIRST_RETRY.saturating_mul(1 << failures.min(12)).min(LONGEST_RETRY);
            change.reschedule_job(&stored, &Job { failures, ..stored.value.clone() }, self.now().plus(wait));
        }
        change.commit().await?;
        Ok(())
    }

    /// Whether there is nothing left to do.
    async fn work_on(&self, job: &Stored<Job>) -> Result<bool, BrokerError> {
        match &job.value.kind {
            JobKind::RevokeConnection { connection } => self.revoke_connection(*connection, job.value.failures).await,
            JobKind::RevokeTokens { provider, connection } => self.revoke_tokens(job, provider, *connection).await,
            JobKind::RevokeErased { provider } => self.revoke_tokens(job, provider, None).await,
            JobKind::SettleFlow { flow } => self.settle_left(&job.value.tenant, *flow).await,
        }
    }

    async fn revoke_connection(&self, id: ConnectionId, failures: u32) -> Result<bool, BrokerError> {
        let broker = self.clone();
        self.revocations().join_or_begin(id, move || async move { broker.tell_provider(id).await }).await;
        let Some(stored) = self.vault().any_connection(id).await? else { return Ok(true) };
        if stored.value.credential.state != CredentialState::Revoking {
            return Ok(true);
        }
        if failures < MOST_FAILURES {
            return Ok(false);
        }
        tracing::error!(connection.id = %id, "the provider never confirmed a revocation; it holds here only");
        self.settle_revocation(&stored, RemoteRevocation::Failed).await?;
        Ok(true)
    }

    async fn revoke_tokens(
        &self,
        job: &Stored<Job>,
        provider: &ProviderId,
        connection: Option<ConnectionId>,
    ) -> Result<bool, BrokerError> {
        let Some(tokens) = self.vault().job_tokens(job).await? else { return Ok(true) };
        let provider = match self.provider(provider) {
            // Taken out of the configuration: an erased subject's tokens are not kept for the day that it comes back.
            Err(BrokerError::ProviderUnknown) if job.value.owner().is_none() && job.value.failures >= MOST_FAILURES => {
                return Ok(true);
            }
            other => other?,
        };
        let result = match self.tell_of_tokens(&provider, &tokens).await {
            Ok(RemoteRevocation::Failed) => AuditResult::Failed,
            Ok(_) => AuditResult::Allowed,
            Err(failure) => {
                tracing::warn!(job.id = %job.value.id, provider.id = %provider.id, %failure, "the provider did not confirm a revocation");
                if job.value.failures < MOST_FAILURES {
                    return Ok(false);
                }
                AuditResult::Failed
            }
        };
        let (action, now) = (AuditAction::RevocationSettled, self.now());
        let record = match connection {
            Some(id) => {
                let stored = self.vault().any_connection(id).await?;
                stored.map(|stored| by_broker(&stored.value, action, result, now))
            }
            None if job.value.owner().is_none() => Some(AuditRecord {
                subject: Some(job.value.subject),
                provider: Some(provider.id.clone()),
                result,
                ..AuditRecord::by_broker(job.value.tenant.clone(), action, now)
            }),
            None => None,
        };
        if let Some(record) = record {
            let mut change = self.vault().change(&job.value.tenant, None).await?;
            change.audit(&record);
            change.commit().await?;
        }
        Ok(true)
    }
}
