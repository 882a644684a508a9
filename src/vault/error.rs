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
    #[error("the store was sealed under root key {expected}, not under {given}")]
    WrongRootKey { expected: KeyId, given: KeyId },
    /// The store holds change sets, but not the secret that its look-up keys were made with.
    #[error("the store has lost its installation record; restore it from a copy")]
    InstallationMissing,
    /// The subject's key was destroyed: nothing can be stored for them.
    #[error("the subject was erased")]
    SubjectErased,
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
    pub(super) fn corrupt(record: &RecordKey) -> Self {
        Self::Corrupt { record: format!("{record:?}") }
    }

    pub(super) fn unsealable(record: &RecordKey) -> Self {
        Self::Unsealable { record: format!("{record:?}") }
    }
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
