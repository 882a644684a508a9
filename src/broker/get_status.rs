//! How the broker and its store are, for operators.

use std::time::Duration;

use super::{BackupSummary, Broker, BrokerError, trail::About};
use crate::{
    domain::{AuditAction, Call, KeyId, KeyRotation, ProviderId, Refusal, Timestamp},
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
    /// `None` while the store is unavailable.
    pub root_key: Option<KeyId>,
    /// Everything that is being rotated, as one; also `None` while the store is unavailable.
    pub rotation: Option<KeyRotation>,
    /// How often since the start the store held what was not written there, or a provider was found to refuse us.
    pub alarms: u64,
    /// The providers that refuse our registration now.
    pub refused: Vec<(ProviderId, Refusal)>,
}

impl Broker {
    /// Answers while the store is unavailable, too: that is when an operator asks.
    pub async fn get_status(&self, call: &Call) -> Result<Status, BrokerError> {
        match self.status_with_keys(call).await {
            Ok(status) => Ok(status),
            // The chain refuses a caller without the role before it looks into the store.
            Err(BrokerError::StoreUnavailable) => Ok(self.status()),
            // A damaged row among the keys: the count of alarms is what the operator needs to see.
            Err(BrokerError::Vault(error)) => {
                tracing::error!(%error, "the keys cannot be read");
                Ok(self.status())
            }
            Err(error) => {
                self.record_refusal(call, AuditAction::StatusRead, About::default(), &error).await;
                Err(error)
            }
        }
    }

    async fn status_with_keys(&self, call: &Call) -> Result<Status, BrokerError> {
        let rotation = self.key_rotation(call).await?;
        let root_key = Some(self.vault().root_key()?);
        self.record_read(call, AuditAction::StatusRead, About::default(), "").await?;
        Ok(Status { root_key, rotation, ..self.status() })
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
            root_key: None,
            rotation: None,
            alarms: self.alarms(),
            refused: self.refused(),
        }
    }
}
