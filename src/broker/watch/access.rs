//! May the stream go on? What was answered when it was opened is asked again for each message that is about to leave:
//! what stands in a queue was allowed when it was put there, and need not be any more.

use std::sync::Arc;

use super::{WatchFilter, WatchMessage};
use crate::{
    broker::{Broker, BrokerError, Catalog},
    domain::{Caller, CredentialEvent, CredentialStatus, EventKind, Link, Reason, Revision, Role},
    events::{LoggedEvent, Read},
};

/// What is known of one stream's authorization.
pub(super) struct Access {
    caller: Arc<Caller>,
    /// In force when it was last asked.
    catalog: Arc<Catalog>,
    /// The log's head then; while both are the same, so is the answer.
    asked_at: Option<Revision>,
    erased: bool,
    /// A fragment has left, and the rest of its revision has not.
    is_within: bool,
}

/// How the caller stands.
pub(super) enum Standing {
    Allowed,
    /// Nothing may leave any more but that their credentials were erased.
    Erased,
    Refused(BrokerError),
}

impl Access {
    pub(super) fn new(broker: &Broker, caller: &Arc<Caller>) -> Self {
        let (caller, catalog) = (Arc::clone(caller), broker.catalog());
        Self { caller, catalog, asked_at: None, erased: false, is_within: false }
    }

    /// # Errors
    /// It could not be found out, so nothing may leave.
    pub(super) async fn ask(&mut self, broker: &Broker) -> Result<Standing, BrokerError> {
        if broker.now() >= self.caller.expires_at {
            let reason = Reason::TokenExpired;
            return Ok(Standing::Refused(BrokerError::Refused { link: Link::Session, reason }));
        }
        // Before the subject is read: a change that comes in between has another head, and is asked for again.
        let (head, catalog) = (broker.hub().head().revision, broker.catalog());
        if self.asked_at != Some(head) || !Arc::ptr_eq(&self.catalog, &catalog) {
            let subject = match broker.session(&self.caller, Role::User).await {
                Err(refused @ BrokerError::Refused { .. }) => return Ok(Standing::Refused(refused)),
                other => other?,
            };
            self.erased = subject.is_some_and(|stored| stored.value.erased.is_some());
            (self.asked_at, self.catalog) = (Some(head), catalog);
        }
        Ok(if self.erased { Standing::Erased } else { Standing::Allowed })
    }

    /// Whether the client has only a part of a revision.
    pub(super) fn is_within_revision(&self) -> bool {
        self.is_within
    }

    /// What may leave of a message now; `None`: nothing.
    pub(super) fn pass(&mut self, message: WatchMessage) -> Option<WatchMessage> {
        match message {
            WatchMessage::Batch { revision, mut events, token } => {
                events.retain(|event| self.catalog.lets_hear(event));
                // Whoever has a part of a revision waits for its last fragment, though nothing is left in it.
                let ends = self.is_within && token.is_some();
                self.is_within = token.is_none() && (self.is_within || !events.is_empty());
                (ends || !events.is_empty()).then_some(WatchMessage::Batch { revision, events, token })
            }
            WatchMessage::Snapshot { revision, mut statuses } => {
                statuses.retain(|status| self.catalog.lets_see(status));
                (!statuses.is_empty()).then_some(WatchMessage::Snapshot { revision, statuses })
            }
            other => Some(other),
        }
    }
}

impl Catalog {
    /// Whether the credential may be shown to its owner. One of a provider that was taken out is nobody's to see, from
    /// that moment on; that this is so is logged for each (`ACCESS_LOST`) a little later.
    pub(super) fn lets_see(&self, status: &CredentialStatus) -> bool {
        self.providers.contains_key(&status.provider)
    }

    /// An end is told whatever was taken out: missing it means using a dead token.
    fn lets_hear(&self, event: &CredentialEvent) -> bool {
        matches!(event.kind, EventKind::AccessLost | EventKind::Revoked | EventKind::Erased)
            || self.lets_see(&event.status)
    }
}

impl Broker {
    /// Waits until an erasure is at its end, and gives what it has told after a position; `None`: ask again later.
    pub(super) async fn erased_after(
        &self,
        caller: &Caller,
        filter: &WatchFilter,
        mut cursor: Revision,
    ) -> Result<Option<Vec<(Revision, Vec<LoggedEvent>)>>, BrokerError> {
        let (head, tenant, subject) = (self.hub().head().revision, &caller.tenant, caller.subject);
        if !self.vault().is_subject_gone(tenant, subject).await? {
            let mut announced = self.hub().subscribe();
            return tokio::select! {
                _ = announced.wait_for(|revision| *revision > head) => Ok(None),
                () = self.clock().sleep_until(caller.expires_at) => Ok(None),
                () = self.stopping().cancelled() => Ok(Some(Vec::new())),
            };
        }
        let (end, mut told) = (self.caught_up().await?, Vec::new());
        while cursor < end {
            let read = self.hub().after(&(tenant.clone(), subject), cursor).await?;
            let Read::Revisions { revisions, complete } = read else { break };
            for logged in revisions {
                let of_theirs = |event: &&LoggedEvent| {
                    event.kind == EventKind::Erased
                        && (&event.tenant, event.status.subject) == (tenant, subject)
                        && filter.passes(event)
                };
                let events: Vec<_> = logged.events.iter().filter(of_theirs).cloned().collect();
                told.extend((!events.is_empty()).then_some((logged.revision, events)));
            }
            cursor = complete;
        }
        Ok(Some(told))
    }
}
