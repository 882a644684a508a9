//! Who holds what was given out: one record a connection, beside it.

use super::{Stored, Vault, VaultError, place, roots};
use crate::{
    domain::{Connection, ConnectionId, CredentialId, Holders, SubjectId, TenantId},
    store::RecordKind,
};

/// Index entries read at a time.
const PAGE: usize = 256;

impl Vault {
    /// `None`: nobody ever reported.
    pub async fn holders(&self, connection: &Connection) -> Result<Option<Stored<Holders>>, VaultError> {
        let Connection { id, tenant, subject, .. } = connection;
        let stored = self.read::<Holders>(place::holders_row(*id)).await?;
        Ok(stored.filter(|stored| is_of(&stored.value, tenant, *subject, *id)))
    }

    /// The subject's connection with this credential, revoked ones too: what was given out may be held long after.
    pub async fn connection_of_credential(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
        credential: CredentialId,
    ) -> Result<Option<Stored<Connection>>, VaultError> {
        let Some(owner) = self.subject(tenant, subject).await? else { return Ok(None) };
        let mut after = None;
        loop {
            let page = roots::under(self.store().as_ref(), owner.value.key, after, PAGE).await?;
            let more = page.len() == PAGE;
            after = page.last().map(|entry| entry.key.clone());
            for entry in page.into_iter().filter(|entry| entry.record.kind() == RecordKind::Connection) {
                let Some(stored) = self.read_kept::<Connection>(entry.record).await? else { continue };
                let Connection { tenant: of, subject: by, credential: known, .. } = &stored.value;
                if of == tenant && *by == subject && known.id == credential {
                    return Ok(Some(stored));
                }
            }
            if !more {
                return Ok(None);
            }
        }
    }
}

fn is_of(holders: &Holders, tenant: &TenantId, subject: SubjectId, connection: ConnectionId) -> bool {
    holders.tenant == *tenant && holders.subject == subject && holders.connection == connection
}
