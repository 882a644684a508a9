//! The whole store as one sealed archive, while everything else goes on.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{Broker, BrokerError, trail, trail::About};
use crate::{
    archive::{Header, Writer},
    domain::{AuditAction, AuditRecord, AuditResult, Call, Revision, Role, Timestamp},
    sealing::{AssociatedData, Key, RandomUnavailable},
    store::{Copied, CopyError, StoreError},
    vault::VaultError,
};

/// What is known of backups in this process. There is one at a time: each reads the whole store.
pub(super) struct Backups {
    turn: Arc<Semaphore>,
    last: Mutex<Option<BackupSummary>>,
}

/// A finished backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    pub finished_at: Timestamp,
    /// The revision that it shows.
    pub revision: Revision,
    /// Rows in the archive, those that were replaced while it was taken included.
    pub rows: u64,
    /// The archive's length in bytes.
    pub bytes: u64,
}

/// A part of an archive, and how far it has come.
#[derive(Clone)]
pub struct BackupPart {
    /// The archive's next bytes, a chunk at most.
    pub archive: Bytes,
    /// Rows copied so far.
    pub rows: u64,
    /// With the last part alone: the archive is whole.
    pub end: Option<BackupSummary>,
}

/// Parts that wait for a slow reader, a chunk each.
const AHEAD: usize = 8;

impl Default for Backups {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), last: Mutex::default() }
    }
}

impl Backups {
    pub(super) fn is_running(&self) -> bool {
        self.turn.available_permits() == 0
    }

    pub(super) fn last(&self) -> Option<BackupSummary> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self, summary: Option<BackupSummary>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = summary;
    }

    fn take_turn(&self) -> Result<OwnedSemaphorePermit, BrokerError> {
        Arc::clone(&self.turn).try_acquire_owned().map_err(|_| BrokerError::BackupRunning)
    }
}

impl Broker {
    /// Begins to copy the store. The parts come as they are read, and no faster than they are taken; whoever drops them
    /// stops the copying.
    pub async fn create_backup(
        &self,
        call: &Call,
    ) -> Result<impl Stream<Item = Result<BackupPart, BrokerError>> + Send + use<>, BrokerError> {
        match self.begin_backup(call).await {
            Ok(parts) => Ok(parts),
            Err(error) => {
                self.record_refusal(call, AuditAction::BackupBegun, About::default(), &error).await;
                Err(error)
            }
        }
    }

    async fn begin_backup(&self, call: &Call) -> Result<ReceiverStream<Result<BackupPart, BrokerError>>, BrokerError> {
        self.authorize_session(call, Role::Operator).await?;
        let turn = self.backups().take_turn()?;
        // No window: who took everything, and when, must stand there before the first byte leaves.
        self.record_backup(call, AuditAction::BackupBegun, AuditResult::Allowed, None).await?;
        let (sender, parts) = mpsc::channel(AHEAD);
        let backup = Backup { broker: self.clone(), call: call.clone(), parts: sender, bytes: 0 };
        self.0.tasks.spawn(async move {
            backup.run().await;
            drop(turn);
        });
        Ok(ReceiverStream::new(parts))
    }

    async fn record_backup(
        &self,
        call: &Call,
        action: AuditAction,
        result: AuditResult,
        revision: Option<Revision>,
    ) -> Result<(), BrokerError> {
        let record = trail::allowed(call, action, About::default(), self.now());
        let record = AuditRecord { result, generation: revision.map(|revision| revision.0), ..record };
        let mut change = self.vault().change(&call.caller.tenant, None).await?;
        change.audit(&record);
        change.commit().await?;
        Ok(())
    }
}

/// One backup under way.
struct Backup {
    broker: Broker,
    call: Call,
    parts: mpsc::Sender<Result<BackupPart, BrokerError>>,
    bytes: u64,
}

/// Why a backup did not come to its end.
enum Unfinished {
    Failed(BrokerError),
    /// Nobody wants the rest.
    Abandoned,
}

impl Backup {
    async fn run(mut self) {
        let (broker, parts) = (self.broker.clone(), self.parts.clone());
        let outcome = tokio::select! {
            outcome = self.copy() => outcome,
            () = broker.stopping().cancelled() => Err(Unfinished::Failed(BrokerError::ShuttingDown)),
            () = parts.closed() => Err(Unfinished::Abandoned),
        };
        let (result, revision) = match &outcome {
            Ok(last) => (AuditResult::Allowed, last.end.map(|end| end.revision)),
            Err(_) => (AuditResult::Failed, None),
        };
        if let Err(error) = broker.record_backup(&self.call, AuditAction::BackupEnded, result, revision).await {
            tracing::error!(request.id = self.call.request_id.as_str(), %error, "the end of a backup could not be audited");
        }
        let last = match outcome {
            Ok(last) => {
                broker.backups().finished(last.end);
                Ok(last)
            }
            Err(Unfinished::Failed(error)) => Err(error),
            Err(Unfinished::Abandoned) => return,
        };
        match last {
            // Whoever is gone by now has all but the end, and will not take it for whole.
            Ok(_) => drop(self.parts.send(last).await),
            // A reader who stands still, which may be why, must not keep the turn nor the shutdown waiting.
            Err(_) => drop(self.parts.try_send(last)),
        }
    }

    /// Sends everything but the last part, which it gives.
    async fn copy(&mut self) -> Result<BackupPart, Unfinished> {
        let vault = self.broker.vault().clone();
        let head = vault.store().head();
        let header = Header {
            made_at: self.broker.now(),
            installation: head.installation,
            epoch: head.epoch,
            begun_at: head.revision,
        };
        let wrap = |place: &AssociatedData<'_>, key: &Key| vault.wrap_under_root(place, key);
        let (mut writer, first) = Writer::begin(&header, wrap, vault.random().clone())?;
        self.send(first, 0).await?;
        let mut copying = vault.store().copy().await?;
        let head = loop {
            match copying.next().await.ok_or(StoreError::Unavailable)?? {
                Copied::Rows(rows) => {
                    for chunk in writer.add(&rows)? {
                        self.send(chunk, writer.rows()).await?;
                    }
                }
                Copied::End { head } => break head,
            }
        };
        let (mut chunks, end) = writer.finish(&head)?;
        let last = chunks.pop().expect("an archive ends with a chunk");
        for chunk in chunks {
            self.send(chunk, end.rows).await?;
        }
        let end = BackupSummary {
            finished_at: self.broker.now(),
            revision: end.revision,
            rows: end.rows,
            bytes: self.bytes + last.len() as u64,
        };
        Ok(BackupPart { archive: last, rows: end.rows, end: Some(end) })
    }

    async fn send(&mut self, archive: Bytes, rows: u64) -> Result<(), Unfinished> {
        self.bytes += archive.len() as u64;
        let part = BackupPart { archive, rows, end: None };
        self.parts.send(Ok(part)).await.map_err(|_| Unfinished::Abandoned)
    }
}

impl From<VaultError> for Unfinished {
    fn from(error: VaultError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<StoreError> for Unfinished {
    fn from(error: StoreError) -> Self {
        VaultError::from(error).into()
    }
}

impl From<CopyError> for Unfinished {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Store(error) => error.into(),
            CopyError::Outrun { .. } => Self::Failed(BrokerError::BackupOutrun),
        }
    }
}

impl From<RandomUnavailable> for Unfinished {
    fn from(error: RandomUnavailable) -> Self {
        Self::Failed(error.into())
    }
}
