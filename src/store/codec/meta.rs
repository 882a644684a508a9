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

/// What a store knows of itself, from its creation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub installation: InstallationId,
    pub epoch: EntryId,
    /// Events up to and including this revision are gone.
    pub compacted: Revision,
}

impl Meta {
    pub fn encode(&self) -> Bytes {
        frame(&Place::Meta.encode(), 40, |out| {
            out.put_slice(self.installation.as_bytes());
            out.put_slice(self.epoch.as_bytes());
            out.put_u64(self.compacted.0);
        })
    }

    pub fn decode(value: &Bytes) -> Result<Self, StoreError> {
        unframe(&Place::Meta, value)?.read_all(&Place::Meta, |content| {
            let installation = InstallationId::from_bytes(content.array()?);
            let epoch = EntryId::from_bytes(content.array()?);
            Some(Self { installation, epoch, compacted: Revision(content.u64()?) })
        })
    }
}
