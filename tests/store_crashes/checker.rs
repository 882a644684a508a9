//! What must hold of a store after a crash, whatever the moment: its log tells which change sets there were, and
//! everything else has to agree with it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
};

use claviger::{
    audit::{Position, check},
    domain::{AuditAction, ConnectionId, EventKind, JobId, Revision, Timestamp},
    store::Store,
    vault::{DueRecord, Stored, TokenSet, Vault},
};

use crate::{
    words::{Effects, Name, SUBJECTS, Word, open, subject, tenant},
    writer::tokens,
};

/// Entries of a log that are read at a time.
const PAGE: usize = 256;

/// The history as far as it is known.
#[derive(Clone, Default)]
pub(crate) struct Checker {
    connections: BTreeMap<ConnectionId, Kept>,
    /// Revisions with events.
    logged: BTreeSet<Revision>,
    /// How many root keys were ever given.
    roots: u8,
    /// By whom each was made.
    jobs: BTreeMap<JobId, Name>,
    /// Where the checked part of the log and of the chain ends.
    revision: Revision,
    chain: Option<Position>,
    committed: u64,
    /// What the child told since.
    begun: HashMap<Name, Effects>,
    acknowledged: HashMap<Name, (Revision, Vec<u64>)>,
    refused: HashSet<Name>,
    /// What the logs begin after.
    purged: (Revision, u64),
    announced: Revision,
}

/// A connection as the log says it must be.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    version: u64,
    generation: u64,
    written_by: Name,
    tokens_by: Name,
}

impl Checker {
    /// Nothing but keys is there yet, up to `revision`.
    pub(crate) fn begin(revision: Revision) -> Self {
        Self { revision, roots: 1, ..Self::default() }
    }

    /// A further root key for whoever opens the store from now on.
    pub(crate) fn add_root(&mut self) -> u8 {
        self.roots += 1;
        self.roots
    }

    pub(crate) fn roots(&self) -> u8 {
        self.roots
    }

    pub(crate) fn hear(&mut self, word: Word) {
        match word {
            Word::Begun { name, effects } => assert!(self.begun.insert(name, effects).is_none(), "{name} comes twice"),
            Word::Acknowledged { name, revision, audit } => drop(self.acknowledged.insert(name, (revision, audit))),
            Word::Refused { name } => drop(self.refused.insert(name)),
            Word::Announced { revision } => self.announced = self.announced.max(revision),
            Word::Compacting | Word::Opening | Word::Opened | Word::Copied { .. } => {}
        }
    }

    /// Change sets that were found in the log.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// The part of both logs that has been checked: what comes after it must not be missing.
    pub(crate) fn checked(&self) -> (Revision, u64) {
        (self.revision, self.chain.map_or(0, |position| position.sequence))
    }

    /// Checks a copy as of `revision`, of which nothing newer is expected.
    pub(crate) async fn check_copy(&self, directory: &Path, revision: Revision) {
        let mut then = self.clone();
        then.acknowledged.retain(|_, (acknowledged, _)| *acknowledged <= revision);
        then.announced = then.announced.min(revision);
        then.check(directory).await;
        assert_eq!(then.revision, revision, "the copy ends where it said");
    }

    /// Opens what the crash left and checks all of it.
    pub(crate) async fn check(&mut self, directory: &Path) {
        let (store, vault) = open(directory, self.roots).await.unwrap_or_else(|error| panic!("{error}"));
        let committed = self.replay_events(&vault).await;
        for (name, (revision, _)) in &self.acknowledged {
            assert!(committed.contains(name), "{name} was acknowledged at revision {} and is gone", revision.0);
        }
        assert!(store.head().revision >= self.revision, "nothing is beyond the head");
        self.revision = store.head().revision;
        let Revision(announced) = self.announced;
        assert!(self.revision.0 >= announced, "revision {announced} was announced and is gone");
        self.replay_audit(&*store, &vault, &committed).await;
        self.compare_beginnings(&*store).await;
        self.compare_connections(&vault).await;
        self.compare_due(&vault).await;
        self.begun.clear();
        self.acknowledged.clear();
        self.refused.clear();
        store.close().await;
    }

    /// Applies the new part of the log; returns what was committed, in order.
    async fn replay_events(&mut self, vault: &Vault) -> Vec<Name> {
        let mut committed = Vec::new();
        loop {
            let page = vault.events(self.revision, PAGE).await.unwrap();
            if page.is_empty() {
                return committed;
            }
            for (revision, events) in page {
                assert!(revision > self.revision, "the revisions rise");
                self.revision = revision;
                self.logged.insert(revision);
                let name = Name::of(events.first().expect("every event opens").occurred_at);
                let effects = self.begun.get(&name).unwrap_or_else(|| panic!("{name} was never begun"));
                assert!(!self.refused.contains(&name), "{name} was refused and is there");
                if let Some((acknowledged, _)) = self.acknowledged.get(&name) {
                    assert_eq!(revision, *acknowledged, "of {name}");
                }
                let told = effects.connections.iter().map(|written| (written.id, written.generation, name.at()));
                let found =
                    events.iter().map(|event| (event.status.connection, event.status.generation, event.occurred_at));
                assert_eq!(told.collect::<Vec<_>>(), found.collect::<Vec<_>>(), "the events of {name}");
                assert!(events.iter().all(|event| matches!(event.kind, EventKind::Refreshed | EventKind::Recovered)));
                let effects = effects.clone();
                self.apply(name, &effects);
                committed.push(name);
                self.committed += 1;
            }
        }
    }

    fn apply(&mut self, name: Name, effects: &Effects) {
        for written in &effects.connections {
            let before = self.connections.get(&written.id);
            let tokens_by = if written.brings_tokens { name } else { before.expect("it has tokens").tokens_by };
            let version = before.map_or(0, |before| before.version) + 1;
            let kept = Kept { version, generation: written.generation, written_by: name, tokens_by };
            self.connections.insert(written.id, kept);
        }
        self.jobs.extend(effects.made.iter().map(|id| (*id, name)));
        self.purged = (self.purged.0.max(effects.purged.0), self.purged.1.max(effects.purged.1));
        for id in &effects.done {
            assert!(self.jobs.remove(id).is_some(), "{name} did a job that is not there");
        }
    }

    /// The chain holds and has the records of what was committed, in the same order, and no others.
    async fn replay_audit(&mut self, store: &dyn Store, vault: &Vault, committed: &[Name]) {
        let begin = self.chain.map_or(0, |position| position.sequence);
        let entries = store.audit(begin, usize::MAX).await.unwrap();
        self.chain = check(vault.keys().audit(), self.chain, entries.iter().map(|entry| &entry.linked[..])).unwrap();
        let records = vault.audit(begin, usize::MAX).await.unwrap();
        assert_eq!(records.len(), entries.len());
        assert!(records.iter().map(|(sequence, _)| *sequence).eq(begin + 1..begin + 1 + entries.len() as u64));
        let rotations = records.iter().filter(|(_, record)| record.action == AuditAction::KeyRotated).count();
        println!("{} change sets, {rotations} rotations begun", committed.len());
        let mut records = records.into_iter().filter(|(_, record)| record.action != AuditAction::KeyRotated);
        for name in committed {
            let sequences: Vec<u64> = (0..self.begun[name].audit)
                .map(|_| {
                    let (sequence, record) = records.next().expect("an audit record is missing");
                    assert_eq!(record.request_id.map(|id| id.as_str().parse().unwrap()), Some(*name));
                    assert_eq!(record.action, AuditAction::ConnectionChanged);
                    sequence
                })
                .collect();
            if let Some((_, told)) = self.acknowledged.get(name) {
                assert_eq!(sequences, *told, "the audit records of {name}");
            }
        }
        assert!(records.next().is_none(), "an audit record without its change set");
    }

    /// What was purged is gone, all of it and nothing else.
    async fn compare_beginnings(&self, store: &dyn Store) {
        let head = store.head();
        assert_eq!((head.compacted, head.audit_purged), self.purged);
        let events = store.events(Revision(0), 1).await.unwrap();
        let first = self.logged.range(head.compacted.next()..).next();
        assert_eq!(events.first().map(|event| event.revision), first.copied());
        let audit = store.audit(0, 1).await.unwrap();
        assert!(audit.iter().all(|entry| entry.sequence == head.audit_purged + 1));
    }

    async fn compare_connections(&self, vault: &Vault) {
        let mut found = BTreeMap::new();
        for number in 0..SUBJECTS {
            for stored in vault.connections(&tenant(), subject(number), None).await.unwrap() {
                let brought = vault.connection_tokens(&stored).await.unwrap();
                found.insert(stored.value.id, kept(&stored, brought.as_ref()));
            }
        }
        assert_eq!(found, self.connections);
    }

    /// The scheduler's index has one entry of each record, of its newest write.
    async fn compare_due(&self, vault: &Vault) {
        let (mut connections, mut jobs) = (BTreeMap::new(), BTreeMap::new());
        for due in vault.due(Timestamp::NEVER, usize::MAX).await.unwrap() {
            let name = Name::of(due.at);
            match due.record {
                DueRecord::Connection(id) => assert_eq!(connections.insert(id, (name, due.witness)), None),
                DueRecord::Job(id) => {
                    let job = vault.job(id).await.unwrap().expect("what is due is there");
                    let carried = vault.job_tokens(&job).await.unwrap();
                    assert!(is_of(name, carried.as_ref()), "the tokens of the job of {name}");
                    assert_eq!(jobs.insert(id, name), None);
                }
                other => panic!("{other:?} was never written"),
            }
        }
        let expected = self.connections.iter().map(|(id, kept)| (*id, (kept.written_by, kept.version)));
        assert_eq!(connections, expected.collect());
        assert_eq!(jobs, self.jobs);
    }
}

fn kept(stored: &Stored<claviger::domain::Connection>, brought: Option<&TokenSet>) -> Kept {
    let written_by = stored.value.account.as_ref().unwrap().parse().unwrap();
    let access = brought.expect("a connection has tokens").access.expose();
    let tokens_by = access.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(is_of(tokens_by, brought), "the tokens of {tokens_by}");
    Kept { version: stored.version(), generation: stored.value.credential.generation, written_by, tokens_by }
}

fn is_of(name: Name, found: Option<&TokenSet>) -> bool {
    let expected = tokens(name);
    found.is_some_and(|found| found.access == expected.access && found.refresh == expected.refresh)
}
