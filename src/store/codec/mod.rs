//! How rows look as bytes: strict, versioned, and checked against the place at which they are found.
//!
//! - [`Place`]: where a row stands · [`frame`]: format version and checksum around every value
//! - [`row`]: records and index entries · [`entry`]: events and audit records · [`commit`]: what closes a change set
//! - [`meta`]: the store's own row

mod commit;
mod entry;
mod frame;
mod meta;
mod place;
mod row;
#[cfg(test)]
mod tests;

pub use commit::{CommitPart, Footprint};
pub use entry::{decode_audit, decode_event, encode_audit, encode_event, entry_size};
pub use frame::{FORMAT, checksum, verify};
pub use meta::Meta;
pub use place::{Family, Place};
pub use row::{decode_index_entry, decode_row, encode_index_entry, encode_row, row_size};
