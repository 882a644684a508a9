//! What hot reads are served from: sealed rows and short index pages. Both are bounded by weight, hold only what is
//! durable, and are changed under the lock that [`Shared`](super::shared::Shared) describes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use crate::store::{
    change::Row,
    codec::row_size,
    key::{IndexEntry, IndexKind, MAX_INDEX_KEY, RecordKey},
};

pub(super) struct HotRows {
    rows: Cache<RecordKey, Arc<Row>, Weight>,
    pages: Cache<(IndexKind, Bytes), Arc<[IndexEntry]>, Weight>,
    /// Which lengths of prefix were ever kept, a bit each: a changed entry forgets the pages of these prefixes.
    prefix_lengths: [AtomicU64; (MAX_INDEX_KEY + 1).div_ceil(64)],
}

impl HotRows {
    /// Keeps about `weight` bytes.
    pub(super) fn new(weight: u64) -> Self {
        let pages = weight / 8;
        let estimate = |weight: u64, each: u64| usize::try_from(weight / each).unwrap_or(usize::MAX).max(16);
        Self {
            rows: Cache::with_weighter(estimate(weight - pages, 2048), weight - pages, Weight),
            pages: Cache::with_weighter(estimate(pages, 512), pages, Weight),
            prefix_lengths: Default::default(),
        }
    }

    pub(super) fn row(&self, key: &RecordKey) -> Option<Arc<Row>> {
        self.rows.get(key)
    }

    pub(super) fn keep_row(&self, key: RecordKey, row: Arc<Row>) {
        self.rows.insert(key, row);
    }

    /// Every entry under `prefix`, in order.
    pub(super) fn page(&self, index: IndexKind, prefix: &Bytes) -> Option<Arc<[IndexEntry]>> {
        self.pages.get(&(index, prefix.clone()))
    }

    /// Keeps `entries`, which must be all under `prefix`, unless they are too many to be worth it.
    pub(super) fn keep_page(&self, index: IndexKind, prefix: Bytes, entries: &[IndexEntry]) {
        if entries.len() > LONGEST_PAGE || prefix.len() > MAX_INDEX_KEY {
            return;
        }
        self.prefix_lengths[prefix.len() / 64].fetch_or(1 << (prefix.len() % 64), Ordering::Relaxed);
        self.pages.insert((index, prefix), entries.into());
    }

    /// Forgets what a durable group changed: its rows, and the pages that touched index keys stand on.
    pub(super) fn forget<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a RecordKey>,
        entries: impl IntoIterator<Item = (IndexKind, Bytes)>,
    ) {
        rows.into_iter().for_each(|key| drop(self.rows.remove(key)));
        for (index, key) in entries {
            for length in (0..=key.len()).filter(|length| self.keeps_prefixes_of(*length)) {
                self.pages.remove(&(index, key.slice(..length)));
            }
        }
    }

    /// Keeps the rows of a durable group as they are now (`None`: removed), after [`HotRows::forget`]: an insertion that
    /// is refused as too heavy would leave the old row.
    pub(super) fn keep(&self, rows: impl IntoIterator<Item = (RecordKey, Option<Arc<Row>>)>) {
        for (key, row) in rows {
            if let Some(row) = row {
                self.rows.insert(key, row);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.rows.clear();
        self.pages.clear();
    }

    fn keeps_prefixes_of(&self, length: usize) -> bool {
        self.prefix_lengths[length / 64].load(Ordering::Relaxed) & (1 << (length % 64)) != 0
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<RecordKey, Arc<Row>> for Weight {
    fn weight(&self, key: &RecordKey, row: &Arc<Row>) -> u64 {
        (OVERHEAD + key.id().len() + row_size(&row.fields, &row.index)) as u64
    }
}

impl Weighter<(IndexKind, Bytes), Arc<[IndexEntry]>> for Weight {
    fn weight(&self, (_, prefix): &(IndexKind, Bytes), page: &Arc<[IndexEntry]>) -> u64 {
        let entries: usize = page.iter().map(|entry| OVERHEAD + 2 * entry.key.len()).sum();
        (OVERHEAD + prefix.len() + entries) as u64
    }
}

/// Entries of the longest page that is kept.
const LONGEST_PAGE: usize = 64;
/// Bytes that a cached row or entry takes besides its content.
const OVERHEAD: usize = 200;
