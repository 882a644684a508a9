//! Backups: what an operator takes, and what is made of it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use claviger::{
    app::{Restore, Restored},
    archive::{self, ArchiveError},
    client::ClientError,
    config::Config,
    dev::PlatformClaims,
    domain::{AuditAction, AuditRecord, AuditResult, Role, Sealed, TenantId, installation_tenant},
    identity::RoleRule,
    proto::v1::{self, ErrorReason, watch_credential_status_request::Start, watch_credential_status_response::Body},
    sealing::{Random, RootKey, RootKeys, root_key},
    store::{ChangeSet, Expect, FieldTag, RecordKey, RecordKind, Write},
    vault::ErasureList,
};
use tonic::Streaming;

use crate::{
    heard::Client,
    observer::in_time,
    support::records::Records,
    world::{MINUTE, PLUGIN, Settings, World, ask, claims, reason, revoke_all},
};

/// Whoever has the claim is an operator; everybody is a user.
pub(crate) fn with_operators(config: &mut Config) {
    let values = ["operator".to_owned()].into();
    config.identity[0].issuers[0].roles = vec![RoleRule { role: Role::Operator, claim: "roles".to_owned(), values }];
}

pub(crate) async fn world() -> World {
    World::start_with(Settings { configure: Box::new(with_operators), ..Settings::default() }).await
}

pub(crate) fn operator(world: &World) -> Client {
    let claims = PlatformClaims { roles: vec!["operator".to_owned()], ..claims() };
    world.client_with(&world.token("olga", &claims))
}

type Parts = Streaming<v1::CreateBackupResponse>;

pub(crate) async fn begin(operator: &Client) -> Result<Parts, ClientError> {
    operator.create_backup(v1::CreateBackupRequest {}).await
}

/// The rest of an archive, and what closes it.
async fn rest(mut parts: Parts) -> Result<(Vec<u8>, v1::BackupSummary), ClientError> {
    let (mut archive, mut end) = (Vec::new(), None);
    while let Some(part) = parts.message().await? {
        assert!(end.is_none(), "nothing follows the end");
        archive.extend_from_slice(&part.archive);
        end = part.end;
    }
    Ok((archive, end.expect("a stream that ends well has an end")))
}

pub(crate) async fn backup(operator: &Client) -> (Vec<u8>, v1::BackupSummary) {
    in_time(async { rest(begin(operator).await.unwrap()).await.unwrap() }).await
}

async fn status(operator: &Client) -> v1::GetStatusResponse {
    operator.get_status(v1::GetStatusRequest {}).await.unwrap()
}

fn roots(world: &World) -> RootKeys {
    RootKeys::load(&world.config().sealing.root_keys).unwrap()
}

pub(crate) async fn restore(world: &World, archive: &[u8], replace: bool) -> anyhow::Result<Restored> {
    restore_with(world, archive, replace, None).await
}

async fn restore_with(
    world: &World,
    archive: &[u8],
    replace: bool,
    erasures: Option<&Path>,
) -> anyhow::Result<Restored> {
    let path = world.directory().join("archive");
    fs::write(&path, archive).unwrap();
    let restore = Restore {
        config: &world.config(),
        archive: &path,
        replace,
        erasures,
        clock: &world.clock,
        random: &Random::system(),
        progress: &mut |_, _, _| {},
    };
    restore.run().await
}

/// Rows of 60,000 bytes: together more than a stream takes before it is read from.
const FILLER: u8 = 24;

pub(crate) async fn fill(world: &mut World) {
    world.stop().await;
    let records = Records::open(world).await;
    let filler = (0..FILLER).map(|number| {
        let key = RecordKey::new(RecordKind::Attempt, [number; 32]);
        let fields = vec![(FieldTag::Record, Sealed::from_bytes(vec![number; 60_000].into()))];
        Write::put(key, Expect::Absent, fields, vec![])
    });
    records.store.commit(ChangeSet { writes: filler.collect(), ..ChangeSet::default() }).await.unwrap();
    records.close().await;
    world.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_see_the_status_and_take_backups() {
    let world = world().await;
    let alice = world.client("alice");
    assert_eq!(reason(alice.get_status(v1::GetStatusRequest {}).await), ErrorReason::RoleMissing);
    assert_eq!(reason(begin(&alice).await), ErrorReason::RoleMissing);
    let operator = operator(&world);
    assert!(status(&operator).await.last_backup.is_none(), "what was refused was not taken");
    backup(&operator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_how_the_broker_and_its_store_are() {
    let world = world().await;
    let operator = operator(&world);
    let before = status(&operator).await;
    assert_eq!(before.version, env!("CARGO_PKG_VERSION"));
    assert!(before.ready && !before.backup_running);
    let (archive, end) = backup(&operator).await;
    assert_eq!(end.bytes, archive.len() as u64);
    world.clock.advance(Duration::from_secs(90));
    let after = status(&operator).await;
    assert_eq!(after.last_backup, Some(end));
    assert!(!after.backup_running);
    assert_eq!(after.started_at, before.started_at);
    assert_eq!(after.uptime.unwrap().seconds - before.uptime.unwrap().seconds, 90);
    let (old, new) = (before.store.unwrap(), after.store.unwrap());
    assert!(new.available && new.revision > old.revision && new.audit_record > old.audit_record);
    assert_eq!((new.installation_id, new.epoch), (old.installation_id, old.epoch));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_opens_with_the_root_key_alone() {
    let world = world().await;
    world.connect(&world.client("alice"), "alice").await;
    let operator = operator(&world);
    let store = status(&operator).await.store.unwrap();
    let (archive, told) = backup(&operator).await;
    let (header, end) = archive::verify(&archive[..], &roots(&world)).unwrap();
    assert_eq!(header.installation.to_string(), store.installation_id);
    assert_eq!(header.epoch.to_string(), store.epoch);
    assert_eq!(header.made_at, world.now());
    assert!(header.begun_at.0 > store.revision, "the record of who took it is in it");
    assert_eq!((end.rows, end.revision.0), (told.rows, told.revision));
    let other = RootKey::from_secret(&Random::system().secret().unwrap());
    assert!(matches!(archive::verify(&archive[..], &other.into()), Err(ArchiveError::WrongRootKey { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_backup_at_a_time_and_who_hangs_up_ends_it() {
    let mut world = world().await;
    fill(&mut world).await;
    let operator = operator(&world);
    let mut first = begin(&operator).await.unwrap();
    assert!(first.message().await.unwrap().is_some());
    assert_eq!(reason(begin(&operator).await), ErrorReason::BackupRunning);
    let during = status(&operator).await;
    assert!(during.backup_running && during.ready, "nobody waits for a backup");
    drop(first);
    in_time(async {
        while status(&operator).await.backup_running {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(status(&operator).await.last_backup.is_none(), "it did not come to its end");
    let (archive, end) = backup(&operator).await;
    assert!(archive.len() > usize::from(FILLER) * 60_000 && end.rows > FILLER.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_answered_while_a_backup_waits_for_its_reader() {
    let mut world = world().await;
    fill(&mut world).await;
    let (operator, alice) = (operator(&world), world.client("alice"));
    let parts = begin(&operator).await.unwrap();
    let connection = world.connect(&alice, "alice").await;
    alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    let (archive, end) = in_time(rest(parts)).await.unwrap();
    let (header, _) = archive::verify(&archive[..], &roots(&world)).unwrap();
    assert!(end.revision > header.begun_at.0, "what was written meanwhile is in it");
    world.stop().await;
    restore(&world, &archive, true).await.unwrap();
    world.run().await;
    let listed = world.client("alice").list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.connections[0].connection_id, connection.connection_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_does_not_hold_up_the_shutdown() {
    let mut world = world().await;
    fill(&mut world).await;
    let parts = begin(&operator(&world)).await.unwrap();
    let reading = tokio::spawn(rest(parts));
    in_time(world.stop()).await;
    // It was at its end by then, or it was told.
    if let Err(error) = in_time(reading).await.unwrap() {
        assert_eq!(error.reason, Some(ErrorReason::ShuttingDown), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_took_a_backup_and_how_it_ended_is_on_record() {
    let mut world = world().await;
    fill(&mut world).await;
    let operator = operator(&world);
    assert_eq!(reason(begin(&world.client("alice")).await), ErrorReason::RoleMissing);
    drop(begin(&operator).await.unwrap());
    let again = in_time(async {
        loop {
            match begin(&operator).await {
                Ok(parts) => return parts,
                Err(error) => assert_eq!(error.reason, Some(ErrorReason::BackupRunning)),
            }
        }
    });
    let (archive, end) = rest(again.await).await.unwrap();
    world.stop().await;
    let records = Records::open(&world).await;
    let trail = records.vault.audit(0, usize::MAX).await.unwrap();
    records.close().await;
    let of = |action| {
        let of_action = trail.iter().filter(move |(_, record)| record.action == action);
        of_action.map(|(_, record)| (record.result, record.generation)).collect::<Vec<_>>()
    };
    let begun = of(AuditAction::BackupBegun);
    assert_eq!(begun[0], (AuditResult::Refused, None));
    assert_eq!(begun.iter().filter(|(result, _)| *result == AuditResult::Allowed).count(), 2);
    let ended = [(AuditResult::Failed, None), (AuditResult::Allowed, Some(end.revision))];
    assert_eq!(of(AuditAction::BackupEnded), ended);
    let whole = archive::verify(&archive[..], &roots(&world)).unwrap().1;
    assert_eq!(whole.revision.0, end.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_serves_and_its_watchers_begin_anew() {
    let mut world = world().await;
    let (operator, alice) = (operator(&world), world.client("alice"));
    let connection = world.connect(&alice, "alice").await;
    let before = status(&operator).await.store.unwrap();
    let token = resume_token(&alice).await;
    let (archive, end) = backup(&operator).await;
    world.connect(&world.client("bob"), "bob").await;
    world.stop().await;

    let restored = restore(&world, &archive, true).await.unwrap();
    let kept = world.config().store.directory.with_extension("before-restore");
    assert_eq!(restored.kept.as_ref(), Some(&kept));
    assert!(kept.join("db").exists());
    assert_eq!(restored.end.revision.0, end.revision);
    world.run().await;
    let (alice, operator) = (world.client("alice"), self::operator(&world));
    let after = status(&operator).await.store.unwrap();
    assert_eq!(after.installation_id, before.installation_id);
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.epoch, restored.epoch.to_string());
    let served = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    assert_eq!(served.connection_id, connection.connection_id);
    assert!(world.accepts(&served));
    world.clock.advance(60 * MINUTE);
    let refreshed = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    assert!(world.accepts(&refreshed) && refreshed.generation > served.generation);
    let bobs = world.client("bob").list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    assert!(bobs.connections.is_empty(), "what came after the backup is not in it");
    assert!(matches!(first_bodies(&alice, token).await[1], Body::Resync(_)), "an old position is not believed");
    assert!(alice.revoke(revoke_all()).await.unwrap().results.len() == 1);

    let trail = trail(&mut world).await;
    let of_restoring = trail.iter().find(|record| record.action == AuditAction::StoreRestored).unwrap();
    assert_eq!((&of_restoring.tenant, of_restoring.generation), (&installation_tenant(), Some(end.revision)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_everything_as_it_was() {
    let mut world = world().await;
    let operator = operator(&world);
    world.connect(&world.client("alice"), "alice").await;
    let (archive, _) = backup(&operator).await;
    let store = world.config().store.directory;

    let told = restore(&world, &archive, true).await.unwrap_err().to_string();
    assert!(told.contains("is in use by another process"), "{told}");
    world.stop().await;
    let before = files(&store);
    let told = restore(&world, &archive, false).await.unwrap_err().to_string();
    assert!(told.contains("give --replace"), "{told}");
    let mut flipped = archive.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (bad, message) in [
        (&archive[..archive.len() - 1], "ends too early"),
        (&flipped[..], "is damaged"),
        (&b"-----BEGIN CERTIFICATE-----"[..], "is not an archive"),
    ] {
        let told = restore(&world, bad, true).await.unwrap_err().to_string();
        assert!(told.contains(message), "{told}");
    }
    let key = world.config().sealing.root_keys.swap_remove(0);
    let ours = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    root_key::file::create(&key, &Random::system()).unwrap();
    let told = restore(&world, &archive, true).await.unwrap_err().to_string();
    assert!(told.contains("sealed under root key key_"), "{told}");
    fs::write(&key, ours).unwrap();

    assert_eq!(files(&store), before);
    assert!(!store.with_extension("restoring").exists());
    restore(&world, &archive, true).await.unwrap();
    let told = restore(&world, &archive, true).await.unwrap_err().to_string();
    assert!(told.contains("is still there from an earlier restore"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_was_cut_off_is_not_taken_for_a_store() {
    let mut world = world().await;
    let (archive, _) = backup(&operator(&world)).await;
    world.stop().await;
    let store = world.config().store.directory;
    let left = store.with_extension("restoring");
    fs::create_dir(&left).unwrap();
    let told = restore(&world, &archive, true).await.unwrap_err().to_string();
    assert!(told.contains("is left of an earlier attempt"), "{told}");
    assert!(left.exists(), "it may be the store of before");
    fs::remove_dir(left).unwrap();

    fs::remove_dir_all(&store).unwrap();
    let restored = restore(&world, &archive, false).await.unwrap();
    assert_eq!(restored.kept, None, "there was nothing to keep");
    world.run().await;
}

/// Without the store that was there, the list that was kept beside the archives does the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_erased_since_the_backup_is_erased_again() {
    let mut world = world().await;
    let (operator, alice) = (operator(&world), world.client("alice"));
    world.connect(&alice, "alice").await;
    world.connect(&world.client("bob"), "bob").await;
    let validated = alice.validate_platform_token(v1::ValidatePlatformTokenRequest::default()).await.unwrap();
    let (archive, _) = backup(&operator).await;
    world.stop().await;
    let store = world.config().store.directory;
    let records = Records::open(&world).await;
    let (tenant, subject): (TenantId, _) = (validated.tenant.parse().unwrap(), validated.subject.parse().unwrap());
    let record = AuditRecord::by_broker(tenant.clone(), AuditAction::SubjectErased, world.now());
    let list = ErasureList::new(store.join("erasures"));
    records.vault.erase_subject(&tenant, subject, &record, &list).await.unwrap();
    records.close().await;
    let beside = world.directory().join("erasures");
    fs::copy(list.path().unwrap(), &beside).unwrap();

    let restored = restore(&world, &archive, true).await.unwrap();
    assert_eq!(restored.erased, Some(1));
    fs::remove_dir_all(restored.kept.unwrap()).unwrap();
    only_bob_is_left(&mut world).await;

    fs::remove_dir_all(&store).unwrap();
    let forgotten = restore(&world, &archive, false).await.unwrap();
    assert_eq!(forgotten.erased, None, "nobody told of her");
    fs::remove_dir_all(&store).unwrap();
    let restored = restore_with(&world, &archive, false, Some(&beside)).await.unwrap();
    assert_eq!(restored.erased, Some(1));
    only_bob_is_left(&mut world).await;

    fs::write(&beside, "claviger-erasure-v1 00 0 00\n").unwrap();
    let told = restore_with(&world, &archive, true, Some(&beside)).await.unwrap_err().to_string();
    assert!(told.contains("is not authentic"), "{told}");
    only_bob_is_left(&mut world).await;
}

async fn only_bob_is_left(world: &mut World) {
    world.run().await;
    let refused = world.client("alice").get_plugin_token(ask(PLUGIN)).await;
    assert_eq!(reason(refused), ErrorReason::SubjectErased);
    world.client("bob").get_plugin_token(ask(PLUGIN)).await.unwrap();
    world.stop().await;
}

/// A position in the log as it is now.
async fn resume_token(client: &Client) -> Vec<u8> {
    let request = v1::WatchCredentialStatusRequest { start: Some(Start::Now(true)), ..Default::default() };
    let mut stream = client.watch_credential_status(request).await.unwrap();
    in_time(async {
        loop {
            let message = stream.message().await.unwrap().unwrap();
            if !message.resume_token.is_empty() {
                return message.resume_token;
            }
        }
    })
    .await
}

async fn first_bodies(client: &Client, token: Vec<u8>) -> Vec<Body> {
    let request = v1::WatchCredentialStatusRequest {
        start: Some(Start::ResumeToken(token)),
        on_lost: v1::OnLost::Resync.into(),
        ..Default::default()
    };
    let mut stream = client.watch_credential_status(request).await.unwrap();
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        bodies.extend(in_time(stream.message()).await.unwrap().unwrap().body);
    }
    bodies
}

async fn trail(world: &mut World) -> Vec<AuditRecord> {
    world.stop().await;
    let records = Records::open(world).await;
    let trail = records.vault.audit(0, usize::MAX).await.unwrap();
    records.close().await;
    trail.into_iter().map(|(_, record)| record).collect()
}

/// Every file below a directory, with its content.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            files.extend(self::files(&entry.path()));
        } else {
            files.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}
