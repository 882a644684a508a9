//! Cryptography at rest: who holds which key, how bytes are sealed, and the one source of randomness.
//!
//! - [`root_key`]: where the root keys come from · [`key`]: `Key`, seal and open
//! - [`installation`]: the keyed hashes of an installation · [`keyed_hash`]: HMAC over canonical parts
//! - [`private_file`]: files with secrets · [`random`]: `Random` · [`hardening`]: no core dumps
//!
//! The hierarchy is root key → tenant key → subject key → record; a tenant's log key stands beside its tenant key. `vault` keeps the keys; nothing here does I/O except
//! reading files with secrets.

pub mod hardening;
mod installation;
mod key;
mod keyed_hash;
pub mod private_file;
mod random;
pub mod root_key;

pub use installation::{AuditKey, BrowserPurpose, InstallationKeys, InstallationSecret};
pub use key::{AssociatedData, Key, SEALED_OVERHEAD, Unsealable, sealed_key_id};
pub use keyed_hash::KeyedHash;
pub use random::{FillRandom, Random, RandomUnavailable};
pub use root_key::{RootKey, RootKeys};
