//! A store's content as of one revision, for archives and compaction.

use std::fmt;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};

use super::{Head, StoreError};

/// A copy that is being taken. Dropping it gives it up.
pub struct Copying(BoxStream<'static, Result<Copied, CopyError>>);

/// The next part of a copy.
pub enum Copied {
    /// Records, index entries, events and audit records; of those with the same place the last one counts.
    Rows(Vec<CopiedRow>),
    /// The end: all rows together are what the store held at this head.
    End { head: Head },
}

/// What stands at a place.
#[derive(Clone, PartialEq, Eq)]
pub struct CopiedRow {
    /// A [`Place`](super::codec::Place), encoded.
    pub place: Bytes,
    /// The stored value with its frame, checked; `None`: it is gone since it was copied.
    pub value: Option<Bytes>,
}

/// A copy was not taken to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its reader was too slow for the writers: what changed behind it was more than the store remembers.
    #[error("more than {places} rows changed while the copy waited for its reader; take it again when less is written")]
    Outrun { places: usize },
}

impl Copying {
    /// A copy that consists of these parts; the last one is [`Copied::End`], or an error.
    pub fn new(parts: impl Stream<Item = Result<Copied, CopyError>> + Send + 'static) -> Self {
        Self(parts.boxed())
    }

    /// The next part; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Copied, CopyError>> {
        self.0.next().await
    }
}

/// The place alone: a value is nobody's to print.
impl fmt::Debug for CopiedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.value.as_ref().map(Bytes::len);
        f.debug_struct("CopiedRow").field("place", &self.place).field("size", &size).finish()
    }
}
