//! Rows in, bytes out.

use bytes::Bytes;

use super::{End, Header, PLAIN, entry, place};
use crate::{
    domain::{KeyId, Sealed},
    sealing::{AssociatedData, Key, Random, RandomUnavailable},
    store::{CopiedRow, Head},
};

/// Writes one archive. It keeps less than a chunk and a row; an archive without [`Writer::finish`] is a truncated one.
pub struct Writer {
    key: Key,
    id: KeyId,
    random: Random,
    number: u64,
    rows: u64,
    plain: Vec<u8>,
}

impl Writer {
    /// The writer, and the archive's first bytes. `wrap` seals the archive's key under a root key, bound to the place
    /// that it is given: the root key itself need not come here.
    pub fn begin<E: From<RandomUnavailable>>(
        header: &Header,
        wrap: impl FnOnce(&AssociatedData<'_>, &Key) -> Result<Sealed, E>,
        random: Random,
    ) -> Result<(Self, Bytes), E> {
        let (bytes, key) = header.seal(wrap, &random)?;
        Ok((Self { id: key.id(), key, random, number: 0, rows: 0, plain: Vec::with_capacity(PLAIN) }, bytes.into()))
    }

    /// Takes rows; gives the chunks that are full, in order.
    pub fn add<'a>(&mut self, rows: impl IntoIterator<Item = &'a CopiedRow>) -> Result<Vec<Bytes>, RandomUnavailable> {
        let mut chunks = Vec::new();
        for row in rows {
            entry::put_row(&mut self.plain, row);
            self.rows += 1;
            self.seal_full(&mut chunks)?;
        }
        Ok(chunks)
    }

    /// The rows that were added so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Closes the archive, which shows the store at `head`; gives its last chunks.
    pub fn finish(mut self, head: &Head) -> Result<(Vec<Bytes>, End), RandomUnavailable> {
        let Head { revision, compacted, audit, audit_purged, .. } = *head;
        let end = End { rows: self.rows, revision, compacted, audit, audit_purged };
        entry::put_end(&mut self.plain, &end);
        let mut chunks = Vec::new();
        self.seal_full(&mut chunks)?;
        self.plain.resize(PLAIN, 0);
        chunks.push(self.seal(&self.plain, true)?);
        Ok((chunks, end))
    }

    /// Seals what is surely not the last chunk.
    fn seal_full(&mut self, chunks: &mut Vec<Bytes>) -> Result<(), RandomUnavailable> {
        while self.plain.len() > PLAIN {
            chunks.push(self.seal(&self.plain[..PLAIN], false)?);
            self.plain.drain(..PLAIN);
            self.number += 1;
        }
        Ok(())
    }

    fn seal(&self, plain: &[u8], last: bool) -> Result<Bytes, RandomUnavailable> {
        let sealed = self.key.seal(&place(&self.id, self.number, last), plain, &self.random)?;
        Ok(sealed.as_bytes().clone())
    }
}
