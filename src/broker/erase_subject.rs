//! Erases a subject: their providers take the tokens back, and nothing of theirs stays readable.

use super::{
    Broker, BrokerError,
    trail::{About, allowed},
};
use crate::{
    domain::{
        AuditAction, AuditRecord, AuditTarget, Call, ErasureReceipt, JobKind, ProviderId, Role, SubjectId, TenantId,
    },
    vault::TokenSet,
};

impl Broker {
    /// Erases a subject of a tenant. When it returns, nothing of theirs can be read or written, and that is durable. What
    /// a provider has not taken back yet is in a job of its own, sealed under the tenant's key until the provider has.
    /// Erasing twice is erasing once.
    ///
    /// # Errors
    /// `ROLE_MISSING` for who is no operator.
    pub async fn erase_subject(
        &self,
        call: &Call,
        tenant: &TenantId,
        subject: SubjectId,
    ) -> Result<ErasureReceipt, BrokerError> {
        let outcome = self.erase(call, tenant, subject).await;
        if let Err(error) = &outcome {
            self.record_refusal(call, AuditAction::SubjectErased, About::default(), error).await;
        }
        outcome
    }

    /// The receipt of an erasure as things stand now; `None`: the subject was not erased.
    pub async fn erasure_receipt(
        &self,
        call: &Call,
        tenant: &TenantId,
        subject: SubjectId,
    ) -> Result<Option<ErasureReceipt>, BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        Ok(self.vault().erasure_receipt(tenant, subject).await?)
    }

    async fn erase(&self, call: &Call, tenant: &TenantId, subject: SubjectId) -> Result<ErasureReceipt, BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        // What goes to the provider should be the newest refresh token, so a refresh on its way lands first. Whoever has
        // a record that cannot be read is erased all the same.
        for connection in self.vault().connections(tenant, subject, None).await.unwrap_or_default() {
            self.flights().join(&connection.value.id).await;
        }
        // In the log of whoever was erased: the trail of the operator's own tenant has nothing of other tenants.
        let record = AuditRecord {
            tenant: tenant.clone(),
            target: Some(AuditTarget::Subject(subject)),
            ..allowed(call, AuditAction::SubjectErased, About::default(), self.now())
        };
        // A task of its own: a caller who goes away does not leave a subject half erased.
        let (broker, tenant) = (self.clone(), tenant.clone());
        let erasing = self.0.tasks.spawn(async move {
            let list = &broker.settings().erasures;
            let erased = broker.vault().erase_subject(&tenant, subject, &record, list).await;
            broker.key_work().notify_one();
            broker.hub().wake(tenant, subject);
            erased
        });
        Ok(erasing.await.unwrap_or(Err(crate::vault::VaultError::OutcomeUnknown))?)
    }

    /// Finishes what an earlier process was interrupted in, and erases again in a store that was put back.
    pub(super) async fn replay_erasures(&self) -> Result<(), BrokerError> {
        match self.vault().replay_erasures(&self.settings().erasures, self.now()).await.map_err(BrokerError::from) {
            Ok(0) => Ok(()),
            Ok(erased) => {
                tracing::warn!(erased, "subjects on the list of erasures were still there, and are erased now");
                Ok(())
            }
            Err(BrokerError::StoreUnavailable) => Err(BrokerError::StoreUnavailable),
            Err(error) => {
                tracing::error!(%error, "the list of erasures could not be followed");
                Ok(())
            }
        }
    }

    pub(super) async fn is_erased(&self, tenant: &TenantId, subject: SubjectId) -> Result<bool, BrokerError> {
        Ok(self.vault().subject(tenant, subject).await?.is_some_and(|stored| stored.value.erased.is_some()))
    }

    /// Tokens that came for a subject who was erased meanwhile.
    pub(super) async fn return_to_provider(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
        provider: &ProviderId,
        tokens: &TokenSet,
    ) -> Result<(), BrokerError> {
        loop {
            let job = self.new_job(tenant, subject, JobKind::RevokeErased { provider: provider.clone() })?;
            let mut change = self.vault().change(tenant, None).await?;
            change.insert_job(&job, Some(tokens), self.now());
            match change.commit().await.map_err(BrokerError::from) {
                Err(BrokerError::Conflict) => {}
                other => return other.map(|_| ()),
            }
        }
    }
}
