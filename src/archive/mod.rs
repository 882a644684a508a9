//! The archive: everything in a store as one sealed file that tells a damaged copy from a whole one. Pure over bytes;
//! where they come from and go to is the caller's.
//!
//! - [`writer`]: rows in, bytes out · [`reader`]: bytes in, rows out · [`header`]: what an archive says of itself
//! - [`entry`]: rows within the chunks · [`error`]: why an archive is refused
//!
//! A header of fixed length, then chunks of [`CHUNK`] bytes each, the last one padded: so every truncation is a short
//! read, and no length in the clear can be bent. The chunks are sealed in the manner of STREAM (Hoang, Reyhanitabar,
//! Rogaway, Vizár 2015) under a key of this archive alone, each bound to its number and to whether it is the last:
//! none can be dropped, repeated, moved, or taken over from another archive. That key stands in the header, wrapped
//! under the root key and bound to everything before it. Rows are sealed already; this hides how many there are of
//! whom, and when what is due.

mod entry;
mod error;
mod header;
mod reader;
mod writer;

use crate::{
    domain::KeyId,
    sealing::{AssociatedData, SEALED_OVERHEAD},
};

pub use entry::{End, Entry};
pub use error::{ArchiveError, Part};
pub use header::Header;
pub use reader::{Reader, verify};
pub use writer::Writer;

/// A sealed chunk, in bytes.
pub const CHUNK: usize = 64 * 1024;

/// What fits into a chunk.
const PLAIN: usize = CHUNK - SEALED_OVERHEAD;

/// The associated data of a chunk.
fn place(archive: &KeyId, number: u64, last: bool) -> AssociatedData<'_> {
    AssociatedData { kind: CHUNKS, record: archive.as_bytes(), field: last.into(), generation: number }
}

/// What is sealed here, beyond every kind of record. Persisted: never renumber.
const ARCHIVE_KEY: u8 = 192;
const CHUNKS: u8 = 193;
