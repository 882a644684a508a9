//! The store's own row.

use bytes::{BufMut, Bytes};

use super::{
    Place,
    frame::{frame, unframe},
};
use crate::{
    domain::{EntryId, InstallationId, Revision},
    store::StoreError,
};

/// What a store knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub installation: InstallationId,
    pub epoch: EntryId,
    /// Events up to and including this revision are gone.
    pub compacted: Revision,
    /// Audit records up to and including this number are gone.
    pub audit_purged: u64,
    /// The revision as of which the store was filled from a copy; its commit row is the first. 0: begun empty.
    pub filled_at: Revision,
}

impl Meta {
    /// Of a store in which nothing has happened yet.
    pub fn new(installation: InstallationId, epoch: EntryId) -> Self {
        let beginning = Revision(0);
        Self { installation, epoch, compacted: beginning, audit_purged: 0, filled_at: beginning }
    }

    pub fn encode(&self) -> Bytes {
        frame(&Place::Meta.encode(), 56, |out| {
            out.put_slice(self.installation.as_bytes());
            out.put_slice(self.epoch.as_bytes());
            out.put_u64(self.compacted.0);
            out.put_u64(self.audit_purged);
            out.put_u64(self.filled_at.0);
        })
    }

    pub fn decode(value: &Bytes) -> Result<Self, StoreError> {
        unframe(&Place::Meta, value)?.read_all(&Place::Meta, |content| {
            let installation = InstallationId::from_bytes(content.array()?);
            let epoch = EntryId::from_bytes(content.array()?);
            let (compacted, audit_purged) = (Revision(content.u64()?), content.u64()?);
            let filled_at = Revision(content.u64()?);
            Some(Self { installation, epoch, compacted, audit_purged, filled_at })
        })
    }
}
