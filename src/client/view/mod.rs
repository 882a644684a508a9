//! What a watcher knows: the messages of the status stream, folded into the present state of each credential. The rules
//! and their numbers are those of `docs/watch.md`.

use std::{collections::BTreeMap, mem};

use prost_types::Timestamp;

use crate::proto::v1::{
    CredentialEvent, CredentialEventKind as Kind, CredentialState, CredentialStatus, WatchBatch,
    WatchCredentialStatusResponse as Message, watch_credential_status_response::Body,
};

/// The present state of each credential, by its id.
///
/// It holds those that can be used, or will be again: what was revoked is gone from it at once, also while the provider
/// has yet to confirm. A snapshot replaces it as a whole, when it is complete.
#[derive(Clone, Debug, Default)]
pub struct View {
    statuses: BTreeMap<String, CredentialStatus>,
    /// Of the newest message that was applied. `None`: nothing was.
    revision: Option<u64>,
    /// What the snapshot under way has listed.
    listed: Vec<CredentialStatus>,
    /// Events of a revision whose last fragment has not come.
    fragments: Vec<CredentialEvent>,
}

/// What became of one credential.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// As it is now; of one that is gone, as it was at the end.
    pub status: CredentialStatus,
    pub cause: Cause,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Something happened to it, at that time.
    Event { kind: Kind, occurred_at: Option<Timestamp> },
    /// A snapshot lists it otherwise than it was known.
    Listed,
    /// A snapshot does not list it any more.
    NotListed,
}

impl View {
    /// Ordered by credential id.
    pub fn statuses(&self) -> impl ExactSizeIterator<Item = &CredentialStatus> {
        self.statuses.values()
    }

    pub fn get(&self, credential_id: &str) -> Option<&CredentialStatus> {
        self.statuses.get(credential_id)
    }

    /// Takes a message in, and says what it changed, in order. What was taken in before changes nothing again: a stream
    /// may repeat what one before it has sent.
    pub fn apply(&mut self, message: &Message) -> Vec<Change> {
        match &message.body {
            // Rule 15: what the stream before has left unfinished is void.
            Some(Body::Opened(_) | Body::Resync(_)) => {
                self.listed.clear();
                self.fragments.clear();
                Vec::new()
            }
            Some(Body::Snapshot(part)) => {
                self.listed.extend_from_slice(&part.statuses);
                Vec::new()
            }
            Some(Body::SnapshotEnd(_)) => self.replace(message.revision),
            Some(Body::Batch(batch)) => self.batch(message.revision, batch),
            Some(Body::Progress(_) | Body::Drain(_)) | None => Vec::new(),
        }
    }

    fn replace(&mut self, revision: u64) -> Vec<Change> {
        // Rule 12: a restored broker counts from another place.
        self.revision = Some(revision);
        let mut before = mem::take(&mut self.statuses);
        let mut changes = Vec::new();
        for status in mem::take(&mut self.listed).into_iter().filter(|status| !is_stopped(status)) {
            if before.remove(&status.credential_id).as_ref() != Some(&status) {
                changes.push(Change { status: status.clone(), cause: Cause::Listed });
            }
            self.statuses.insert(status.credential_id.clone(), status);
        }
        changes.extend(before.into_values().map(|status| Change { status, cause: Cause::NotListed }));
        changes
    }

    fn batch(&mut self, revision: u64, batch: &WatchBatch) -> Vec<Change> {
        if self.revision.is_some_and(|applied| revision <= applied) {
            return Vec::new();
        }
        self.fragments.extend_from_slice(&batch.events);
        if batch.more_follows {
            return Vec::new();
        }
        self.revision = Some(revision);
        mem::take(&mut self.fragments).into_iter().filter_map(|event| self.event(event)).collect()
    }

    fn event(&mut self, event: CredentialEvent) -> Option<Change> {
        let kind = event.kind();
        let status = event.status?;
        let known = self.statuses.get(&status.credential_id);
        if matches!(kind, Kind::Revoked | Kind::Erased | Kind::AccessLost) || is_stopped(&status) {
            self.statuses.remove(&status.credential_id);
        } else if known.is_some_and(|known| known.generation > status.generation) {
            // Rule 10: it would call back a secret that was replaced.
            return None;
        } else {
            self.statuses.insert(status.credential_id.clone(), status.clone());
        }
        Some(Change { status, cause: Cause::Event { kind, occurred_at: event.occurred_at } })
    }
}

fn is_stopped(status: &CredentialStatus) -> bool {
    matches!(status.state(), CredentialState::Revoking | CredentialState::Revoked)
}

#[cfg(test)]
mod tests;
