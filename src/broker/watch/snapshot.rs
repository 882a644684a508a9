//! The state as of one revision, without stopping the world: scan, then apply what was logged meanwhile.

use std::collections::BTreeMap;

use super::WatchFilter;
use crate::{
    broker::{Broker, BrokerError},
    domain::{Caller, CredentialId, CredentialStatus, EventKind, Revision},
    events::{Owner, Read},
};

impl Broker {
    /// The caller's credentials as of the returned revision. What is not listed does not exist for this caller.
    ///
    /// The scan may see some rows before and some after a change; every change after R0 is in the log, so applying
    /// (R0, R1] makes the view exact at R1.
    pub(super) async fn snapshot(
        &self,
        caller: &Caller,
        filter: &WatchFilter,
    ) -> Result<(Revision, Vec<CredentialStatus>), BrokerError> {
        loop {
            if let Some(snapshot) = self.try_snapshot(caller, filter).await? {
                return Ok(snapshot);
            }
        }
    }

    /// `None`: the log was compacted before it was read.
    async fn try_snapshot(
        &self,
        caller: &Caller,
        filter: &WatchFilter,
    ) -> Result<Option<(Revision, Vec<CredentialStatus>)>, BrokerError> {
        let mut cursor = self.hub().announced();
        let scanned = self.vault().connections(&caller.tenant, caller.subject, None).await?;
        let mut statuses: BTreeMap<CredentialId, CredentialStatus> = scanned
            .iter()
            .filter(|stored| !stored.value.withheld)
            .map(|stored| self.status_of(&stored.value))
            .map(|status| (status.credential, status))
            .collect();
        let end = self.caught_up().await?;
        while cursor < end {
            let read = self.hub().after(&owner(caller), cursor).await?;
            let Read::Revisions { revisions, complete } = read else { return Ok(None) };
            for event in revisions.iter().filter(|logged| logged.revision <= end).flat_map(|logged| &logged.events) {
                if event.tenant != caller.tenant || event.status.subject != caller.subject {
                    continue;
                }
                match event.kind {
                    EventKind::AccessLost => statuses.remove(&event.status.credential),
                    _ => statuses.insert(event.status.credential, event.status.clone()),
                };
            }
            cursor = complete;
        }
        // Watchers were told of its end when it was stopped, not when the provider confirmed it.
        let catalog = self.catalog();
        let is_shown = |status: &CredentialStatus| catalog.lets_see(status) && filter.shows(status);
        statuses.retain(|_, status| !status.state.is_stopped() && is_shown(status));
        Ok(Some((end, statuses.into_values().collect())))
    }

    /// Waits until the hub has announced everything that is durable now.
    pub(super) async fn caught_up(&self) -> Result<Revision, BrokerError> {
        let durable = self.vault().store().head().revision;
        let mut announced = self.hub().subscribe();
        tokio::select! {
            caught_up = announced.wait_for(|revision| *revision >= durable) => {
                caught_up.map(|revision| *revision).map_err(|_| BrokerError::ShuttingDown)
            }
            () = self.stopping().cancelled() => Err(BrokerError::ShuttingDown),
        }
    }
}

fn owner(caller: &Caller) -> Owner {
    (caller.tenant.clone(), caller.subject)
}
