//! The state as of one revision, without stopping the world: scan, then apply what was logged meanwhile.

use std::{collections::BTreeMap, panic::resume_unwind, sync::Arc};

use tokio_util::task::AbortOnDropHandle;

use super::WatchFilter;
use crate::{
    broker::{Broker, BrokerError},
    domain::{Caller, CredentialId, CredentialStatus, EventKind, Revision, Timestamp},
    events::{Owner, Read, WrittenStatus},
};

/// A snapshot that is waited for. It goes on whether or not its stream is polled, so that its turn is soon another's,
/// and ends with it.
pub(super) struct Making {
    made: AbortOnDropHandle<Result<(Revision, Vec<WrittenStatus>), BrokerError>>,
    /// When the stream ends without it.
    pub(super) until: Timestamp,
}

impl Making {
    pub(super) async fn made(&mut self) -> Result<(Revision, Vec<WrittenStatus>), BrokerError> {
        (&mut self.made).await.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(BrokerError::ShuttingDown),
        })
    }
}

impl Broker {
    pub(super) fn make_snapshot(&self, caller: &Arc<Caller>, filter: &WatchFilter, until: Timestamp) -> Making {
        let (broker, caller, filter) = (self.clone(), Arc::clone(caller), filter.clone());
        let making = tokio::spawn(async move {
            let _turn = broker.quota().snapshot_turn(owner(&caller)).await;
            let (revision, statuses) = broker.snapshot(&caller, &filter).await?;
            let wire = broker.hub().wire();
            Ok((revision, statuses.into_iter().map(|status| wire.status(status)).collect()))
        });
        Making { made: AbortOnDropHandle::new(making), until }
    }

    /// The caller's credentials as of the returned revision. What is not listed does not exist for this caller.
    ///
    /// The scan may see some rows before and some after a change; every change after R0 is in the log, so applying
    /// (R0, R1] makes the view exact at R1.
    async fn snapshot(
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
            biased;
            () = self.stopping().cancelled() => Err(BrokerError::ShuttingDown),
            caught_up = announced.wait_for(|revision| *revision >= durable) => {
                caught_up.map(|revision| *revision).map_err(|_| BrokerError::ShuttingDown)
            }
        }
    }
}

fn owner(caller: &Caller) -> Owner {
    (caller.tenant.clone(), caller.subject)
}
