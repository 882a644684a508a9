//! The trail as a whole: where it begins since its oldest records reached the end of their retention, and whether it
//! holds from there to its end.

use super::{Break, Position, check};
use crate::{
    domain::AuditAction,
    vault::{TrailEntry, Vault, VaultError},
};

/// Records read at a time.
const PAGE: u64 = 512;

/// The trail does not hold, or could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    #[error("the audit trail was changed behind the broker's back: keep a copy of the store and look at who could")]
    Broken(#[from] Break),
    /// Records are gone and none of those that are left says through which.
    #[error("audit records up to {purged} are gone and no checkpoint says so: keep a copy of the store")]
    NoCheckpoint { purged: u64 },
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Where the trail begins: `None` before its first record, else where its newest checkpoint says that it was cut off.
/// Whoever checks the chain from there checks the checkpoint with it.
pub async fn beginning(vault: &Vault) -> Result<Option<Position>, TrailError> {
    let head = vault.store().head();
    if head.audit_purged == 0 {
        return Ok(None);
    }
    // Each removal leaves a checkpoint, so the newest is near the end.
    let mut end = head.audit;
    while end > head.audit_purged {
        let start = end.saturating_sub(PAGE).max(head.audit_purged);
        let page = vault.trail(start, (end - start) as usize).await?;
        if let Some(purged) = page.iter().rev().find_map(checkpoint) {
            return Ok(Some(purged));
        }
        end = start;
    }
    Err(TrailError::NoCheckpoint { purged: head.audit_purged })
}

/// Checks the chain of the whole trail and says where it ends; `None`: nothing was ever recorded.
pub async fn verify(vault: &Vault) -> Result<Option<Position>, TrailError> {
    let mut position = beginning(vault).await?;
    loop {
        let after = position.map_or(0, |position| position.sequence);
        let page = vault.store().audit(after, PAGE as usize).await.map_err(VaultError::from)?;
        if page.is_empty() {
            return Ok(position);
        }
        let checked = check(vault.keys().audit(), position, page.iter().map(|entry| &entry.linked[..]));
        // What was removed in good order since `position` was asked for is not missing.
        let overtaken = checked.is_err() && vault.store().head().audit_purged > after;
        position = if overtaken { beginning(vault).await? } else { checked? };
    }
}

fn checkpoint(entry: &TrailEntry) -> Option<Position> {
    let record = entry.record.as_ref().ok()?;
    record.purged.filter(|_| record.action == AuditAction::AuditPurged)
}
