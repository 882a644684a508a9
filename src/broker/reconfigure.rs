//! Another configuration while calls are served: on record first, then in force.

use std::sync::Arc;

use super::{Broker, BrokerError, Catalog};
use crate::domain::{
    AuditAction, AuditRecord, AuditResult, Configuration, ConfigurationDigest, Reason, installation_tenant,
};

impl Broker {
    /// Puts the configuration on record and then its definitions in force, for calls that begin from now on. Gives its
    /// version. With an error the old definitions stay in force.
    pub async fn reconfigure(&self, catalog: Arc<Catalog>, digest: ConfigurationDigest) -> Result<u64, BrokerError> {
        let version = self.put_on_record(digest, &catalog).await?;
        self.0.catalog.store(catalog);
        // Whoever may not go on learns it now, not with their next event.
        self.hub().wake_all();
        self.begin_telling();
        if let Err(error) = self.review_suspensions().await {
            // The new definitions are in force all the same; the next refresh that succeeds ends a suspension.
            tracing::error!(%error, "suspended providers could not be looked through");
        }
        Ok(version)
    }

    /// Puts the configuration that this process was started with on record, unless it is the one that is there. Gives
    /// its version.
    pub async fn record_configuration(&self, digest: ConfigurationDigest) -> Result<u64, BrokerError> {
        match self.vault().configuration().await? {
            Some(stored) if stored.value.digest == digest => Ok(stored.value.version),
            _ => self.put_on_record(digest, &self.catalog()).await,
        }
    }

    /// Records that a configuration was refused; the one of `version` stays in force.
    pub async fn record_configuration_refused(&self) -> Result<(), BrokerError> {
        let version = self.vault().configuration().await?.map(|stored| stored.value.version);
        let mut change = self.vault().change(&installation_tenant(), None).await?;
        change.audit(&self.changed(AuditResult::Refused, version));
        change.commit().await?;
        Ok(())
    }

    async fn put_on_record(&self, digest: ConfigurationDigest, catalog: &Catalog) -> Result<u64, BrokerError> {
        loop {
            match self.try_put_on_record(digest, catalog).await {
                // Watchers are being told of the one before.
                Err(BrokerError::Conflict) => {}
                other => return other,
            }
        }
    }

    async fn try_put_on_record(&self, digest: ConfigurationDigest, catalog: &Catalog) -> Result<u64, BrokerError> {
        let stored = self.vault().configuration().await?;
        let configuration = Configuration {
            tenant: installation_tenant(),
            version: stored.as_ref().map_or(0, |stored| stored.value.version) + 1,
            digest,
            since: self.now(),
        };
        let mut change = self.vault().change(&configuration.tenant, None).await?;
        change.put_configuration(stored.as_ref(), &configuration);
        self.put_served(&mut change, catalog).await?;
        change.audit(&self.changed(AuditResult::Allowed, Some(configuration.version)));
        change.commit().await?;
        Ok(configuration.version)
    }

    fn changed(&self, result: AuditResult, version: Option<u64>) -> AuditRecord {
        AuditRecord {
            result,
            reason: (result == AuditResult::Refused).then_some(Reason::InvalidArgument),
            generation: version,
            ..AuditRecord::by_broker(installation_tenant(), AuditAction::ConfigurationChanged, self.now())
        }
    }
}
