//! A [`Store`] in memory with the semantics of the real ones: no thread, no timer, no file, so that a simulation that
//! decides every step can stand on it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use claviger::{
    domain::{AuditLinker, BoxFuture, EntryId, InstallationId, Revision},
    store::{
        AuditEntry, ChangeSet, CommitError, Copied, CopiedRow, Copying, EventEntry, Head, IndexEntry, IndexKind, Purge,
        Receipt, RecordKey, Row, Store, StoreError, Write, WriteAction,
        change::MAX_ROW,
        codec::{self, Place},
    },
};
use futures_util::stream;
use tokio::sync::watch;

pub(crate) struct MemoryStore {
    state: Mutex<State>,
    head: watch::Sender<Head>,
}

struct State {
    rows: BTreeMap<RecordKey, Row>,
    index: BTreeMap<(IndexKind, Bytes), IndexEntry>,
    events: Vec<EventEntry>,
    audit: Vec<AuditEntry>,
    linker: Box<dyn AuditLinker>,
}

impl MemoryStore {
    pub(crate) fn new(installation: InstallationId, epoch: EntryId, linker: Box<dyn AuditLinker>) -> Self {
        let (revision, compacted) = (Revision(0), Revision(0));
        let head = Head { installation, epoch, revision, compacted, audit: 0, audit_purged: 0, available: true };
        let state =
            State { rows: BTreeMap::new(), index: BTreeMap::new(), events: Vec::new(), audit: Vec::new(), linker };
        Self { state: Mutex::new(state), head: watch::channel(head).0 }
    }

    fn open_state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap();
        self.head.borrow().available.then_some(state)
    }

    fn reading<T>(&self, read: impl FnOnce(&State) -> T) -> Result<T, StoreError> {
        self.open_state().map(|state| read(&state)).ok_or(StoreError::Unavailable)
    }
}

impl State {
    fn version(&self, key: &RecordKey) -> Option<u64> {
        self.rows.get(key).map(|row| row.version)
    }

    fn judge(&self, change: &ChangeSet) -> Result<(), CommitError> {
        let fails = |needed: &&claviger::store::Precondition| !needed.expect.holds(self.version(&needed.key));
        if let Some(needed) = change.preconditions.iter().find(fails) {
            return Err(CommitError::PreconditionFailed { key: needed.key.clone() });
        }
        let stale = |write: &&Write| !write.expect.holds(self.version(&write.key));
        let taken = |write: &&Write| {
            write.index().iter().any(|entry| {
                let owner = self.index.get(&(entry.index, entry.key.clone())).map(|taken| &taken.record);
                owner.is_some_and(|owner| change.writes.iter().all(|write| write.key != *owner))
            })
        };
        let conflict = change.writes.iter().find(stale).or_else(|| change.writes.iter().find(taken));
        conflict.map_or(Ok(()), |write| Err(CommitError::Conflict { key: write.key.clone() }))
    }

    fn link(&self, change: &ChangeSet) -> Result<Vec<AuditEntry>, CommitError> {
        let mut linked: Vec<AuditEntry> = Vec::new();
        for record in &change.audit {
            let previous = linked.last().or(self.audit.last());
            let sequence = previous.map_or(1, |previous| previous.sequence + 1);
            let form = self.linker.link(sequence, previous.map(|previous| &previous.linked[..]), &record.body);
            let size = codec::entry_size(form.len());
            if size > MAX_ROW {
                return Err(CommitError::TooLarge { size });
            }
            linked.push(AuditEntry { sequence, id: record.id, linked: form.into() });
        }
        Ok(linked)
    }

    fn copied(&self) -> Vec<CopiedRow> {
        let row = |place: Place, value| CopiedRow { place: place.encode().into(), value: Some(value) };
        let rows = self.rows.iter().map(|(key, value)| row(Place::Record(key.clone()), codec::encode_row(key, value)));
        let entries = self
            .index
            .values()
            .map(|entry| row(Place::Index(entry.index, entry.key.clone()), codec::encode_index_entry(entry)));
        let events =
            self.events.iter().map(|event| row(Place::Event(event.revision, event.index), codec::encode_event(event)));
        let audit = self.audit.iter().map(|record| row(Place::Audit(record.sequence), codec::encode_audit(record)));
        rows.chain(entries).chain(events).chain(audit).collect()
    }

    /// Cuts the old ends off, behind a change set that has been applied, and says where the store stands then.
    fn purge(&mut self, purge: Purge, mut head: Head) -> Head {
        let audit = head.audit;
        head.audit = self.audit.last().map_or(0, |newest| newest.sequence);
        head.compacted = head.compacted.max(purge.events.min(Revision(head.revision.0 - 1)));
        head.audit_purged = head.audit_purged.max(purge.audit.min(audit).min(head.audit.saturating_sub(1)));
        self.events.retain(|event| event.revision > head.compacted);
        self.audit.retain(|record| record.sequence > head.audit_purged);
        head
    }

    fn apply(&mut self, change: ChangeSet, linked: Vec<AuditEntry>, revision: Revision) -> Receipt {
        for write in &change.writes {
            self.rows.remove(&write.key);
            self.index.retain(|_, entry| entry.record != write.key);
        }
        for Write { key, expect, action } in change.writes {
            if let WriteAction::Put { fields, index } = action {
                self.index.extend(index.iter().map(|entry| ((entry.index, entry.key.clone()), entry.clone())));
                self.rows.insert(key, Row { version: expect.next_version(), revision, fields, index });
            }
        }
        for (index, event) in (0..).zip(change.events) {
            self.events.push(EventEntry { revision, index, id: event.id, body: event.body });
        }
        let audit = linked.iter().map(|record| record.sequence).collect();
        self.audit.extend(linked);
        Receipt { revision, audit }
    }
}

impl Store for MemoryStore {
    fn commit(&self, change: ChangeSet) -> BoxFuture<'_, Result<Receipt, CommitError>> {
        Box::pin(async move {
            change.check()?;
            let mut state = self.open_state().ok_or(CommitError::Unavailable)?;
            state.judge(&change)?;
            let linked = state.link(&change)?;
            let revision = self.head.borrow().revision.next();
            let purge = change.purge;
            let receipt = state.apply(change, linked, revision);
            let before = *self.head.borrow();
            let after = state.purge(purge, Head { revision, ..before });
            self.head.send_modify(|head| *head = after);
            Ok(receipt)
        })
    }

    fn row(&self, key: RecordKey) -> BoxFuture<'_, Result<Option<Arc<Row>>, StoreError>> {
        Box::pin(async move { self.reading(|state| state.rows.get(&key).cloned().map(Arc::new)) })
    }

    fn index(
        &self,
        index: IndexKind,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<IndexEntry>, StoreError>> {
        Box::pin(async move {
            self.reading(|state| {
                let under = state.index.values().filter(|entry| entry.index == index && entry.key.starts_with(&prefix));
                let later = under.filter(|entry| after.as_ref().is_none_or(|after| entry.key > *after));
                later.take(limit).cloned().collect()
            })
        })
    }

    fn events(&self, after: Revision, limit: usize) -> BoxFuture<'_, Result<Vec<EventEntry>, StoreError>> {
        Box::pin(async move {
            self.reading(|state| {
                let later: Vec<_> = state.events.iter().filter(|event| event.revision > after).collect();
                let last = limit.checked_sub(1).map(|last| later.get(last).or(later.last()));
                let last = last.flatten().map(|event| event.revision);
                later.into_iter().filter(|event| Some(event.revision) <= last).cloned().collect()
            })
        })
    }

    fn audit(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreError>> {
        Box::pin(async move {
            self.reading(|state| {
                state.audit.iter().filter(|record| record.sequence > after).take(limit).cloned().collect()
            })
        })
    }

    fn copy(&self) -> BoxFuture<'_, Result<Copying, StoreError>> {
        Box::pin(async move {
            let state = self.open_state().ok_or(StoreError::Unavailable)?;
            let end = Copied::End { head: *self.head.borrow() };
            Ok(Copying::new(stream::iter([Ok(Copied::Rows(state.copied())), Ok(end)])))
        })
    }

    fn head(&self) -> Head {
        *self.head.borrow()
    }

    fn watch_head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _state = self.state.lock().unwrap();
            self.head.send_if_modified(|head| std::mem::replace(&mut head.available, false));
        })
    }
}
