//! A store in an attacker's hands: it keeps every byte that it was given, and answers with rows of his choosing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use claviger::{
    domain::{BoxFuture, Revision, Sealed},
    store::{
        AuditEntry, ChangeSet, CommitError, Copying, EventEntry, FieldTag, Head, IndexEntry, IndexKind, Receipt,
        RecordKey, RecordKind, Row, Store, StoreError, WriteAction,
    },
    vault::LinkedAudit,
};

pub(crate) struct TamperingStore {
    inner: Arc<dyn Store>,
    hands: Mutex<Hands>,
}

#[derive(Default)]
struct Hands {
    /// Every key, index key, index value and sealed field that was ever committed, one after another.
    seen: Vec<Bytes>,
    written: Vec<RecordKey>,
    /// What `row` answers instead.
    forged: HashMap<RecordKey, Option<Row>>,
    /// The events of this revision are read with a bit flipped.
    spoiled: Option<Revision>,
    /// Event and audit entries are read with each other's bodies, the first with the last one's.
    exchanged: bool,
    /// Answers reads of this row only once that many have come together.
    gate: Option<(RecordKind, Arc<tokio::sync::Barrier>)>,
}

impl TamperingStore {
    pub(crate) fn over(inner: Arc<dyn Store>) -> Self {
        Self { inner, hands: Mutex::default() }
    }

    /// Everything that was ever given to the store, and what it made of audit records.
    pub(crate) async fn everything(&self) -> Vec<Bytes> {
        let linked = self.inner.audit(0, usize::MAX).await.expect("the inner store answers");
        let mut everything = self.hands().seen.clone();
        everything.extend(linked.into_iter().map(|entry| entry.linked));
        everything
    }

    /// The rows of a kind, in the order in which they were first written.
    pub(crate) async fn rows(&self, kind: RecordKind) -> Vec<(RecordKey, Row)> {
        let mut keys = self.hands().written.clone();
        keys.retain(|key| key.kind() == kind);
        let mut rows = Vec::new();
        for key in keys {
            if let Some(row) = self.inner.row(key.clone()).await.expect("the inner store answers") {
                rows.push((key, Row::clone(&row)));
            }
        }
        rows
    }

    /// From now on this row is read instead of the real one; `None`: it is gone.
    pub(crate) fn forge(&self, key: &RecordKey, row: Option<Row>) {
        self.hands().forged.insert(key.clone(), row);
    }

    /// From now on the events of this revision do not open.
    pub(crate) fn spoil_events(&self, revision: Revision) {
        self.hands().spoiled = Some(revision);
    }

    /// From now on each log is read with its bodies in reverse.
    pub(crate) fn exchange_bodies(&self) {
        self.hands().exchanged = true;
    }

    pub(crate) fn repent(&self) {
        self.hands().forged.clear();
    }

    /// Lets `racers` readers of a kind of row see its absence together, once.
    pub(crate) fn race(&self, kind: RecordKind, racers: usize) {
        self.hands().gate = Some((kind, Arc::new(tokio::sync::Barrier::new(racers))));
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().expect("no test panics while holding it")
    }
}

impl Store for TamperingStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        {
            let mut hands = self.hands();
            for write in &change.writes {
                hands.seen.push(write.key.id().clone());
                if !hands.written.contains(&write.key) {
                    hands.written.push(write.key.clone());
                }
                if let WriteAction::Put { fields, index } = &write.action {
                    hands.seen.extend(fields.iter().map(|(_, sealed)| sealed.as_bytes().clone()));
                    hands.seen.extend(index.iter().flat_map(|entry| [entry.key.clone(), entry.value.clone()]));
                }
            }
            hands.seen.extend(change.preconditions.iter().map(|precondition| precondition.key.id().clone()));
            let entries = change.events.iter().chain(&change.audit);
            hands.seen.extend(
                entries.flat_map(|entry| [Bytes::copy_from_slice(entry.id.as_bytes()), entry.body.as_bytes().clone()]),
            );
        }
        self.inner.commit(change)
    }

    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Arc<Row>>, StoreError>> {
        Box::pin(async move {
            if let Some(forged) = self.hands().forged.get(&key) {
                return Ok(forged.clone().map(Arc::new));
            }
            let row = self.inner.row(key.clone()).await?;
            let gate = self.hands().gate.clone().filter(|(kind, _)| *kind == key.kind() && row.is_none());
            if let Some((_, barrier)) = gate {
                barrier.wait().await;
                self.hands().gate = None;
            }
            Ok(row)
        })
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        self.inner.index(index, prefix, after, limit)
    }

    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        Box::pin(async move {
            let mut entries = self.inner.events(after, limit).await?;
            let spoiled = self.hands().spoiled;
            for entry in entries.iter_mut().filter(|entry| Some(entry.revision) == spoiled) {
                let mut body = entry.body.as_bytes().to_vec();
                *body.last_mut().expect("a sealed body ends with its tag") ^= 1;
                entry.body = Sealed::from_bytes(body.into());
            }
            if self.hands().exchanged {
                let bodies: Vec<_> = entries.iter().rev().map(|entry| entry.body.clone()).collect();
                entries.iter_mut().zip(bodies).for_each(|(entry, body)| entry.body = body);
            }
            Ok(entries)
        })
    }

    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(async move {
            let mut entries = self.inner.audit(after, limit).await?;
            if self.hands().exchanged {
                let read = |entry: &AuditEntry| LinkedAudit::decode(&entry.linked).expect("the chain made it");
                let bodies: Vec<_> = entries.iter().rev().map(|entry| read(entry).body).collect();
                for (entry, body) in entries.iter_mut().zip(bodies) {
                    entry.linked = LinkedAudit { body, ..read(entry) }.encode().into();
                }
            }
            Ok(entries)
        })
    }

    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>> {
        self.inner.copy()
    }

    fn head(&self) -> Head {
        self.inner.head()
    }

    fn watch_head(&self) -> tokio::sync::watch::Receiver<Head> {
        self.inner.watch_head()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// The row with one field replaced.
pub(crate) fn with_field(row: &Row, tag: FieldTag, from: &Row, of: FieldTag) -> Row {
    let mut row = row.clone();
    let taken = from.field(of).expect("the other row has the field").clone();
    for (have, sealed) in &mut row.fields {
        if *have == tag {
            *sealed = taken.clone();
        }
    }
    row
}
