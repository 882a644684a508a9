//! Rotation: nothing is lost however often it is cut off, and nobody who uses the store meanwhile notices.

use std::sync::Arc;

use claviger::{
    domain::{AuditAction, Job, KeyKind, KeyState, KeyStatus, RefreshToken, SubjectId, Timestamp},
    vault::{Rotating, Stored, TokenSet, Tokens, Vault, VaultError},
};

use crate::{
    populated::{
        LATER, Populated, assert_readable, connection_of, finish, keys_in_state, live_rows, orphan_of, people, roots,
        rotate_everything, said,
    },
    specimens::{acme, alice, next_generation, root, tokens},
    stopping_store::StoppingStore,
};

const NOW: Timestamp = Timestamp::from_secs(5_000);
/// Of each writer.
const ROUNDS: u64 = 200;

#[tokio::test]
async fn a_rotation_that_is_cut_off_after_any_commit_loses_nothing_and_is_finished_by_the_next_process() {
    for commits in 0.. {
        let world = Populated::new().await;
        let cut_off = Arc::new(StoppingStore::after(world.store.clone(), commits));
        let process = world.open_as(cut_off, roots(2)).await.unwrap();
        let ended = rotate_everything(&process, NOW).await;
        assert!(matches!(ended, Ok(()) | Err(VaultError::OutcomeUnknown)), "{ended:?}");

        let next = world.open(roots(2)).await.unwrap();
        assert_readable(&next).await;
        rotate_everything(&next, NOW).await.unwrap();
        assert_readable(&next).await;
        assert_eq!(next.rotations().await.unwrap(), []);
        next.retire_key(root(1).id(), &said(AuditAction::KeyRetired, NOW)).await.unwrap();
        assert_readable(&world.open(root(2).into()).await.unwrap()).await;
        if ended.is_ok() {
            // Root and tenants begin, and every row moves: the test went through all of it.
            assert!(commits >= 20, "{commits}");
            return;
        }
    }
}

#[tokio::test]
async fn a_rotation_moves_every_row_and_destroys_the_tenants_old_keys() {
    let world = Populated::new().await;
    let before = world.vault.list_keys().await.unwrap();
    let vault = world.open(roots(2)).await.unwrap();
    rotate_everything(&vault, NOW).await.unwrap();
    let after = vault.list_keys().await.unwrap();
    for old in before.iter().filter(|key| key.kind != KeyKind::Log) {
        assert_eq!(live_rows(&*world.store, old.id).await, 0);
    }
    let of = |keys: &[KeyStatus], kind| -> Vec<_> {
        keys.iter().filter(|key| key.kind == kind).map(|key| (key.tenant.clone(), key.id)).collect()
    };
    assert_eq!(of(&before, KeyKind::Log), of(&after, KeyKind::Log), "a log key is wrapped anew, not replaced");
    let (old, new) = (of(&before, KeyKind::Tenant), of(&after, KeyKind::Tenant));
    assert_eq!((old.len(), new.len()), (3, 3));
    assert!(new.iter().all(|key| !old.contains(key)));
    assert!(keys_in_state(&vault, KeyKind::Tenant, KeyState::Present).await.iter().all(|key| key.made_at == Some(NOW)));
}

/// Its old key would be destroyed with the tokens.
#[tokio::test]
async fn a_record_is_not_written_under_the_new_key_with_secrets_under_the_old_one() {
    let world = Populated::new().await;
    let vault = &world.vault;
    let orphan = || async { vault.job(orphan_of(1).id).await.unwrap().unwrap() };
    let put_off = |job: Stored<Job>| async move {
        let mut change = vault.change(&acme(), None).await.unwrap();
        change.reschedule_job(&job, &job.value, LATER);
        change.commit().await
    };
    vault.begin_tenant_rotation(&acme(), &said(AuditAction::KeyRotated, NOW)).await.unwrap();
    assert!(matches!(put_off(orphan().await).await, Err(VaultError::PreconditionFailed { .. })));
    finish(vault).await.unwrap();
    put_off(orphan().await).await.unwrap();
    assert!(vault.job_tokens(&orphan().await).await.unwrap().is_some());
}

#[tokio::test]
async fn progress_counts_down_from_what_there_was_and_is_the_same_for_who_asks_again() {
    let world = Populated::new().await;
    let vault = world.open(roots(2)).await.unwrap();
    let record = said(AuditAction::KeyRotated, NOW);
    let begun = vault.begin_tenant_rotation(&acme(), &record).await.unwrap().unwrap();
    assert!(begun.begun == 7 && begun.left < begun.begun && begun.started_at == NOW);
    let later = said(AuditAction::KeyRotated, LATER);
    assert_eq!(vault.begin_tenant_rotation(&acme(), &later).await.unwrap(), Some(begun));
    assert_eq!(vault.rotations().await.unwrap(), [(Rotating::Tenant(acme()), begun)]);
    let reopened = world.open(roots(2)).await.unwrap();
    assert_eq!(reopened.rotations().await.unwrap(), [(Rotating::Tenant(acme()), begun)]);
    assert!(vault.go_on_rotating(&Rotating::Tenant(acme())).await.unwrap());
    assert!(vault.rotations().await.unwrap().iter().all(|(_, rotation)| rotation.left < begun.left));
    finish(&vault).await.unwrap();
    assert_eq!(vault.rotations().await.unwrap(), []);
}

#[tokio::test]
async fn a_root_key_that_was_in_force_is_not_rotated_to() {
    let world = Populated::new().await;
    let record = said(AuditAction::KeyRotated, NOW);
    let none_newer = Err(VaultError::NoNewRootKey { newest: root(1).id() });
    assert_eq!(world.vault.begin_root_rotation(&record).await, none_newer);
    let vault = world.open(roots(2)).await.unwrap();
    rotate_everything(&vault, NOW).await.unwrap();
    let backwards = claviger::sealing::RootKeys::new(root(1), vec![root(2)]);
    assert_eq!(world.open(backwards).await.unwrap().begin_root_rotation(&record).await, none_newer);
}

/// A change set in flight when its key is wrapped anew would be refused: its author must not see that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_reads_or_writes_meanwhile_notices_a_rotation() {
    let world = Populated::new().await;
    let vault = world.open(roots(2)).await.unwrap();
    let writers: Vec<_> = people()
        .into_iter()
        .map(|(number, ..)| {
            let vault = vault.clone();
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    refresh_once(&vault, number, round).await;
                    if round % 10 == 0 {
                        enter(&vault, number, round).await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let (record, mut rotations) = (said(AuditAction::KeyRotated, NOW), 0);
    vault.begin_root_rotation(&record).await.unwrap();
    while rotations == 0 || writers.iter().any(|writer| !writer.is_finished()) {
        for tenant in vault.tenants().await.unwrap() {
            vault.begin_tenant_rotation(&tenant, &record).await.unwrap();
        }
        finish(&vault).await.unwrap();
        rotations += 1;
    }
    for ((number, tenant, _), writer) in people().into_iter().zip(writers) {
        writer.await.unwrap();
        let stored = vault.connection(&tenant, connection_of(number).id).await.unwrap().unwrap();
        assert_eq!(stored.value.credential.generation, 1 + ROUNDS);
    }
    assert_eq!(vault.alarms(), 0);
}

async fn refresh_once(vault: &Vault, number: u8, round: u64) {
    let stored = vault.any_connection(connection_of(number).id).await.unwrap().unwrap();
    assert!(vault.refresh_token(&stored).await.unwrap().is_some());
    let next = next_generation(&stored.value);
    let mut change = vault.change(&next.tenant, Some(next.subject)).await.unwrap();
    let refresh = Some(RefreshToken::new(format!("refresh-{round}")));
    change.update_connection(&stored, &next, Tokens::Replace(&TokenSet { refresh, ..tokens(number) }), LATER);
    change.commit().await.unwrap();
}

/// A subject that is new: sealed under the tenant's key.
async fn enter(vault: &Vault, number: u8, round: u64) {
    let mut id = *alice().as_bytes();
    id[0] = number;
    id[1..9].copy_from_slice(&round.to_be_bytes());
    let newcomer = SubjectId::from_bytes(id);
    let tenant = connection_of(number).tenant;
    vault.change(&tenant, Some(newcomer)).await.unwrap();
    assert!(vault.subject(&tenant, newcomer).await.unwrap().is_some());
}
