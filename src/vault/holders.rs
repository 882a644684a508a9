//! Who holds what was given out: one record a connection, beside it.

use super::{Stored, Vault, VaultError, place};
use crate::{
    domain::{Connection, ConnectionId, CredentialId, Holders, SubjectId, TenantId},
    store::IndexKind,
};

impl Vault {
    /// `None`: nobody ever reported.
    pub async fn holders(&self, connection: &Connection) -> Result<Option<Stored<Holders>>, VaultError> {
        let Connection { id, tenant, subject, .. } = connection;
        let stored = self.read::<Holders>(place::holders_row(*id)).await?;
        Ok(stored.filter(|stored| is_of(&stored.value, tenant, *subject, *id)))
    }

    /// The subject's connection with this credential, revoked ones too: what was given out may be held long after. One
    /// that does not open hides no other.
    pub async fn connection_of_credential(
        &self,
        tenant: &TenantId,
        subject: SubjectId,
        credential: CredentialId,
    ) -> Result<Option<Stored<Connection>>, VaultError> {
        let Some(owner) = self.subject(tenant, subject).await? else { return Ok(None) };
        let mut damaged = None;
        for record in self.indexed(IndexKind::SealedUnder, place::connections_under(owner.value.key)).await? {
            let stored = match self.read_kept::<Connection>(record).await {
                Ok(Some(stored)) => stored,
                Ok(None) => continue,
                Err(error) if error.is_damage() => {
                    damaged = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Connection { tenant: of, subject: by, credential: known, .. } = &stored.value;
            if of == tenant && *by == subject && known.id == credential {
                return Ok(Some(stored));
            }
        }
        // It may have been this one.
        damaged.map_or(Ok(None), Err)
    }
}

fn is_of(holders: &Holders, tenant: &TenantId, subject: SubjectId, connection: ConnectionId) -> bool {
    holders.tenant == *tenant && holders.subject == subject && holders.connection == connection
}
