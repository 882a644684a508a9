//! Which providers are served, as everybody has been told: one record, under the installation's own tenant.

use super::{Change, Stored, Vault, VaultError, place, records::Owned};
use crate::domain::{ServedProviders, SubjectId, TenantId};

impl Owned for ServedProviders {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn subject(&self) -> Option<SubjectId> {
        None
    }
}

impl Vault {
    /// `None`: no process has told anybody yet.
    pub async fn served_providers(&self) -> Result<Option<Stored<ServedProviders>>, VaultError> {
        self.read(place::served_row()).await
    }
}

impl Change {
    /// Takes the place of `from`, which must still be the newest; `None`: there must be none.
    pub fn put_served_providers(&mut self, from: Option<&Stored<ServedProviders>>, to: &ServedProviders) {
        self.put_the_one(place::served_row(), from, to);
    }
}
