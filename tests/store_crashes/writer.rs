//! The child: several tasks change connections and jobs, and tell what they begin and what was acknowledged.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use claviger::{
    domain::{
        AccessToken, AuditAction, AuditRecord, Connection, ConnectionId, Consent, Credential, CredentialEvent,
        CredentialId, CredentialStatus, EventKind, Granted, Job, JobId, JobKind, RefreshToken, Revision, ScopeSet,
        Timestamp, installation_tenant,
    },
    store::{
        Copied, Purge, Store,
        sled::{self, Import},
    },
    vault::{Change, DueRecord, Stored, TokenSet, Tokens, Vault, VaultError},
};

use crate::words::{Dice, Effects, Name, Orders, SUBJECTS, Word, Written, open, subject, tenant};

/// Most connections of a subject.
const CONNECTIONS: usize = 12;

/// Makes the keys of all the tenants and subjects, so that every later change set is one of [`work`]; returns the head.
pub(crate) async fn prepare(directory: &Path) -> Revision {
    let (store, vault) = open(directory, 1).await.unwrap();
    for number in 0..SUBJECTS {
        vault.change(&tenant(), Some(subject(number))).await.unwrap();
    }
    store.close().await;
    store.head().revision
}

/// The child's whole life, if nobody ends it sooner.
pub(crate) fn work(orders: &Orders) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        if orders.compacts {
            Word::Compacting.tell();
            sled::compact(&orders.directory.join("store"), |_| {}).unwrap();
        }
        Word::Opening.tell();
        let (store, vault) = open(&orders.directory, orders.roots).await.unwrap();
        Word::Opened.tell();
        let mut head = store.watch_head();
        let listener = tokio::spawn(async move {
            while head.changed().await.is_ok() {
                let revision = head.borrow_and_update().revision;
                Word::Announced { revision }.tell();
            }
        });
        let tasks: Vec<_> = (0..=SUBJECTS)
            .map(|task| {
                let begin = Name { round: orders.round, task: task.into(), number: 0 };
                let writer = Writer {
                    vault: vault.clone(),
                    owner: task % SUBJECTS,
                    name: begin,
                    dice: Dice(orders.seed ^ u64::from(task) << 32),
                    jobs: Vec::new(),
                    purgeable: orders.purgeable,
                };
                tokio::spawn(writer.run(orders.each))
            })
            .collect();
        let rotating = orders.rotates.then(|| tokio::spawn(rotate(vault.clone())));
        if orders.copies {
            copy(&*store, &orders.copy().join("store")).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        rotating.inspect(|rotating| rotating.abort());
        store.close().await;
        listener.abort();
    });
}

/// Goes on with what an earlier child began; then supersedes the tenant's key again and again.
async fn rotate(vault: Vault) {
    let record = |tenant| AuditRecord::by_broker(tenant, AuditAction::KeyRotated, Timestamp::EPOCH);
    match vault.begin_root_rotation(&record(installation_tenant())).await {
        Ok(_) | Err(VaultError::NoNewRootKey { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    loop {
        for (what, _) in vault.rotations().await.unwrap() {
            while vault.go_on_rotating(&what).await.unwrap() {}
        }
        vault.begin_tenant_rotation(&tenant(), &record(tenant())).await.unwrap();
    }
}

async fn copy(store: &dyn Store, into: &Path) {
    let mut import = Import::begin(into).unwrap();
    let mut copying = store.copy().await.unwrap();
    while let Some(part) = copying.next().await {
        match part.unwrap() {
            Copied::Rows(rows) => tokio::task::block_in_place(|| import.add(&rows)).unwrap(),
            Copied::End { head } => {
                tokio::task::block_in_place(|| import.finish(head)).unwrap();
                return Word::Copied { revision: head.revision }.tell();
            }
        }
    }
    panic!("the copy has no end");
}

struct Writer {
    vault: Vault,
    owner: u8,
    name: Name,
    dice: Dice,
    /// Jobs that may still be there.
    jobs: Vec<JobId>,
    purgeable: (Revision, u64),
}

impl Writer {
    async fn run(mut self, each: u32) {
        for due in self.vault.due(Timestamp::NEVER, usize::MAX).await.unwrap() {
            let DueRecord::Job(id) = due.record else { continue };
            // another task may have done it meanwhile
            let job = self.vault.job(id).await.unwrap();
            self.jobs.extend(job.filter(|job| job.value.subject == subject(self.owner)).map(|job| job.value.id));
        }
        for _ in 0..each {
            self.name.number += 1;
            self.attempt().await;
        }
    }

    async fn attempt(&mut self) {
        let name = self.name;
        let owner = subject(self.owner);
        let existing = self.vault.connections(&tenant(), owner, None).await.unwrap();
        let mut change = match self.vault.change(&tenant(), Some(owner)).await {
            Err(VaultError::Conflict { .. } | VaultError::PreconditionFailed { .. }) => return,
            change => change.unwrap(),
        };
        let mut effects = Effects::default();
        if existing.len() < 3 || existing.len() < CONNECTIONS && self.dice.once_in(5) {
            self.insert(&mut change, &mut effects);
        } else {
            for from in self.choose(existing) {
                self.update(&mut change, &mut effects, &from);
            }
        }
        self.move_jobs(&mut change, &mut effects).await;
        effects.audit = 1 + usize::from(self.dice.once_in(3));
        (0..effects.audit).for_each(|_| change.audit(&audit_record(name)));
        if self.dice.once_in(6) {
            let (Revision(events), audit) = self.purgeable;
            effects.purged = (Revision(self.dice.below(events + 1)), self.dice.below(audit + 1));
            change.purge(Purge { events: effects.purged.0, audit: effects.purged.1 });
        }
        Word::Begun { name, effects }.tell();
        match change.commit().await {
            Ok(receipt) => Word::Acknowledged { name, revision: receipt.revision, audit: receipt.audit }.tell(),
            Err(VaultError::Conflict { .. } | VaultError::PreconditionFailed { .. }) => Word::Refused { name }.tell(),
            Err(error) => panic!("{error}"),
        }
    }

    /// One connection or two.
    fn choose(&mut self, mut existing: Vec<Stored<Connection>>) -> Vec<Stored<Connection>> {
        let wanted = 1 + self.dice.below(2);
        (0..wanted)
            .map(|_| {
                let index = self.dice.below(existing.len() as u64) as usize;
                existing.swap_remove(index)
            })
            .collect()
    }

    fn insert(&self, change: &mut Change, effects: &mut Effects) {
        let connection = new_connection(self.name, self.owner);
        change.insert_connection(&connection, &tokens(self.name), self.name.at());
        announce(change, effects, &connection, true);
    }

    fn update(&mut self, change: &mut Change, effects: &mut Effects, from: &Stored<Connection>) {
        let brings_tokens = !self.dice.once_in(3);
        let mut to = Connection { account: Some(self.name.to_string()), ..from.value.clone() };
        let brought = tokens(self.name);
        let mut with = Tokens::Keep;
        if brings_tokens {
            to.credential = to.credential.refreshed(granted(), self.name.at()).unwrap().credential;
            with = Tokens::Replace(&brought);
        }
        change.update_connection(from, &to, with, self.name.at());
        announce(change, effects, &to, brings_tokens);
    }

    async fn move_jobs(&mut self, change: &mut Change, effects: &mut Effects) {
        if self.jobs.len() > 4 || self.dice.once_in(4) && !self.jobs.is_empty() {
            let index = self.dice.below(self.jobs.len() as u64) as usize;
            if let Some(job) = self.vault.job(self.jobs.swap_remove(index)).await.unwrap() {
                change.delete_job(&job);
                effects.done.push(job.value.id);
            }
        }
        if self.dice.once_in(4) {
            let kind = JobKind::RevokeTokens { provider: "github".parse().unwrap(), connection: None };
            let id = JobId::from_bytes(bytes_of(self.name));
            let job = Job { id, tenant: tenant(), subject: subject(self.owner), kind, failures: 0 };
            change.insert_job(&job, Some(&tokens(self.name)), self.name.at());
            effects.made.push(id);
            self.jobs.push(id);
        }
    }
}

fn announce(change: &mut Change, effects: &mut Effects, connection: &Connection, brings_tokens: bool) {
    let name: Name = connection.account.as_ref().unwrap().parse().unwrap();
    let status = CredentialStatus::of(connection);
    let kind = if brings_tokens { EventKind::Refreshed } else { EventKind::Recovered };
    effects.connections.push(Written { id: connection.id, generation: status.generation, brings_tokens });
    change.event(&CredentialEvent { kind, tenant: tenant(), occurred_at: name.at(), status });
}

fn new_connection(name: Name, owner: u8) -> Connection {
    let credential = Credential::pending(CredentialId::from_bytes(bytes_of(name)), name.at());
    Connection {
        id: ConnectionId::from_bytes(bytes_of(name)),
        tenant: tenant(),
        subject: subject(owner),
        provider: "github".parse().unwrap(),
        account: Some(name.to_string()),
        created_at: name.at(),
        consent: Consent { subject: subject(owner), agent: None, scopes: ScopeSet::default(), at: name.at() },
        credential: credential.authorized(granted(), name.at()).unwrap().credential,
        remote_revocation: None,
        withheld: false,
    }
}

/// About 1.5 KiB, and each token says who brought it.
pub(crate) fn tokens(name: Name) -> TokenSet {
    TokenSet {
        access: AccessToken::new(format!("access {name} {:1000}", "")),
        refresh: Some(RefreshToken::new(format!("refresh {name} {:500}", ""))),
        id_token: None,
    }
}

fn granted() -> Granted {
    Granted { scopes: ScopeSet::default(), expires_at: None, refreshable: true, refresh_token_end: None }
}

/// Unique: no number of a name comes again.
fn bytes_of(name: Name) -> [u8; 16] {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let parts = [name.round, name.task, name.number, MADE.fetch_add(1, Ordering::Relaxed)];
    let mut bytes = [0; 16];
    bytes.chunks_exact_mut(4).zip(parts).for_each(|(chunk, part)| chunk.copy_from_slice(&part.to_be_bytes()));
    bytes
}

fn audit_record(name: Name) -> AuditRecord {
    AuditRecord {
        request_id: Some(name.to_string().parse().unwrap()),
        ..AuditRecord::by_broker(tenant(), AuditAction::ConnectionChanged, name.at())
    }
}
