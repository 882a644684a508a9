//! Which configuration is in force: one record, under the installation's own tenant.

use serde::Serialize;

use super::{
    Change, Stored, Vault, VaultError, place,
    records::{self, Owned},
    stored::Envelope,
};
use crate::{
    domain::{Configuration, SubjectId, TenantId},
    store::{Expect, FieldTag, IndexEntry, RecordKey, Write},
};

impl Owned for Configuration {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn subject(&self) -> Option<SubjectId> {
        None
    }
}

impl Vault {
    /// `None`: none was put on record yet.
    pub async fn configuration(&self) -> Result<Option<Stored<Configuration>>, VaultError> {
        self.read(place::configuration_row()).await
    }
}

impl Change {
    /// Takes the place of `from`, which must still be the newest; `None`: there must be none.
    pub fn put_configuration(&mut self, from: Option<&Stored<Configuration>>, to: &Configuration) {
        self.put_the_one(place::configuration_row(), from, to);
    }

    /// A record that nothing else leads to; its version is witnessed where it is listed under its key.
    pub(super) fn put_the_one<T: Owned + Serialize>(&mut self, key: RecordKey, from: Option<&Stored<T>>, to: &T) {
        self.build(|change| {
            let expect = from.map_or(Expect::Absent, |stored| Expect::Version(stored.version()));
            let held = change.tenant_key(&key, to.tenant())?;
            let envelope = Envelope { value: to, parked: None };
            let record = records::seal(held, &key, expect.next_version(), &envelope, change.vault.random())?;
            let index = IndexEntry::sealed_under(held.id(), key.clone(), Some(expect.next_version()));
            change.write(Write::put(key, expect, vec![(FieldTag::Record, record)], vec![index]));
            Ok(())
        });
    }
}
