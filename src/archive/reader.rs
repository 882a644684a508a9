//! Bytes in, rows out. What is given out was authenticated, and the end is told only when it is the end.

use std::io::{self, Read};

use bytes::Bytes;

use super::{
    ArchiveError, CHUNK, End, Header, Part,
    entry::{self, Entry, Taken},
    place,
};
use crate::{
    domain::{KeyId, Sealed},
    sealing::{Key, RootKeys},
};

/// Reads one archive from its first byte to its end. After an error, or the end, it gives nothing more.
pub struct Reader<R> {
    source: R,
    header: Header,
    key: Key,
    id: KeyId,
    /// Chunks that were opened.
    chunks: u64,
    last: bool,
    plain: Vec<u8>,
    taken: usize,
    rows: u64,
}

/// Reads the whole archive: what it says of itself, and what closes it.
pub fn verify(source: impl Read, roots: &RootKeys) -> Result<(Header, End), ArchiveError> {
    let mut reader = Reader::open(source, roots)?;
    loop {
        if let Entry::End(end) = reader.take()? {
            return Ok((reader.header, end));
        }
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header. `roots` are all the root keys there are; the one that the header names is used.
    pub fn open(mut source: R, roots: &RootKeys) -> Result<Self, ArchiveError> {
        let (header, key) = Header::open(&mut source, roots)?;
        Ok(Self { source, header, id: key.id(), key, chunks: 0, last: false, plain: Vec::new(), taken: 0, rows: 0 })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next row, or the end when every row was given. Nothing is to be asked for after the end or an error.
    pub fn take(&mut self) -> Result<Entry, ArchiveError> {
        loop {
            let damaged = Err(ArchiveError::Damaged { part: Part::Chunk(self.chunks.saturating_sub(1)) });
            match entry::take(&self.plain[self.taken..]) {
                Taken::Entry(Entry::Row(row), length) => {
                    self.taken += length;
                    self.rows += 1;
                    return Ok(Entry::Row(row));
                }
                Taken::Entry(Entry::End(end), _) if self.last && end.rows == self.rows => {
                    self.nothing_follows()?;
                    return Ok(Entry::End(end));
                }
                Taken::Unfinished if !self.last => self.open_chunk()?,
                Taken::Entry(Entry::End(_), _) | Taken::Unfinished | Taken::Malformed => return damaged,
            }
        }
    }

    fn open_chunk(&mut self) -> Result<(), ArchiveError> {
        let mut bytes = vec![0; CHUNK];
        if read_full(&mut self.source, &mut bytes)? < CHUNK {
            return Err(ArchiveError::Truncated);
        }
        let sealed = Sealed::from_bytes(Bytes::from(bytes));
        let opened = |last| self.key.open(&place(&self.id, self.chunks, last), &sealed);
        let (plain, last) = match opened(false) {
            Ok(plain) => (plain, false),
            Err(_) => {
                let damaged = |_| ArchiveError::Damaged { part: Part::Chunk(self.chunks) };
                (opened(true).map_err(damaged)?, true)
            }
        };
        self.plain.drain(..self.taken);
        self.taken = 0;
        self.plain.extend_from_slice(&plain);
        self.last = last;
        self.chunks += 1;
        Ok(())
    }

    /// What follows the last chunk was never authenticated, so somebody else put it there.
    fn nothing_follows(&mut self) -> Result<(), ArchiveError> {
        match read_full(&mut self.source, &mut [0])? {
            0 => Ok(()),
            _ => Err(ArchiveError::Damaged { part: Part::AfterEnd }),
        }
    }
}

/// Fills the buffer as far as the source goes.
pub(super) fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArchiveError::Unreadable(error)),
        }
    }
    Ok(length)
}
