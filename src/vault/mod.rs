//! Sealed records: the one place where domain values become sealed rows and back. Everything above it sees domain
//! values, everything below it sees bytes.
//!
//! - [`open`]: `Vault` and the installation's secret · [`keyring`]: root → tenant → subject keys and their bounded cache
//! - [`stored`]: what reads give · [`records`]: reading rows · [`connections`], [`flows`], [`jobs`], [`logs`],
//!   [`configuration`], [`suspensions`], [`holders`]: reads
//! - [`change`]: building a change set; [`mod@write`]: its writes · [`place`]: associated data and index keys
//! - [`held`]: tokens that the store could not take · [`linked_audit`]: how a linked audit record looks in the store · [`error`]: what can go wrong
//!
//! A row's `Record` field is the value as JSON, sealed for the row's version. Secrets are fields of their own, sealed
//! for the credential's generation (connections) or the version that brought them (flows, jobs, attempts), so metadata
//! is rewritten without touching them and an older secret does not open beside newer metadata.

mod alarms;
mod change;
mod configuration;
mod connections;
mod erasure;
mod erasure_list;
mod error;
mod flows;
mod held;
mod holders;
mod jobs;
mod key_status;
mod keyring;
mod linked_audit;
mod logs;
mod open;
mod place;
mod records;
mod reseal;
mod roots;
mod rotation;
mod served;
mod stored;
mod suspensions;
mod tenants;
mod witness;
mod write;

pub use change::Change;
pub use erasure_list::ErasureList;
pub use error::{Misuse, VaultError};
pub use flows::FlowIntent;
pub use held::{HeldTokens, Owner};
pub use jobs::{AttemptKey, Due, DueRecord};
pub use linked_audit::LinkedAudit;
pub use logs::TrailEntry;
pub use open::Vault;
pub use rotation::Rotating;
pub use stored::{Erased, FlowTokens, Opened, Parked, Stored, Subject, TokenSet, Tokens};
pub use suspensions::{ConnectionPage, SuspensionKey};
