//! What can go wrong between domain values and sealed rows. Rows are named, their content never.

use crate::{
    domain::KeyId,
    sealing::RandomUnavailable,
    store::{CommitError, RecordKey, StoreError},
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Nothing was written: the record was changed since it was read.
    #[error("{record} was changed by another change set first")]
    Conflict { record: String },
    /// Nothing was written: a record that the change depends on, or a key that it is sealed under, has moved. Read again.
    #[error("{record} is no longer as the change set requires")]
    PreconditionFailed { record: String },
    /// A read failed; nothing was written.
    #[error("the store is unavailable")]
    Unavailable,
    /// A commit failed and may have been written all the same: read back before trying again.
    #[error("the store is unavailable; whether the change was written is unknown")]
    OutcomeUnknown,
    #[error("a row of {size} bytes is too large")]
    TooLarge { size: usize },
    /// The row's bytes, or what was sealed in them, are not what they should be.
    #[error("{record} is corrupt")]
    Corrupt { record: String },
    /// A field was changed, moved or rolled back, or its key is gone.
    #[error("{record} does not open")]
    Unsealable { record: String },
    /// The record was put back to an older state than the index knows of.
    #[error("{record} is older than it was; restore the store from a copy, and find out who has put it back")]
    RolledBack { record: String },
    /// Rows are sealed under a root key that was not given.
    #[error("the store is sealed under root key {expected}, and what was given is {}; put the file of the first into sealing.root_keys", list(.given))]
    WrongRootKey { expected: KeyId, given: Vec<KeyId> },
    /// The store holds change sets, but not the secret that its look-up keys were made with.
    #[error("the store has lost its installation record; restore it from a copy")]
    InstallationMissing,
    /// The subject's key was destroyed: nothing can be stored for them.
    #[error("the subject was erased")]
    SubjectErased,
    /// There is no root key to rotate to: the first of those given is, or was, in force.
    #[error("root key {newest} is, or was, in force already; make a new one and put it first in sealing.root_keys")]
    NoNewRootKey { newest: KeyId },
    #[error("there is no key {key}; see the list of keys")]
    KeyUnknown { key: KeyId },
    /// A key that is in force, or that rows are still sealed under, is not retired.
    #[error("key {key} is needed by {live_rows} rows; rotate first, and wait until the rotation has ended")]
    KeyInUse { key: KeyId, live_rows: u64 },
    /// A line of the list of erasures is not one that was written there.
    #[error("line {line} of the list of erasures is not authentic; put back the list that belongs to the store")]
    ErasureList { line: usize },
    /// The list of erasures could not be read or made durable; nothing was erased.
    #[error("the list of erasures cannot be used ({reason}); check the disk and who may write there")]
    ErasuresUnwritten { reason: std::io::ErrorKind },
    /// The record holds no tokens (any more).
    #[error("{record} holds no tokens")]
    NoTokens { record: String },
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// A change set that contradicts itself: a defect of the caller, refused before anything is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    #[error("{record} belongs to another tenant or subject than the change set")]
    OtherOwner { record: String },
    #[error("{record} would be replaced by a different record")]
    OtherRecord { record: String },
    #[error("{record} would get a new generation with the old generation's tokens")]
    TokensOfOtherGeneration { record: String },
    /// It is written twice, or its index entries collide with another's.
    #[error("{record} cannot be written as it is")]
    Malformed { record: String },
}

impl VaultError {
    /// Whether the row is not what was written there: of what it said nothing is known, and what else is stored stands.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Unsealable { .. } | Self::RolledBack { .. } | Self::Corrupt { .. })
    }

    pub(super) fn corrupt(record: &RecordKey) -> Self {
        Self::Corrupt { record: format!("{record:?}") }
    }

    pub(super) fn unsealable(record: &RecordKey) -> Self {
        Self::Unsealable { record: format!("{record:?}") }
    }
}

fn list(ids: &[KeyId]) -> String {
    ids.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable => Self::Unavailable,
            StoreError::Corrupt { row } => Self::Corrupt { record: row },
        }
    }
}

impl From<CommitError> for VaultError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { key } => Self::Conflict { record: format!("{key:?}") },
            CommitError::PreconditionFailed { key } => Self::PreconditionFailed { record: format!("{key:?}") },
            CommitError::TooLarge { size } => Self::TooLarge { size },
            CommitError::Unavailable => Self::OutcomeUnknown,
            CommitError::Malformed { key } => Misuse::Malformed { record: format!("{key:?}") }.into(),
            CommitError::Corrupt { row } => Self::Corrupt { record: row },
        }
    }
}
