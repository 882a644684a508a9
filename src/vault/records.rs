//! Values to sealed fields and back.

use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::Cache;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    Stored, TokenSet, Vault, VaultError, place,
    stored::{Envelope, Opened, Subject},
    witness,
};
use crate::{
    domain::{
        AccessToken, Attempt, Connection, Flow, Holders, IdToken, Job, ProviderId, RefreshToken, Sealed, SubjectId,
        TenantId,
    },
    sealing::{Key, Random, RandomUnavailable},
    store::{FieldTag, RecordKey, Row, RowFields},
};

/// Room for a record without growing, so that its plaintext is not left behind in outgrown buffers.
const RECORD_ROOM: usize = 4096;

/// A record whose key says whose it must be.
pub(super) trait Owned: DeserializeOwned + Serialize {
    fn tenant(&self) -> &TenantId;

    /// `None` for records under the tenant's key.
    fn subject(&self) -> Option<SubjectId>;
}

macro_rules! owned_by_subject {
    ($($record:ty),+) => {$(
        impl Owned for $record {
            fn tenant(&self) -> &TenantId {
                &self.tenant
            }

            fn subject(&self) -> Option<SubjectId> {
                Some(self.subject)
            }
        }
    )+};
}

owned_by_subject!(Connection, Flow, Attempt, Holders);

impl Owned for Job {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn subject(&self) -> Option<SubjectId> {
        self.owner()
    }
}

impl Owned for Subject {
    fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    fn subject(&self) -> Option<SubjectId> {
        None
    }
}

/// Opened records at hand; about 4 KiB each. Their secrets stay sealed, in the row.
pub(super) struct OpenedRecords {
    connections: Cache<RecordKey, Stored<Connection>>,
    subjects: Cache<RecordKey, Stored<Subject>>,
    /// Keyed hashes that every call needs: a subject's row, and the prefix of its connections to a provider.
    pub(super) subject_rows: Cache<(TenantId, SubjectId), RecordKey>,
    pub(super) prefixes: Cache<(TenantId, SubjectId, Option<ProviderId>), Bytes>,
}

const MOST_OPENED: usize = 8192;

/// A record that many calls read.
pub(super) trait Kept: Owned {
    fn kept(opened: &OpenedRecords) -> &Cache<RecordKey, Stored<Self>>;
}

impl Kept for Connection {
    fn kept(opened: &OpenedRecords) -> &Cache<RecordKey, Stored<Self>> {
        &opened.connections
    }
}

impl Kept for Subject {
    fn kept(opened: &OpenedRecords) -> &Cache<RecordKey, Stored<Self>> {
        &opened.subjects
    }
}

impl OpenedRecords {
    /// Forgets records that are gone, and their subject's row.
    pub(super) fn forget(&self, records: &[RecordKey], subject: &RecordKey) {
        records.iter().for_each(|record| drop(self.connections.remove(record)));
        self.subjects.remove(subject);
    }
}

impl Default for OpenedRecords {
    fn default() -> Self {
        Self {
            connections: Cache::new(MOST_OPENED),
            subjects: Cache::new(MOST_OPENED),
            subject_rows: Cache::new(MOST_OPENED),
            prefixes: Cache::new(MOST_OPENED),
        }
    }
}

impl Vault {
    /// Reads and opens a record; whose it is was checked against the key that it is sealed under.
    pub(super) async fn read<T: Owned>(&self, key: RecordKey) -> Result<Option<Stored<T>>, VaultError> {
        self.watched(self.read_anew(key).await)
    }

    /// A row whose key is gone may have been moved to another one between the two reads.
    async fn read_anew<T: Owned>(&self, key: RecordKey) -> Result<Option<Stored<T>>, VaultError> {
        let mut before = None;
        loop {
            let Some(row) = witness::row(self.store().as_ref(), &key).await? else { return Ok(None) };
            let version = row.version;
            match self.open_row(key.clone(), row).await {
                Err(VaultError::Unsealable { .. }) if before != Some(version) => before = Some(version),
                other => return other.map(Some),
            }
        }
    }

    /// As [`Vault::read`], and decrypts and decodes a row only once: a row that the store still gives out is the one that
    /// was opened.
    pub(super) async fn read_kept<T: Kept>(&self, key: RecordKey) -> Result<Option<Stored<T>>, VaultError> {
        let kept = T::kept(self.opened());
        let row = self.watched(self.store().row(key.clone()).await.map_err(VaultError::from))?;
        let Some(row) = row else {
            kept.remove(&key);
            return Ok(None);
        };
        if let Some(stored) = kept.get(&key).filter(|stored| Arc::ptr_eq(&stored.row, &row)) {
            return Ok(Some(stored));
        }
        let stored = self.read::<T>(key.clone()).await?;
        if let Some(stored) = &stored {
            kept.insert(key, stored.clone());
        }
        Ok(stored)
    }

    async fn open_row<T: Owned>(&self, key: RecordKey, row: Arc<Row>) -> Result<Stored<T>, VaultError> {
        let sealed = row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(&key))?;
        let held = self.keyring().key_of(sealed, &key).await?;
        let Envelope { value, parked } = open::<Envelope<T>>(&held.key, &key, row.version, sealed)?;
        if !held.owner.holds(value.tenant(), value.subject()) {
            return Err(VaultError::corrupt(&key));
        }
        Ok(Stored::new(Opened { value, key, row, parked }))
    }

    /// Opens a secret beside a record; `None` when there is none.
    pub(super) async fn secret<T>(
        &self,
        stored: &Stored<T>,
        tag: FieldTag,
        generation: u64,
    ) -> Result<Option<String>, VaultError> {
        self.watched(self.open_secret(stored, tag, generation).await)
    }

    async fn open_secret<T>(
        &self,
        stored: &Stored<T>,
        tag: FieldTag,
        generation: u64,
    ) -> Result<Option<String>, VaultError> {
        let Some(sealed) = stored.row.field(tag) else { return Ok(None) };
        let held = match self.keyring().key_of(sealed, &stored.key).await {
            // Its subject was erased since it was read.
            Err(VaultError::Unsealable { record }) if !self.is_newest(stored).await? => {
                return Err(VaultError::Conflict { record });
            }
            other => other?,
        };
        let place = place::field(&stored.key, tag, generation);
        let bytes = held.key.open(&place, sealed).map_err(|_| VaultError::unsealable(&stored.key))?;
        text(bytes).map(Some).ok_or_else(|| VaultError::corrupt(&stored.key))
    }

    async fn is_newest<T>(&self, stored: &Stored<T>) -> Result<bool, VaultError> {
        let now = self.store().row(stored.key.clone()).await?;
        Ok(now.is_some_and(|now| now.version == stored.version()))
    }

    /// All the tokens beside a record; `None` when there are none.
    pub(super) async fn tokens<T>(&self, stored: &Stored<T>, generation: u64) -> Result<Option<TokenSet>, VaultError> {
        let Some(access) = self.secret(stored, FieldTag::AccessToken, generation).await? else { return Ok(None) };
        let refresh = self.secret(stored, FieldTag::RefreshToken, generation).await?;
        let id_token = self.secret(stored, FieldTag::IdToken, generation).await?;
        Ok(Some(TokenSet {
            access: AccessToken::new(access),
            refresh: refresh.map(RefreshToken::new),
            id_token: id_token.map(IdToken::new),
        }))
    }
}

/// Seals a record's `Record` field for row version `version`.
pub(super) fn seal(
    key: &Key,
    record: &RecordKey,
    version: u64,
    value: &impl Serialize,
    random: &Random,
) -> Result<Sealed, RandomUnavailable> {
    key.seal(&place::field(record, FieldTag::Record, version), &encode(value), random)
}

/// Opens what [`seal`] made.
pub(super) fn open<T: DeserializeOwned>(
    key: &Key,
    record: &RecordKey,
    version: u64,
    sealed: &Sealed,
) -> Result<T, VaultError> {
    let place = place::field(record, FieldTag::Record, version);
    let bytes = key.open(&place, sealed).map_err(|_| VaultError::unsealable(record))?;
    serde_json::from_slice(&bytes).map_err(|_| VaultError::corrupt(record))
}

pub(super) fn encode(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    encode_within(RECORD_ROOM, value)
}

pub(super) fn encode_within(room: usize, value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *bytes, value).expect("domain values have no maps with odd keys and no failing fields");
    bytes
}

/// The fields of a token set, sealed for `generation`.
pub(super) fn token_fields(
    key: &Key,
    record: &RecordKey,
    generation: u64,
    tokens: &TokenSet,
    random: &Random,
) -> Result<RowFields, RandomUnavailable> {
    let TokenSet { access, refresh, id_token } = tokens;
    let secrets = [
        (FieldTag::AccessToken, Some(access.expose())),
        (FieldTag::RefreshToken, refresh.as_ref().map(RefreshToken::expose)),
        (FieldTag::IdToken, id_token.as_ref().map(IdToken::expose)),
    ];
    let held = secrets.into_iter().filter_map(|(tag, secret)| Some((tag, secret?)));
    held.map(|(tag, secret)| Ok((tag, secret_field(key, record, tag, generation, secret, random)?))).collect()
}

pub(super) fn secret_field(
    key: &Key,
    record: &RecordKey,
    tag: FieldTag,
    generation: u64,
    secret: &str,
    random: &Random,
) -> Result<Sealed, RandomUnavailable> {
    key.seal(&place::field(record, tag, generation), secret.as_bytes(), random)
}

/// Takes the buffer itself, so that no copy of the secret stays behind.
fn text(mut bytes: Zeroizing<Vec<u8>>) -> Option<String> {
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| Zeroizing::new(error.into_bytes())).ok()
}
