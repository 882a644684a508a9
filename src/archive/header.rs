//! What an archive says of itself before its rows, readable without any key.

use std::io::Read;

use bytes::{Buf, BufMut};

use super::{ARCHIVE_KEY, ArchiveError, Part, reader::read_full};
use crate::{
    domain::{EntryId, InstallationId, KeyId, Revision, Sealed, Timestamp},
    sealing::{AssociatedData, Key, Random, RandomUnavailable, RootKeys, SEALED_OVERHEAD, sealed_key_id},
};

/// An archive's first bytes; the version follows.
const MAGIC: &[u8; 16] = b"claviger-archive";
/// Never reuse a number.
const VERSION: u8 = 1;

/// Magic and version.
const NAMED: usize = MAGIC.len() + 1;
/// All that the wrapped key is bound to.
const BOUND: usize = NAMED + 8 + 16 + 16 + 8 + 16;
const WRAPPED: usize = SEALED_OVERHEAD + 32;
/// The whole header with its checksum.
pub(super) const HEADER: usize = BOUND + WRAPPED + 4;

/// Where an archive comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub made_at: Timestamp,
    pub installation: InstallationId,
    /// Of the store that was copied; a restored store gets another.
    pub epoch: EntryId,
    /// The newest revision when copying began; the copy holds at least all up to it.
    pub begun_at: Revision,
}

impl Header {
    /// The header's bytes, and the new archive's key. `wrap` seals it under a root key, bound to the place that it is
    /// given.
    pub(super) fn seal<E: From<RandomUnavailable>>(
        &self,
        wrap: impl FnOnce(&AssociatedData<'_>, &Key) -> Result<Sealed, E>,
        random: &Random,
    ) -> Result<(Vec<u8>, Key), E> {
        let key = Key::from_bytes(KeyId::from_bytes(random.bytes()?), None, random.secret()?);
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.put_slice(MAGIC);
        bytes.put_u8(VERSION);
        bytes.put_i64(self.made_at.as_millis());
        bytes.put_slice(self.installation.as_bytes());
        bytes.put_slice(self.epoch.as_bytes());
        bytes.put_u64(self.begun_at.0);
        bytes.put_slice(key.id().as_bytes());
        let wrapped = wrap(&bound_to(&bytes), &key)?;
        bytes.put_slice(wrapped.as_bytes());
        bytes.put_u32(crc32fast::hash(&bytes));
        Ok((bytes, key))
    }

    /// Reads the header and opens the archive's key with the root key that the header names.
    pub(super) fn open(source: &mut impl Read, roots: &RootKeys) -> Result<(Self, Key), ArchiveError> {
        let mut bytes = [0; HEADER];
        let length = read_full(source, &mut bytes)?;
        let magic = length.min(MAGIC.len());
        if bytes[..magic] != MAGIC[..magic] {
            return Err(ArchiveError::NotAnArchive);
        }
        // Before anything else: a later version may have another header.
        match bytes.get(MAGIC.len()).filter(|_| length >= NAMED) {
            Some(&VERSION) => {}
            Some(&version) => return Err(ArchiveError::UnknownVersion { version }),
            None => return Err(ArchiveError::Truncated),
        }
        if length < HEADER {
            return Err(ArchiveError::Truncated);
        }
        let (body, mut checksum) = bytes.split_at(BOUND + WRAPPED);
        let damaged = || ArchiveError::Damaged { part: Part::Header };
        // Only so that a damaged name of a key is not taken for another key's name.
        if crc32fast::hash(body) != checksum.get_u32() {
            return Err(damaged());
        }
        let (bound, wrapped) = body.split_at(BOUND);
        let wrapped = Sealed::from_bytes(wrapped.to_vec().into());
        let expected = sealed_key_id(&wrapped).map_err(|_| damaged())?;
        let root = roots.iter().find(|root| root.id() == expected).ok_or_else(|| ArchiveError::WrongRootKey {
            expected,
            given: roots.iter().map(|root| root.id()).collect(),
        })?;
        let (header, key) = Self::decode(&bound[NAMED..]);
        let key = root.key().unwrap_key(&bound_to(bound), &wrapped, key, None).map_err(|_| damaged())?;
        Ok((header, key))
    }

    /// What stands between the version and the wrapped key, and the archive key's name.
    fn decode(mut fields: &[u8]) -> (Self, KeyId) {
        let made_at = Timestamp::from_millis(fields.get_i64());
        let mut id = || {
            let mut bytes = [0; 16];
            fields.copy_to_slice(&mut bytes);
            bytes
        };
        let (installation, epoch) = (InstallationId::from_bytes(id()), EntryId::from_bytes(id()));
        let begun_at = Revision(fields.get_u64());
        let mut key = [0; 16];
        fields.copy_to_slice(&mut key);
        (Self { made_at, installation, epoch, begun_at }, KeyId::from_bytes(key))
    }
}

fn bound_to(header: &[u8]) -> AssociatedData<'_> {
    AssociatedData { kind: ARCHIVE_KEY, record: header, field: 0, generation: 0 }
}
