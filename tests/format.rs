//! A store directory made by an earlier version opens in this one, and shows what it held.
//!
//! `tests/fixtures/store-1` is such a directory: format 1, sealed under a root key that stands below. When a format is
//! added, its directory is made once with
//! `cargo test --test format -- --ignored` and committed; those before it stay, and keep opening.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/specimens.rs"]
#[expect(dead_code, reason = "shared with the tests of the vault")]
mod specimens;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use claviger::{
    audit::{Chain, check},
    domain::{EntryId, EventKind, InstallationId, JobKind, Revision, Timestamp},
    sealing::{AuditKey, Random},
    store::{
        Purge, Store,
        sled::{SledOptions, SledStore},
    },
    vault::{Parked, Tokens, Vault},
};
use specimens::{
    acme, alice, attempt, audit_record, connection, event, flow, flow_tokens, job, next_generation, nonce, root, state,
    tokens, verifier,
};

const LATER: Timestamp = Timestamp::from_secs(2_000);

#[tokio::test]
async fn a_store_of_format_1_opens_and_shows_what_it_held() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    fs::create_dir(&path).unwrap();
    for file in fs::read_dir(fixture(1)).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), path.join(file.file_name())).unwrap();
    }
    let second = next_generation(&connection(1));
    // as it was, and again after this version has written to it
    for (number, expected) in [(2, second.clone()), (3, next_generation(&second))] {
        let (store, vault) = open(&path).await;
        let stored = vault.connection(&acme(), connection(1).id).await.unwrap().unwrap();
        assert_eq!(stored.value, expected);
        assert!(vault.access_token(&stored).await.unwrap() == tokens(number).access);
        assert!(vault.refresh_token(&stored).await.unwrap() == tokens(number).refresh);
        everything_else_is_there(&*store, &vault).await;

        let mut change = vault.change(&acme(), Some(alice())).await.unwrap();
        change.update_connection(&stored, &next_generation(&expected), Tokens::Replace(&tokens(3)), LATER);
        change.commit().await.unwrap();
        store.close().await;
    }
}

async fn everything_else_is_there(store: &dyn Store, vault: &Vault) {
    let head = store.head();
    assert_eq!(head.installation, InstallationId::from_bytes([1; 16]));
    assert_eq!(head.epoch, EntryId::from_bytes([2; 16]));
    assert_eq!((head.compacted, head.audit, head.audit_purged), (Revision(4), 3, 1));

    let listed = vault.connections(&acme(), alice(), None).await.unwrap();
    assert_eq!(listed.len(), 1);
    let stored = vault.flow(&acme(), flow(1).id).await.unwrap().unwrap();
    assert_eq!(stored.value, flow(1));
    assert!(vault.flow_tokens(&stored).await.unwrap().unwrap().tokens.refresh == flow_tokens(3).tokens.refresh);
    let stored = vault.attempt(&state(1)).await.unwrap().unwrap();
    assert_eq!(stored.value, attempt(&flow(1)));
    assert!(vault.attempt_verifier(&stored).await.unwrap() == verifier());
    assert!(vault.attempt_nonce(&stored).await.unwrap() == Some(nonce()));
    let pending = job(1, JobKind::SettleFlow { flow: flow(1).id });
    let stored = vault.job(pending.id).await.unwrap().unwrap();
    assert_eq!(stored.value, pending);
    assert!(vault.job_tokens(&stored).await.unwrap().unwrap().refresh == tokens(2).refresh);
    assert_eq!(vault.due(Timestamp::NEVER, 10).await.unwrap().len(), 4);

    let events = vault.events(Revision(0), 10).await.unwrap();
    let refreshed = event(&next_generation(&connection(1)), EventKind::Refreshed);
    assert_eq!(events.iter().map(|(_, events)| events.clone()).collect::<Vec<_>>(), [vec![refreshed]]);
    let records = vault.audit(0, 10).await.unwrap();
    assert_eq!(records, [(2, audit_record()), (3, audit_record())]);
    let entries = store.audit(1, 10).await.unwrap();
    let start = claviger::vault::LinkedAudit::decode(&entries[0].linked).unwrap();
    let start = Some(claviger::audit::Position { sequence: start.sequence, mac: start.mac });
    let end = check(vault.keys().audit(), start, entries[1..].iter().map(|entry| entry.linked.as_ref())).unwrap();
    assert_eq!(end.unwrap().sequence, 3);
}

#[tokio::test]
#[ignore = "makes the directory of a new format, once"]
async fn make_the_fixture() {
    const FORMAT: u8 = claviger::store::codec::FORMAT;
    let path = fixture(FORMAT);
    assert!(!path.exists(), "later versions are held to what is there already");
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("store");
    let (store, vault) = open(&made).await;
    let (first, flow) = (connection(1), flow(1));
    let mut change = vault.change(&acme(), Some(alice())).await.unwrap();
    change.insert_connection(&first, &tokens(1), LATER);
    change.insert_flow(&flow);
    change.insert_attempt(&attempt(&flow), &state(1), &verifier(), Some(&nonce()));
    change.insert_job(&job(1, JobKind::SettleFlow { flow: flow.id }), Some(&tokens(2)), LATER);
    change.event(&event(&first, EventKind::Connected));
    change.audit(&audit_record());
    let begun = change.commit().await.unwrap().revision;
    let stored = vault.connection(&acme(), first.id).await.unwrap().unwrap();
    let parked = vault.flow(&acme(), flow.id).await.unwrap().unwrap();
    let mut change = vault.change(&acme(), Some(alice())).await.unwrap();
    change.update_connection(&stored, &next_generation(&first), Tokens::Replace(&tokens(2)), LATER);
    change.update_flow(&parked, &flow, Parked::Replace(&flow_tokens(3)));
    change.event(&event(&next_generation(&first), EventKind::Refreshed));
    change.audit(&audit_record());
    change.commit().await.unwrap();
    let mut change = vault.change(&acme(), None).await.unwrap();
    change.audit(&audit_record());
    change.purge(Purge { events: begun, audit: 1 });
    change.commit().await.unwrap();
    store.close().await;
    fs::create_dir_all(&path).unwrap();
    for file in ["conf", "db", "lock"] {
        fs::copy(made.join(file), path.join(file)).unwrap();
    }
}

async fn open(directory: &Path) -> (Arc<SledStore>, Vault) {
    let options = SledOptions {
        directory: directory.to_owned(),
        page_cache: 16 << 20,
        row_cache: 1 << 20,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    };
    let key = AuditKey::default();
    let store = Arc::new(SledStore::open(options, Box::new(Chain::new(key.clone()))).await.unwrap());
    let vault = Vault::open(store.clone(), root(1), Random::system(), &key).await.unwrap();
    (store, vault)
}

fn fixture(format: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store-{format}"))
}
