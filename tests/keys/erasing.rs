//! Erasure: what is left in the live store, in a copy that is older, and in one that is put back.

use std::{fs, path::Path, sync::Arc};

use claviger::{
    audit::Chain,
    domain::{
        AuditAction, AuditRecord, AuditTarget, EntryId, EventKind, Flow, FlowId, InstallationId, JobKind, KeyId,
        Revision, SubjectId, TenantId, Timestamp,
    },
    sealing::{AuditKey, Random, RootKeys, sealed_key_id},
    store::{
        Copied, FieldTag, Head, RecordKey, RecordKind, Store,
        sled::{Import, SledOptions, SledStore},
    },
    vault::{DueRecord, ErasureList, Vault, VaultError},
};
use tempfile::TempDir;

use crate::{
    populated::{
        LATER, Populated, assert_logs_hold, assert_readable, assert_readable_of, connection_of, finish, flow_of,
        job_of, live_rows, people, roots, rotate_everything, said,
    },
    specimens::{acme, alice, bob, root, state, tokens, umbrella},
    stopping_store::StoppingStore,
};

const NOW: Timestamp = Timestamp::from_secs(5_000);
const AFTERWARDS: Timestamp = Timestamp::from_secs(6_000);

#[tokio::test]
async fn nothing_of_an_erased_subject_can_be_read_or_written_and_nobody_else_notices() {
    let world = Populated::new().await;
    let (vault, list) = (&world.vault, world.erasures());
    let begun_before = vault.change(&acme(), Some(alice())).await.unwrap();
    let held = vault.any_connection(connection_of(1).id).await.unwrap().unwrap();
    let receipt = erase(vault, &list, &acme(), alice()).await.unwrap();
    assert_eq!((receipt.erased_at, receipt.copies_unreadable_from), (NOW, None));
    assert!(vault.verify_receipt(&receipt));

    for vault in [vault.clone(), world.open(root(1).into()).await.unwrap()] {
        assert_gone(&vault).await;
        assert_readable_of(&vault, 2, &acme(), bob()).await;
        assert_readable_of(&vault, 3, &umbrella(), alice()).await;
        assert_logs_hold(&vault).await;
        assert_eq!(vault.alarms(), 0);
    }
    // What was in somebody's hands: neither written nor opened.
    let mut begun_before = begun_before;
    begun_before.insert_flow(&flow_of(1));
    assert_eq!(begun_before.commit().await.err(), Some(VaultError::SubjectErased));
    assert!(matches!(vault.access_token(&held).await.err(), Some(VaultError::Conflict { .. })));
    assert_eq!(vault.alarms(), 0);
    // Erasing again changes nothing.
    let revision = world.store.head().revision;
    assert_eq!(erase(vault, &list, &acme(), alice()).await.unwrap(), receipt);
    assert_eq!(world.store.head().revision, revision);
}

#[tokio::test]
async fn an_erasure_is_announced_recorded_and_hands_every_token_to_its_provider() {
    let world = Populated::new().await;
    let before = world.store.head();
    erase(&world.vault, &world.erasures(), &acme(), alice()).await.unwrap();
    let events = world.vault.events(before.revision, 10).await.unwrap();
    let events: Vec<_> = events.into_iter().flat_map(|(_, events)| events).collect();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].status.subject), (EventKind::Erased, alice()));
    assert_eq!(events[0].status.connection, connection_of(1).id);
    let records = world.vault.audit(before.audit, 10).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].1.target, Some(AuditTarget::Subject(alice())));

    let mut returned = Vec::new();
    for due in world.vault.due(NOW, 100).await.unwrap() {
        let DueRecord::Job(id) = due.record else { continue };
        let job = world.vault.job(id).await.unwrap().unwrap();
        if matches!(job.value.kind, JobKind::RevokeErased { .. }) && due.at == NOW {
            let tokens = world.vault.job_tokens(&job).await.unwrap().unwrap();
            returned.push(tokens.refresh.unwrap().expose().to_owned());
        }
    }
    returned.sort();
    // The connection's, those that waited in a flow, and those of a job of theirs.
    let expected = [1, 11, 21].map(|number| tokens(number).refresh.unwrap().expose().to_owned());
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(returned, expected);
}

#[tokio::test]
async fn an_erasure_that_is_cut_off_after_any_commit_is_finished_by_the_next_process() {
    for commits in 0.. {
        let world = Populated::new().await;
        let list = world.erasures();
        let cut_off = Arc::new(StoppingStore::after(world.store.clone(), commits));
        let process = world.open_as(cut_off, root(1).into()).await.unwrap();
        let ended = erase(&process, &list, &acme(), alice()).await;
        let next = world.open(root(1).into()).await.unwrap();
        let replayed = next.replay_erasures(&list, AFTERWARDS).await.unwrap();
        assert_gone(&next).await;
        assert_readable_of(&next, 2, &acme(), bob()).await;
        assert_logs_hold(&next).await;
        assert_eq!(next.replay_erasures(&list, AFTERWARDS).await.unwrap(), 0);
        if ended.is_ok() {
            assert!(commits > 0 && replayed == 0);
            return;
        }
        assert_eq!(replayed, 1);
    }
}

/// Nothing may be left under a key that is gone: nobody could read it, and nobody would remove it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_a_subject_is_erased_is_refused_or_goes_with_the_rest() {
    for _ in 0..30 {
        let world = Populated::new().await;
        let key = world.vault.subject(&acme(), alice()).await.unwrap().unwrap().value.key;
        let writing = tokio::spawn(write_until_refused(world.vault.clone()));
        erase(&world.vault, &world.erasures(), &acme(), alice()).await.unwrap();
        assert_eq!(writing.await.unwrap(), VaultError::SubjectErased);
        assert_eq!(live_rows(&*world.store, key).await, 0);
    }
}

async fn write_until_refused(vault: Vault) -> VaultError {
    let mut number = 0_u16;
    loop {
        let mut change = match vault.change(&acme(), Some(alice())).await {
            Ok(change) => change,
            Err(refused) => return refused,
        };
        let mut id = [0xEE; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        change.insert_flow(&Flow { id: FlowId::from_bytes(id), ..flow_of(1) });
        if let Err(refused) = change.commit().await {
            return refused;
        }
        number += 1;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_erasure_in_the_middle_of_a_rotation_ends_as_one_before_it() {
    for steps in 0..8 {
        let world = Populated::new().await;
        let vault = world.open(roots(2)).await.unwrap();
        // Stopped after some rows, the rotation has moved a part of the subject's chain.
        let cut_off = Arc::new(StoppingStore::after(world.store.clone(), steps));
        let process = world.open_as(cut_off, roots(2)).await.unwrap();
        drop(rotate_everything(&process, NOW).await);
        erase(&vault, &world.erasures(), &acme(), alice()).await.unwrap();
        rotate_everything(&vault, AFTERWARDS).await.unwrap();
        assert_gone(&vault).await;
        assert_readable_of(&vault, 2, &acme(), bob()).await;
        assert_logs_hold(&vault).await;
        assert_eq!(vault.alarms(), 0);
    }
}

#[tokio::test]
async fn an_erasure_marks_the_key_and_the_receipt_says_from_when_no_copy_opens() {
    let world = Populated::new().await;
    let vault = world.open(roots(2)).await.unwrap();
    assert_eq!(vault.marked_tenants().await.unwrap(), []);
    erase(&vault, &world.erasures(), &acme(), alice()).await.unwrap();
    assert_eq!(vault.marked_tenants().await.unwrap(), [(acme(), NOW)]);
    let unreadable_from = async || {
        let receipt = vault.erasure_receipt(&acme(), alice()).await.unwrap().unwrap();
        assert!(vault.verify_receipt(&receipt));
        receipt.copies_unreadable_from
    };
    let record = said(AuditAction::KeyRotated, NOW);
    vault.begin_tenant_rotation(&acme(), &record).await.unwrap();
    assert_eq!(vault.marked_tenants().await.unwrap(), []);
    finish(&vault).await.unwrap();
    assert_eq!(unreadable_from().await, None);
    vault.begin_root_rotation(&record).await.unwrap();
    finish(&vault).await.unwrap();
    assert_eq!(unreadable_from().await, None);
    vault.retire_key(root(1).id(), &said(AuditAction::KeyRetired, AFTERWARDS)).await.unwrap();
    assert_eq!(unreadable_from().await, Some(AFTERWARDS));
    // A receipt with another date is none of ours.
    let receipt = vault.erasure_receipt(&acme(), alice()).await.unwrap().unwrap();
    let earlier = claviger::domain::ErasureReceipt { copies_unreadable_from: Some(NOW), ..receipt };
    assert!(!vault.verify_receipt(&earlier));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_opens_with_the_old_root_key_and_with_nothing_that_is_left_after_its_retirement() {
    let live = Disk::new("live");
    let world = live.populated().await;
    let copy = Disk::new("copy");
    copy.fill(&*world.store).await;
    let alices_key = world.vault.subject(&acme(), alice()).await.unwrap().unwrap().value.key;

    let vault = world.open(roots(2)).await.unwrap();
    erase(&vault, &world.erasures(), &acme(), alice()).await.unwrap();
    rotate_everything(&vault, NOW).await.unwrap();
    vault.retire_key(root(1).id(), &said(AuditAction::KeyRetired, NOW)).await.unwrap();
    let fresh = Disk::new("fresh copy");
    fresh.fill(&*world.store).await;

    // With the old root key the old copy opens, whole: that key's file has to be destroyed.
    let (store, opened) = copy.open(root(1).into()).await;
    assert_readable(&opened.unwrap()).await;
    // Each key of the live store, tried at the old copy's chain, is not the one that its header names.
    let mut chain = Vec::new();
    let mut next = alices_key;
    while let Some(row) = store.row(RecordKey::new(RecordKind::Key, next.as_bytes())).await.unwrap() {
        next = sealed_key_id(row.field(FieldTag::Key).unwrap()).unwrap();
        chain.push(next);
    }
    assert_eq!(chain.len(), 2, "the subject's key under the tenant's, and that under the root key");
    assert_eq!(chain[1], root(1).id());
    let tenant_key: KeyId = chain[0];
    assert!(world.store.row(RecordKey::new(RecordKind::Key, tenant_key.as_bytes())).await.unwrap().is_none());
    assert!(world.store.row(RecordKey::new(RecordKind::Key, alices_key.as_bytes())).await.unwrap().is_none());
    assert!(vault.list_keys().await.unwrap().iter().all(|key| key.id != tenant_key));
    store.close().await;
    // With the present root key it does not open.
    let (store, opened) = copy.open(root(2).into()).await;
    let lacking = VaultError::WrongRootKey { expected: root(1).id(), given: vec![root(2).id()] };
    assert_eq!(opened.err(), Some(lacking));
    store.close().await;

    // Neither the live store nor a copy of it as it is now has anything of the subject.
    let (store, opened) = fresh.open(root(2).into()).await;
    assert_gone(&opened.unwrap()).await;
    for store in [&*store, &*world.store] {
        let row = store.row(RecordKey::new(RecordKind::Key, alices_key.as_bytes())).await.unwrap();
        assert!(row.is_none());
    }
    store.close().await;
    world.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_put_back_is_erased_again() {
    let live = Disk::new("live");
    let world = live.populated().await;
    let copy = Disk::new("copy");
    copy.fill(&*world.store).await;
    for subject in [alice(), bob()] {
        erase(&world.vault, &world.erasures(), &acme(), subject).await.unwrap();
    }
    world.store.close().await;
    let (store, opened) = copy.open(root(1).into()).await;
    let vault = opened.unwrap();
    assert_readable(&vault).await;
    assert_eq!(vault.replay_erasures(&world.erasures(), AFTERWARDS).await.unwrap(), 2);
    assert_gone(&vault).await;
    assert!(vault.connection(&acme(), connection_of(2).id).await.unwrap().is_none());
    assert_readable_of(&vault, 3, &umbrella(), alice()).await;
    store.close().await;
}

/// They are erased in a store that never knew them, and would be erased once more at every start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_on_the_list_and_not_in_the_copy_does_not_come_back() {
    let stranger = SubjectId::from_bytes([9; 32]);
    let live = Disk::new("live");
    let world = live.populated().await;
    let copy = Disk::new("copy");
    copy.fill(&*world.store).await;
    erase(&world.vault, &world.erasures(), &acme(), stranger).await.unwrap();
    world.store.close().await;
    let (store, opened) = copy.open(root(1).into()).await;
    let vault = opened.unwrap();
    assert_eq!(vault.replay_erasures(&world.erasures(), AFTERWARDS).await.unwrap(), 0);
    assert_eq!(vault.change(&acme(), Some(stranger)).await.err(), Some(VaultError::SubjectErased));
    assert_readable(&vault).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasures_at_once_are_all_on_the_list() {
    let world = Populated::new().await;
    let mut erasing = tokio::task::JoinSet::new();
    for number in 50..74 {
        let (vault, list) = (world.vault.clone(), world.erasures());
        let subject = SubjectId::from_bytes([number; 32]);
        erasing.spawn(async move { erase(&vault, &list, &acme(), subject).await.unwrap() });
    }
    erasing.join_all().await;
    assert_eq!(fs::read_to_string(world.erasures().path().unwrap()).unwrap().lines().count(), 24);
}

#[tokio::test]
async fn the_list_names_nobody_and_only_its_own_lines_are_followed() {
    let world = Populated::new().await;
    let list = world.erasures();
    assert_eq!(world.vault.replay_erasures(&list, NOW).await.unwrap(), 0);
    erase(&world.vault, &list, &acme(), alice()).await.unwrap();
    let text = fs::read_to_string(list.path().unwrap()).unwrap();
    let subject: String = alice().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(text.lines().count() == 1 && !text.contains(&subject) && !text.contains("acme"));

    // A line that a crash cut off was not acknowledged, and the next one stands on a line of its own.
    fs::write(list.path().unwrap(), format!("{text}claviger-erasure-v1 00")).unwrap();
    assert_eq!(world.vault.replay_erasures(&list, NOW).await.unwrap(), 0);
    erase(&world.vault, &list, &acme(), bob()).await.unwrap();
    let both = fs::read_to_string(list.path().unwrap()).unwrap();
    assert_eq!(both.lines().count(), 2);
    assert!(both.starts_with(&text));

    let other = Populated::new().await;
    for (line, edited) in [(1, both.replacen("5000000", "5000001", 1)), (2, format!("{text}\n")), (1, both[1..].into())]
    {
        fs::write(list.path().unwrap(), edited).unwrap();
        let refused = Err(VaultError::ErasureList { line });
        assert_eq!(world.vault.replay_erasures(&list, NOW).await, refused);
    }
    assert_eq!(world.vault.alarms(), 3);
    // Nor those of another installation.
    fs::write(other.erasures().path().unwrap(), both).unwrap();
    assert_eq!(other.vault.replay_erasures(&other.erasures(), NOW).await, Err(VaultError::ErasureList { line: 1 }));
}

#[tokio::test]
async fn an_erasure_that_cannot_be_listed_does_not_happen() {
    let world = Populated::new().await;
    let nowhere = ErasureList::new(Path::new("/nowhere/erasures").to_owned());
    let refused = erase(&world.vault, &nowhere, &acme(), alice()).await.err();
    assert_eq!(refused, Some(VaultError::ErasuresUnwritten { reason: std::io::ErrorKind::NotFound }));
    assert_readable(&world.vault).await;
}

async fn erase(
    vault: &Vault,
    list: &ErasureList,
    tenant: &TenantId,
    subject: SubjectId,
) -> Result<claviger::domain::ErasureReceipt, VaultError> {
    let record = AuditRecord {
        target: Some(AuditTarget::Subject(subject)),
        ..AuditRecord::by_broker(tenant.clone(), AuditAction::SubjectErased, NOW)
    };
    vault.erase_subject(tenant, subject, &record, list).await
}

/// Of the first of the people nothing is found, and nothing is taken.
async fn assert_gone(vault: &Vault) {
    let (number, tenant, subject) = people().into_iter().next().unwrap();
    assert!(vault.connection(&tenant, connection_of(number).id).await.unwrap().is_none());
    assert!(vault.connections(&tenant, subject, None).await.unwrap().is_empty());
    assert!(vault.flow(&tenant, flow_of(number).id).await.unwrap().is_none());
    assert!(vault.attempt(&state(number)).await.unwrap().is_none());
    assert!(vault.job(job_of(number).id).await.unwrap().is_none());
    assert_eq!(vault.flows_of(&tenant, subject, LATER, 10).await.unwrap(), 0);
    let tombstone = vault.subject(&tenant, subject).await.unwrap().unwrap();
    assert!(tombstone.value.erased.is_some());
    let key = RecordKey::new(RecordKind::Key, tombstone.value.key.as_bytes());
    assert!(vault.store().row(key).await.unwrap().is_none());
    assert_eq!(vault.change(&tenant, Some(subject)).await.err(), Some(VaultError::SubjectErased));
    let due = vault.due(Timestamp::NEVER, 1_000).await.unwrap();
    assert!(due.iter().all(|due| due.record != DueRecord::Connection(connection_of(number).id)));
    let told = vault.events(Revision::default(), 1_000).await.unwrap();
    assert!(told.iter().flat_map(|(_, events)| events).any(|event| event.kind == EventKind::Erased));
}

/// An embedded store's directory.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn new(name: &str) -> Self {
        Self { directory: TempDir::with_prefix(format!("claviger-{}-", name.replace(' ', "-"))).unwrap() }
    }

    async fn store(&self, audit_key: &AuditKey) -> Arc<dyn Store> {
        let options = SledOptions {
            directory: self.directory.path().join("store"),
            page_cache: 8 << 20,
            row_cache: 1 << 20,
            installation: InstallationId::from_bytes([1; 16]),
            epoch: EntryId::from_bytes([2; 16]),
        };
        Arc::new(SledStore::open(options, Box::new(Chain::new(audit_key.clone()))).await.unwrap())
    }

    async fn populated(&self) -> Populated {
        let audit_key = AuditKey::default();
        Populated::over(self.store(&audit_key).await, audit_key).await
    }

    /// What a backup holds, put into this directory.
    async fn fill(&self, from: &dyn Store) {
        let mut copying = from.copy().await.unwrap();
        let mut import = Import::begin(&self.directory.path().join("store")).unwrap();
        let mut end: Option<Head> = None;
        while let Some(part) = copying.next().await {
            match part.unwrap() {
                Copied::Rows(rows) => import.add(&rows).unwrap(),
                Copied::End { head } => end = Some(head),
            }
        }
        import.finish(end.unwrap()).unwrap();
    }

    async fn open(&self, roots: RootKeys) -> (Arc<dyn Store>, Result<Vault, VaultError>) {
        let audit_key = AuditKey::default();
        let store = self.store(&audit_key).await;
        (store.clone(), Vault::open(store, roots, Random::system(), &audit_key).await)
    }
}
