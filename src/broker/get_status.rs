//! How the broker and its store are, for operators.

use std::time::Duration;

use super::{BackupSummary, Broker, BrokerError, trail::About};
use crate::{
    domain::{AuditAction, Call, Role, Timestamp},
    store::Head,
};

#[derive(Clone, Debug)]
pub struct Status {
    pub version: &'static str,
    pub started_at: Timestamp,
    pub uptime: Duration,
    pub ready: bool,
    pub head: Head,
    pub backup_running: bool,
    /// The last one that this process finished.
    pub last_backup: Option<BackupSummary>,
}

impl Broker {
    /// Answers while the store is unavailable, too: that is when an operator asks.
    pub async fn get_status(&self, call: &Call) -> Result<Status, BrokerError> {
        let recorded = match self.authorize_session(call, Role::Operator).await {
            Ok(()) => self.record_read(call, AuditAction::StatusRead, About::default(), "").await,
            Err(error) => Err(error),
        };
        match recorded {
            // The chain refuses a caller without the role before it looks into the store.
            Ok(()) | Err(BrokerError::StoreUnavailable) => Ok(self.status()),
            Err(error) => {
                self.record_refusal(call, AuditAction::StatusRead, About::default(), &error).await;
                Err(error)
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.0.started_at,
            uptime: self.now() - self.0.started_at,
            ready: self.is_ready(),
            head: self.vault().store().head(),
            backup_running: self.backups().is_running(),
            last_backup: self.backups().last(),
        }
    }
}
