//! What was granted: grants, codes and tokens, by fingerprint.
//!
//! - `rules`: what a code or refresh token obtains · `grant`: one approval and its family of refresh tokens
//! - `refusal`: why there is nothing · `storage`: in memory or in a file

mod grant;
mod refusal;
mod rules;
mod storage;

pub(super) use self::{
    grant::Grant,
    rules::{AccessTokenRecord, Code, CodeProof, Ledger, RefreshUse},
    storage::LedgerStore,
};
pub use self::{grant::GrantId, refusal::TokenRefusal};
