//! Tells a row that was put back to an older state, by the entry that the index has of its newest one.

use std::sync::Arc;

use super::VaultError;
use crate::store::{IndexEntry, IndexKind, RecordKey, Row, Store};

/// As [`Store::row`], for a row that is about to be opened: also that it is the newest one of its record, as far as
/// whoever put it back did not also put back the index.
pub(super) async fn row(store: &dyn Store, key: &RecordKey) -> Result<Option<Arc<Row>>, VaultError> {
    loop {
        let Some(row) = store.row(key.clone()).await? else { return Ok(None) };
        if agrees(store, &row).await? {
            return Ok(Some(row));
        }
        // A change set that came between the two reads is no forgery: then the row is another one by now.
        match store.row(key.clone()).await? {
            Some(again) if again.version == row.version => {
                return Err(VaultError::RolledBack { record: format!("{key:?}") });
            }
            Some(_) | None => {}
        }
    }
}

/// Whether the index has the row's own entry with the row's own version.
pub(super) async fn agrees(store: &dyn Store, row: &Row) -> Result<bool, VaultError> {
    let Some(witness) = witness_of(row) else { return Ok(false) };
    let found = store.index(witness.index, witness.key.clone(), None, 1).await?;
    let told = found.first().filter(|entry| entry.key == witness.key && entry.record == witness.record);
    Ok(told.is_some_and(|entry| entry.value.as_ref() == row.version.to_be_bytes()))
}

fn witness_of(row: &Row) -> Option<&IndexEntry> {
    let of = |kind| row.index.iter().find(|entry| entry.index == kind);
    of(IndexKind::Due).or_else(|| of(IndexKind::SealedUnder))
}
