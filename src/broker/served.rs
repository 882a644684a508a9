//! Providers that come and go with the configuration, and their credentials with them: out of sight at once, and on
//! record for each owner a little later.
//!
//! That a connection is withheld stands in its record, and changes with the event that says so. Whatever else happens to
//! it is committed before that or after it, and is announced or not by what the record says then: between `ACCESS_LOST`
//! and `ACCESS_GAINED` the log has nothing of it.

use std::{collections::BTreeSet, time::Duration};

use super::{Broker, BrokerError, Catalog, telling::PAGE};
use crate::{
    domain::{CredentialEvent, ServedProviders, Timestamp, installation_tenant},
    vault::{Change, ConnectionPage, Tokens},
};

/// Until what could not be told is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Broker {
    /// At the start: the configuration may be another one than when the last process ended, or that one was interrupted.
    pub(super) async fn review_served(&self) -> Result<(), BrokerError> {
        loop {
            let mut change = self.vault().change(&installation_tenant(), None).await?;
            if self.put_served(&mut change, &self.catalog()).await? {
                match change.commit().await.map_err(BrokerError::from) {
                    Err(BrokerError::Conflict) => continue,
                    other => other?,
                };
            }
            self.begin_telling();
            return Ok(());
        }
    }

    /// Puts on record, with a new configuration, what is to be told of it; false: it has the same providers.
    pub(super) async fn put_served(&self, change: &mut Change, catalog: &Catalog) -> Result<bool, BrokerError> {
        let providers: BTreeSet<_> = catalog.providers.keys().cloned().collect();
        let stored = self.vault().served_providers().await?;
        let next = match &stored {
            None => Some(ServedProviders::first(providers)),
            Some(stored) => stored.value.replaced_by(providers),
        };
        if let Some(next) = &next {
            change.put_served_providers(stored.as_ref(), next);
        }
        Ok(next.is_some())
    }

    /// Something was connected at a provider that was taken out meanwhile: those who tell may have passed its place.
    pub(super) async fn connected_too_late(&self) -> Result<(), BrokerError> {
        loop {
            let Some(stored) = self.vault().served_providers().await? else { return Ok(()) };
            let mut change = self.vault().change(&stored.value.tenant, None).await?;
            change.put_served_providers(Some(&stored), &stored.value.once_more());
            match change.commit().await.map_err(BrokerError::from) {
                Err(BrokerError::Conflict) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    self.begin_telling();
                    return Ok(());
                }
            }
        }
    }

    /// In a task of its own: a hundred thousand connections take a while, and a reload does not wait for it.
    pub(super) fn begin_telling(&self) {
        let broker = self.clone();
        self.0.tasks.spawn(async move {
            while let Err(error) = broker.tell_of_access().await {
                tracing::warn!(%error, "that providers were taken out or put in could not be told; it is tried again");
                tokio::select! {
                    () = broker.clock().sleep_until(broker.now().plus(AGAIN)) => {}
                    () = broker.stopping().cancelled() => return,
                }
            }
        });
    }

    async fn tell_of_access(&self) -> Result<(), BrokerError> {
        while self.goes_on(self.tell_page_of_access().await)? {}
        Ok(())
    }

    async fn tell_page_of_access(&self) -> Result<bool, BrokerError> {
        let stored = self.vault().served_providers().await?;
        let Some(stored) = stored.filter(|stored| !stored.value.is_told()) else { return Ok(false) };
        let (page, now) = (self.page_with_changes(&stored.value).await?, self.now());
        let mut change = self.vault().change(&stored.value.tenant, None).await?;
        for (_, found) in &page.connections {
            let Some(next) = stored.value.change_of(&found.value) else { continue };
            // Whoever is being erased hears of that.
            if !change.admit(&found.value.tenant, found.value.subject).await? {
                continue;
            }
            let due = found.due().unwrap_or(Timestamp::NEVER);
            change.update_connection(found, &next.connection, Tokens::Keep, due);
            if let Some(kind) = next.event {
                let (tenant, status) = (found.value.tenant.clone(), self.status_of(&next.connection));
                change.event(&CredentialEvent { kind, tenant, occurred_at: now, status });
            }
        }
        change.put_served_providers(Some(&stored), &stored.value.told_to(page.end));
        change.commit().await?;
        Ok(true)
    }

    /// The next page on which there is something to tell, or the last one.
    async fn page_with_changes(&self, served: &ServedProviders) -> Result<ConnectionPage, BrokerError> {
        let mut page = self.vault().every_connection(served.told.position(), PAGE).await?;
        while page.end.is_some() && page.connections.iter().all(|(_, found)| served.change_of(&found.value).is_none()) {
            page = self.vault().every_connection(page.end.as_ref(), PAGE).await?;
        }
        Ok(page)
    }
}
