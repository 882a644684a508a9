//! Which providers refuse our registration: one record each, under the installation's own tenant; and the list of all
//! connections, of whatever tenant, for telling them.

use bytes::Bytes;

use super::{Stored, Vault, VaultError, place, records::Owned};
use crate::{
    domain::{Connection, ListPosition, ProviderId, SubjectId, Suspension, TenantId},
    store::{IndexKind, RecordKey, RecordKind},
};

/// Names a stored suspension without its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuspensionKey(pub(super) [u8; 32]);

/// A part of the list of all connections.
pub struct ConnectionPage {
    pub connections: Vec<(ListPosition, Stored<Connection>)>,
    /// Where it ended; `None`: at the list's end.
    pub end: Option<ListPosition>,
}

impl Owned for Suspension {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn subject(&self) -> Option<SubjectId> {
        None
    }
}

impl Vault {
    /// `None`: the provider does not refuse us, and everybody knows.
    pub async fn suspension(&self, provider: &ProviderId) -> Result<Option<Stored<Suspension>>, VaultError> {
        let stored = self.read::<Suspension>(place::suspension_row(self.keys(), provider)).await?;
        Ok(stored.filter(|stored| stored.value.provider == *provider))
    }

    /// The suspension that [`super::DueRecord::Suspension`] names.
    pub async fn suspension_by_key(&self, key: &SuspensionKey) -> Result<Option<Stored<Suspension>>, VaultError> {
        self.read(RecordKey::new(RecordKind::Suspension, key.0)).await
    }

    /// The connections among the next `limit` records of everybody, after `position`. Their order is that of the keys
    /// that they are sealed under, a subject's own, which stay as long as the subject does: a connection never moves in
    /// it. One that does not open is left out.
    pub async fn every_connection(
        &self,
        position: Option<&ListPosition>,
        limit: usize,
    ) -> Result<ConnectionPage, VaultError> {
        let after = position.map(|position| Bytes::copy_from_slice(&position.0));
        let page = self.store().index(IndexKind::SealedUnder, Bytes::new(), after, limit).await?;
        let end = page.last().filter(|_| page.len() == limit).map(|entry| ListPosition(entry.key.to_vec()));
        let mut connections = Vec::new();
        for entry in page.into_iter().filter(|entry| entry.record.kind() == RecordKind::Connection) {
            match self.read::<Connection>(entry.record).await {
                Ok(stored) => connections.extend(stored.map(|stored| (ListPosition(entry.key.to_vec()), stored))),
                Err(VaultError::Unsealable { .. } | VaultError::RolledBack { .. } | VaultError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ConnectionPage { connections, end })
    }
}
