//! What sled reads of its data file when it opens it, read before it does.
//!
//! sled takes a segment that cannot be read for one that is not there, or for the end of its log, and later overwrites
//! it. So a read error has to be found first, but only there: what is read later, page by page, answers with the error.
//! At open sled reads the header of every segment, and those segments whole that are newer than its last snapshot.

use std::{ffi::OsStr, fs::File, io, num::NonZeroU64, os::unix::fs::FileExt, path::Path};

use rustix::fs::Advice;

use super::engine::SEGMENT;

/// Reads what sled will read, and fails where sled should. What is read is in the page cache when sled reads it again.
pub(super) fn read_ahead(data: &File, newest_snapshot: Option<&Path>) -> io::Result<()> {
    let segment = SEGMENT as u64;
    let recovered = newest_snapshot.map_or(0, position) / segment * segment;
    let length = data.metadata()?.len();
    for offset in (0..length).step_by(SEGMENT) {
        // a hint, so that a cold disk fetches the headers side by side and not one after the other
        let _ = rustix::fs::fadvise(data, offset, NonZeroU64::new(HEADER as u64), Advice::WillNeed);
    }
    let mut buffer = vec![0; SEGMENT];
    for offset in (0..length).step_by(SEGMENT) {
        let mut header = [0; HEADER];
        if length - offset < HEADER as u64 {
            break;
        }
        data.read_exact_at(&mut header, offset)?;
        if begins_at(&header) >= recovered {
            read_segment(data, offset, &mut buffer)?;
        }
    }
    Ok(())
}

fn read_segment(data: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut read = 0;
    while read < buffer.len() {
        match data.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The log position up to which the snapshot knows everything, from its name; 0 for a name that says none.
fn position(snapshot: &Path) -> u64 {
    let name = snapshot.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix("snap."));
    name.and_then(|position| u64::from_str_radix(position, 16).ok()).unwrap_or(0)
}

/// The log position at which a segment with this header begins. sled stores it inverted, behind a checksum; a header
/// that is none says something high, and then too much is read.
fn begins_at(header: &[u8; HEADER]) -> u64 {
    let position = header[4..12].try_into().expect("eight of twenty bytes");
    u64::from_le_bytes(position) ^ (u64::MAX >> 1)
}

/// Of a segment, in bytes.
const HEADER: usize = 20;
