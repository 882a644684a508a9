//! Which keys there are, and retiring those that nothing needs.

use super::{
    Vault, VaultError,
    keyring::KeyOwner,
    roots::{RootEntry, live},
};
use crate::{
    domain::{AuditRecord, KeyId, KeyKind, KeyState, KeyStatus},
    store::{ChangeSet, Expect},
};

impl Vault {
    /// Root keys, oldest first, then each tenant's keys.
    pub async fn list_keys(&self) -> Result<Vec<KeyStatus>, VaultError> {
        let ledger = self.keyring().read_ledger().await?;
        let mut listed = Vec::new();
        for root in &ledger.ledger.roots {
            listed.push(self.root_status(root).await?);
        }
        let first_tenant = listed.len();
        for held in self.tenant_keys().await? {
            let (id, live_rows) = (held.key.id(), live(self.store().as_ref(), held.key.id(), u64::MAX).await?);
            listed.extend(match &held.owner {
                KeyOwner::Log { tenant } => Some(KeyStatus {
                    id,
                    kind: KeyKind::Log,
                    tenant: Some(tenant.clone()),
                    state: KeyState::Present,
                    live_rows,
                    made_at: None,
                }),
                KeyOwner::Tenant { tenant } => {
                    let record = self.keyring().read_tenant(tenant).await?.map(|(_, record)| record);
                    let present = record.filter(|record| record.key == id);
                    let state = if present.is_some() { KeyState::Present } else { KeyState::Rotating };
                    let made_at = present.and_then(|record| record.since);
                    Some(KeyStatus {
                        id,
                        kind: KeyKind::Tenant,
                        tenant: Some(tenant.clone()),
                        state,
                        live_rows,
                        made_at,
                    })
                }
                KeyOwner::Installation | KeyOwner::Subject { .. } => None,
            });
        }
        listed[first_tenant..].sort_by(|a, b| (&a.tenant, a.made_at, a.id).cmp(&(&b.tenant, b.made_at, b.id)));
        Ok(listed)
    }

    /// Declares that a superseded root key is not needed any more, so that its file can be destroyed. A tenant's key
    /// goes by itself with its last row, so it can only be too early for it. Retiring twice is retiring once. On record as
    /// `audit` says.
    ///
    /// # Errors
    /// [`VaultError::KeyInUse`], [`VaultError::KeyUnknown`].
    pub async fn retire_key(&self, id: KeyId, audit: &AuditRecord) -> Result<(), VaultError> {
        loop {
            let before = self.keyring().read_ledger().await?;
            let in_use = |live_rows| VaultError::KeyInUse { key: id, live_rows };
            let Some(at) = before.ledger.roots.iter().position(|root| root.id == id) else {
                let known = self.list_keys().await?.into_iter().find(|key| key.id == id);
                return Err(known.map_or(VaultError::KeyUnknown { key: id }, |key| in_use(key.live_rows)));
            };
            if before.ledger.roots[at].retired_at.is_some() {
                return Ok(());
            }
            // Counted after the ledger was read: what is sealed under a root key needs the ledger as it was when that
            // key was in force, so none can come after the count.
            let live_rows = live(self.store().as_ref(), id, u64::MAX).await?;
            if live_rows > 0 || id == before.ledger.present().id {
                return Err(in_use(live_rows));
            }
            let mut ledger = before.ledger.clone();
            ledger.roots[at].retired_at = Some(audit.at);
            let (root, _) = self.keyring().root()?;
            let write = ledger.write(&root.key, Expect::Version(before.version), self.random())?;
            let audit = vec![self.audit_entry(audit).await?];
            let set = ChangeSet { writes: vec![write], audit, ..ChangeSet::default() };
            let retired = self.commit_or_again(set).await?;
            self.keyring().read_ledger().await?;
            if retired {
                return Ok(());
            }
        }
    }

    async fn root_status(&self, root: &RootEntry) -> Result<KeyStatus, VaultError> {
        let live_rows = live(self.store().as_ref(), root.id, u64::MAX).await?;
        let state = match (root.superseded, root.retired_at) {
            (_, Some(_)) => KeyState::Retired,
            (None, None) => KeyState::Present,
            (Some(_), None) if live_rows > 0 => KeyState::Rotating,
            (Some(_), None) => KeyState::Readable,
        };
        Ok(KeyStatus { id: root.id, kind: KeyKind::Root, tenant: None, state, live_rows, made_at: root.since })
    }
}
