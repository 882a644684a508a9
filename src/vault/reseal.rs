//! Moves a row from the key that it is sealed under to another one, unread.

use futures_util::future::join_all;
use serde::Deserialize;

use super::{Vault, VaultError, keyring::HeldKey, place, stored::ParkedRecord, witness};
use crate::{
    domain::KeyId,
    sealing::sealed_key_id,
    store::{
        ChangeSet, CommitError, Expect, FieldTag, IndexEntry, IndexKind, Precondition, RecordKey, RecordKind, Row,
        RowFields, Write,
    },
};

/// Rows moved at a time: enough to share an fsync, few enough to let callers' change sets in between.
const AT_ONCE: usize = 64;

/// The part of a record that says which state its secrets are sealed for.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    parked: Option<ParkedRecord>,
}

impl Vault {
    /// Moves rows from one key to another. False: some may be left. One that a change set has written meanwhile stays
    /// for the next time; so does all of it when `to` is not in force any more, as `in_force` says.
    pub(super) async fn move_rows(
        &self,
        from: KeyId,
        to: &HeldKey,
        in_force: &Precondition,
    ) -> Result<bool, VaultError> {
        let page = super::roots::under(self.store().as_ref(), from, None, AT_ONCE).await?;
        let ended = page.len() < AT_ONCE;
        let moves = page.iter().map(|entry| self.move_row(&entry.record, from, to, in_force));
        let moved: Vec<bool> = join_all(moves).await.into_iter().collect::<Result<_, _>>()?;
        Ok(ended && moved.into_iter().all(|moved| moved))
    }

    /// False: not now.
    async fn move_row(
        &self,
        record: &RecordKey,
        from: KeyId,
        to: &HeldKey,
        in_force: &Precondition,
    ) -> Result<bool, VaultError> {
        let Some(row) = witness::row(self.store().as_ref(), record).await? else { return Ok(true) };
        if under_of(&row) != Some(from) {
            return Ok(true);
        }
        let Some(held) = self.keyring().key(from).await? else { return Err(VaultError::unsealable(record)) };
        let set = ChangeSet {
            writes: vec![self.resealed(record, &row, &held, to)?],
            preconditions: vec![in_force.clone()],
            ..ChangeSet::default()
        };
        let committed = self.store().commit(set).await;
        if record.kind() == RecordKind::Key
            && let Some(id) = super::roots::key_named_by(record)
        {
            self.keyring().forget_id(id);
        }
        match committed {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict { .. } | CommitError::PreconditionFailed { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The row as its next version under the key that it is sealed under.
    pub(super) async fn resealed_in_place(&self, record: &RecordKey, row: &Row) -> Result<Write, VaultError> {
        let sealed = row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(record))?;
        let held = self.keyring().key_of(sealed, record).await?;
        self.resealed(record, row, &held, &held)
    }

    /// The row as its next version, with every field sealed anew.
    pub(super) fn resealed(
        &self,
        record: &RecordKey,
        row: &Row,
        from: &HeldKey,
        to: &HeldKey,
    ) -> Result<Write, VaultError> {
        let expect = Expect::Version(row.version);
        let secrets = secrets_sealed_for(record, row, from)?;
        let mut fields = RowFields::with_capacity(row.fields.len());
        for (tag, sealed) in &row.fields {
            let (before, after) = match tag {
                FieldTag::Record | FieldTag::Key => (row.version, expect.next_version()),
                _ => {
                    let state = secrets.ok_or_else(|| VaultError::corrupt(record))?;
                    (state, state)
                }
            };
            let opened = from.key.open(&place::field(record, *tag, before), sealed);
            let plain = opened.map_err(|_| VaultError::unsealable(record))?;
            fields.push((*tag, to.key.seal(&place::field(record, *tag, after), &plain, self.random())?));
        }
        let index = row.index.iter().map(|entry| entry_of(entry, to.key.id(), expect.next_version())).collect();
        Ok(Write::put(record.clone(), expect, fields, index))
    }
}

/// The same entry for the same row under another key.
fn entry_of(entry: &IndexEntry, key: KeyId, version: u64) -> IndexEntry {
    let record = entry.record.clone();
    match (entry.index, entry.due_at()) {
        (_, Some(at)) => IndexEntry::due(at, record, version),
        (IndexKind::SealedUnder, _) => {
            IndexEntry::sealed_under(key, record, (!entry.value.is_empty()).then_some(version))
        }
        _ => entry.clone(),
    }
}

/// The key that the index has the row under.
fn under_of(row: &Row) -> Option<KeyId> {
    let sealed = row.field(FieldTag::Record).or_else(|| row.field(FieldTag::Key))?;
    sealed_key_id(sealed).ok()
}

fn secrets_sealed_for(record: &RecordKey, row: &Row, from: &HeldKey) -> Result<Option<u64>, VaultError> {
    if row.fields.iter().all(|(tag, _)| matches!(tag, FieldTag::Record | FieldTag::Key)) {
        return Ok(None);
    }
    let sealed = row.field(FieldTag::Record).ok_or_else(|| VaultError::corrupt(record))?;
    let outline: Outline = super::records::open(&from.key, record, row.version, sealed)?;
    Ok(outline.parked.map(|parked| parked.version))
}
