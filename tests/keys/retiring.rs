//! A key that something needs is not retired, and a store says which root key it lacks.

use claviger::{
    domain::{AuditAction, KeyId, KeyKind, KeyState, Timestamp},
    vault::VaultError,
};

use crate::{
    populated::{
        Populated, assert_logs_hold, assert_readable, keys_in_state, live_rows, roots, rotate_everything, said,
    },
    specimens::root,
};

const NOW: Timestamp = Timestamp::from_secs(5_000);

#[tokio::test]
async fn a_key_with_live_rows_is_not_retired() {
    let world = Populated::new().await;
    let vault = world.open(roots(2)).await.unwrap();
    let record = said(AuditAction::KeyRetired, NOW);
    vault.begin_root_rotation(&record).await.unwrap();
    let keys = vault.list_keys().await.unwrap();
    assert_eq!(keys[0].state, KeyState::Rotating);
    for key in keys {
        let live_rows = live_rows(&*world.store, key.id).await as u64;
        assert_eq!(key.live_rows, live_rows);
        let refused = Err(VaultError::KeyInUse { key: key.id, live_rows });
        assert_eq!(vault.retire_key(key.id, &record).await, refused);
    }
    let unknown = KeyId::from_bytes([9; 16]);
    assert_eq!(vault.retire_key(unknown, &record).await, Err(VaultError::KeyUnknown { key: unknown }));
    assert_readable(&vault).await;
}

#[tokio::test]
async fn a_retired_root_key_is_not_asked_for_and_stays_retired() {
    let world = Populated::new().await;
    let vault = world.open(roots(2)).await.unwrap();
    rotate_everything(&vault, NOW).await.unwrap();
    assert_eq!(keys_in_state(&vault, KeyKind::Root, KeyState::Readable).await.len(), 1);
    let record = said(AuditAction::KeyRetired, NOW);
    vault.retire_key(root(1).id(), &record).await.unwrap();
    vault.retire_key(root(1).id(), &record).await.unwrap();
    let retired = keys_in_state(&vault, KeyKind::Root, KeyState::Retired).await;
    assert_eq!(retired.iter().map(|key| key.id).collect::<Vec<_>>(), [root(1).id()]);
    let vault = world.open(root(2).into()).await.unwrap();
    assert_eq!(vault.list_keys().await.unwrap()[0].state, KeyState::Retired);
    assert_readable(&vault).await;
    assert_logs_hold(&vault).await;
}

#[tokio::test]
async fn a_store_names_the_root_key_that_it_lacks() {
    let world = Populated::new().await;
    let lacking = |expected, given: Vec<KeyId>| Some(VaultError::WrongRootKey { expected, given });
    let (first, second, third) = (root(1).id(), root(2).id(), root(3).id());
    assert_eq!(world.open(root(2).into()).await.err(), lacking(first, vec![second]));
    let vault = world.open(roots(2)).await.unwrap();
    vault.begin_root_rotation(&said(AuditAction::KeyRotated, NOW)).await.unwrap();
    // What is in force is there, and what is still to be moved is not.
    assert_eq!(world.open(root(2).into()).await.err(), lacking(first, vec![second]));
    assert_eq!(world.open(root(1).into()).await.err(), lacking(second, vec![first]));
    rotate_everything(&vault, NOW).await.unwrap();
    assert!(world.open(root(2).into()).await.is_ok());
    assert_eq!(world.open(root(3).into()).await.err(), lacking(second, vec![third]));
}
