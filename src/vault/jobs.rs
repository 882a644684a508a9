//! Follow-up jobs, and what is due when.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Stored, SuspensionKey, TokenSet, Vault, VaultError, place};
use crate::{
    domain::{ConnectionId, FlowId, Job, JobId, Timestamp},
    store::{IndexEntry, IndexKind, RecordKind},
};

/// Names a stored attempt without its `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttemptKey([u8; 32]);

/// A record whose next action has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub at: Timestamp,
    pub record: DueRecord,
    /// The row's version as of the write that set the time. A row that is older was rolled back.
    pub witness: u64,
    key: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DueRecord {
    Connection(ConnectionId),
    /// Can be forgotten.
    Flow(FlowId),
    /// Can be forgotten.
    Attempt(AttemptKey),
    Job(JobId),
    /// Its connections are to be told.
    Suspension(SuspensionKey),
}

impl AttemptKey {
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Vault {
    pub async fn job(&self, id: JobId) -> Result<Option<Stored<Job>>, VaultError> {
        let stored = self.read::<Job>(place::job_row(id)).await?;
        Ok(stored.filter(|job| job.value.id == id))
    }

    /// The tokens sealed in the job; `None` when it carries none.
    pub async fn job_tokens(&self, job: &Stored<Job>) -> Result<Option<TokenSet>, VaultError> {
        match &job.parked {
            Some(parked) => self.tokens(job, parked.version).await,
            None => Ok(None),
        }
    }

    /// What is due at or before `until`, earliest first, at most `limit`.
    pub async fn due(&self, until: Timestamp, limit: usize) -> Result<Vec<Due>, VaultError> {
        self.due_page(None, until, limit).await
    }

    /// As [`Vault::due`], after one that was returned: records that cannot be worked on now, and so stay due, hide
    /// nothing behind them.
    pub async fn due_after(&self, last: &Due, until: Timestamp, limit: usize) -> Result<Vec<Due>, VaultError> {
        self.due_page(Some(last.key.clone()), until, limit).await
    }

    /// Whether the record is still due at that time.
    pub async fn is_due(&self, due: &Due) -> Result<bool, VaultError> {
        Ok(!self.store().index(IndexKind::Due, due.key.clone(), None, 1).await?.is_empty())
    }

    /// Says that what is due is about to be read: from here on every commit that makes something due is noticed.
    pub fn begin_planning(&self) {
        self.planned().at.store(i64::MAX, Ordering::SeqCst);
    }

    /// Completes when a commit has made something due before `planned`, since [`Vault::begin_planning`].
    pub async fn due_before(&self, planned: Timestamp) {
        self.planned().at.store(planned.as_millis(), Ordering::SeqCst);
        self.planned().sooner.notified().await;
    }

    async fn due_page(&self, after: Option<Bytes>, until: Timestamp, limit: usize) -> Result<Vec<Due>, VaultError> {
        let entries = self.store().index(IndexKind::Due, Bytes::new(), after, limit).await?;
        let due = entries.into_iter().map(|entry| Due::read(&entry).ok_or_else(|| VaultError::corrupt(&entry.record)));
        self.watched(due.take_while(|due| due.as_ref().map_or(true, |due| due.at <= until)).collect())
    }
}

/// When the scheduler means to look again, so that a commit that makes something due earlier can wake it.
pub(super) struct Planned {
    at: AtomicI64,
    sooner: Notify,
}

impl Default for Planned {
    /// No plan yet: everything is earlier.
    fn default() -> Self {
        Self { at: AtomicI64::new(i64::MAX), sooner: Notify::new() }
    }
}

impl Planned {
    /// Called after a commit that made something due at `at`.
    pub(super) fn committed(&self, at: Timestamp) {
        if at.as_millis() < self.at.load(Ordering::SeqCst) {
            self.sooner.notify_one();
        }
    }
}

impl Due {
    fn read(entry: &IndexEntry) -> Option<Self> {
        let id = entry.record.id().as_ref();
        let record = match entry.record.kind() {
            RecordKind::Connection => DueRecord::Connection(ConnectionId::from_bytes(id.try_into().ok()?)),
            RecordKind::Flow => DueRecord::Flow(FlowId::from_bytes(id.try_into().ok()?)),
            RecordKind::Attempt => DueRecord::Attempt(AttemptKey(id.try_into().ok()?)),
            RecordKind::Job => DueRecord::Job(JobId::from_bytes(id.try_into().ok()?)),
            RecordKind::Suspension => DueRecord::Suspension(SuspensionKey(id.try_into().ok()?)),
            RecordKind::Installation
            | RecordKind::Key
            | RecordKind::Tenant
            | RecordKind::Subject
            | RecordKind::Configuration
            | RecordKind::RootKeys
            | RecordKind::Holders => return None,
        };
        let witness = u64::from_be_bytes(entry.value.as_ref().try_into().ok()?);
        Some(Self { at: entry.due_at()?, record, witness, key: entry.key.clone() })
    }
}
