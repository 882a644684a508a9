//! What an operator may know of the sealing keys: everything but the keys.

use super::{KeyId, SubjectId, TenantId, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    pub id: KeyId,
    pub kind: KeyKind,
    /// `None` for a root key.
    pub tenant: Option<TenantId>,
    pub state: KeyState,
    /// Rows that are sealed under it; of a log key 0, because its entries are not counted.
    pub live_rows: u64,
    /// When it came into force; `None` for a key that came with its store or its tenant.
    pub made_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    Root,
    /// Seals the tenant's subjects.
    Tenant,
    /// Seals the tenant's events and audit records. Stays as long as they do.
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Seals what is new.
    Present,
    /// Superseded, and nothing is sealed under it any more: it can be retired.
    Readable,
    /// Superseded, and its rows are on their way to the present key.
    Rotating,
    /// A root key whose file can be destroyed.
    Retired,
}

/// Which keys are to be superseded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotateKey {
    /// By the first of the root keys that the process was given.
    Root,
    /// By new ones: the key of one tenant, or each tenant's.
    Tenants(Option<TenantId>),
}

/// How far a rotation is. It goes on by itself, also in the next process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRotation {
    /// Rows that there were to move when it began.
    pub begun: u64,
    /// Rows still to move.
    pub left: u64,
    pub started_at: Timestamp,
}

/// That a subject was erased, authenticated under a key of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasureReceipt {
    pub tenant: TenantId,
    pub subject: SubjectId,
    /// From then on nothing of the subject can be read in the live store.
    pub erased_at: Timestamp,
    /// From then on no copy of the store can be read either, provided that the root keys' files were destroyed when they
    /// were retired. `None`: a root key that such a copy opens with is not retired yet.
    pub copies_unreadable_from: Option<Timestamp>,
    pub mac: [u8; 32],
}
