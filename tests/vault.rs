//! The store learns nothing, what was tampered with does not open, and records change only as they were read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use claviger::{
    audit::{Chain, check},
    domain::{
        AppliedReport, ApplyOutcome, Attempt, AuditAction, AuditRecord, Connection, ConnectionId, EntryId, EventKind,
        FLOW_MEMORY, Flow, FlowState, Heard, Holders, InstallationId, Job, JobKind, MOST_HOLDERS, Revision, ScopeSet,
        Sealed, SubjectId, Timestamp,
    },
    sealing::{AuditKey, Random, RandomUnavailable, RootKey, RootKeys},
    store::{
        ChangeSet, Copied, FieldTag, RecordKey, RecordKind, Row, Store, Write,
        sled::{SledOptions, SledStore},
    },
    vault::{
        DueRecord, ErasureList, FlowIntent, FlowTokens, Misuse, Parked, Stored, TokenSet, Tokens, Vault, VaultError,
    },
};
use support::{
    memory_store::MemoryStore,
    specimens::{
        acme, alice, attempt, audit_record, bob, connection, event, flow, flow_tokens, holders, job, next_generation,
        nonce, root, state, tokens, umbrella, verifier,
    },
    tampering_store::{TamperingStore, with_field},
};

mod support {
    pub(crate) mod memory_store;
    pub(crate) mod specimens;
    pub(crate) mod tampering_store;
}

const LATER: Timestamp = Timestamp::from_secs(2_000);

#[tokio::test]
async fn nothing_in_the_store_names_anyone_or_anything() {
    let fixture = Fixture::new().await;
    write_one_of_each(&fixture.vault).await;
    let everything = fixture.store.everything().await;
    assert!(everything.len() > 30);
    for needle in needles() {
        assert!(!found(&everything, &needle), "{}", String::from_utf8_lossy(&needle));
    }
    // The search would find them.
    for needle in needles() {
        let hex: String = needle.iter().map(|byte| format!("{byte:02X}")).collect();
        for planted in [needle.clone(), hex.into(), STANDARD_NO_PAD.encode([b"x", &needle[..]].concat()).into()] {
            assert!(found(&[Bytes::from(planted)], &needle));
        }
    }
}

#[tokio::test]
async fn nothing_in_the_embedded_store_names_anyone_or_anything_in_its_rows_or_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let options = SledOptions {
        directory: directory.path().join("store"),
        page_cache: 8 << 20,
        row_cache: 1 << 20,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    };
    let audit_key = AuditKey::default();
    let store = Arc::new(SledStore::open(options.clone(), Box::new(Chain::new(audit_key.clone()))).await.unwrap());
    let vault = Vault::open(store.clone(), root(1), Random::system(), &audit_key).await.unwrap();
    write_one_of_each(&vault).await;
    // What moves and destroys keys leaves rows of its own.
    let roots = RootKeys::new(root(2), vec![root(1)]);
    let vault = Vault::open(store.clone(), roots, Random::system(), &audit_key).await.unwrap();
    vault.change(&acme(), Some(bob())).await.unwrap();
    let erasures = ErasureList::new(options.directory.join("erasures"));
    vault.erase_subject(&acme(), bob(), &audit_record(), &erasures).await.unwrap();
    vault.begin_root_rotation(&audit_record()).await.unwrap();
    vault.begin_tenant_rotation(&acme(), &audit_record()).await.unwrap();
    for (what, _) in vault.rotations().await.unwrap() {
        while vault.go_on_rotating(&what).await.unwrap() {}
    }
    let rows = dump(&*store).await;
    assert!(rows.len() > 50, "{}", rows.len());
    let row = store.row(connection(1).key()).await.unwrap().unwrap();
    store.close().await;

    let files = files_under(&options.directory);
    for needle in needles() {
        assert!(!found(&rows, &needle), "{} in a row", String::from_utf8_lossy(&needle));
        assert!(!found(&files, &needle), "{} in a file", String::from_utf8_lossy(&needle));
    }
    // What was written is there to be found.
    assert!(found(&files, row.field(FieldTag::AccessToken).unwrap().as_bytes()));
}

#[tokio::test]
async fn a_connection_reads_back_as_it_was_written_also_after_a_restart() {
    let fixture = Fixture::new().await;
    fixture.connect(&connection(1), &tokens(1)).await;
    for vault in [fixture.vault.clone(), fixture.reopen().await.unwrap()] {
        let stored = vault.connection(&acme(), connection(1).id).await.unwrap().unwrap();
        assert_eq!(stored.value, connection(1));
        assert_eq!(stored.version(), 1);
        assert!(vault.access_token(&stored).await.unwrap() == tokens(1).access);
        assert!(vault.refresh_token(&stored).await.unwrap() == tokens(1).refresh);
        assert!(vault.id_token(&stored).await.unwrap() == tokens(1).id_token);
    }
}

#[tokio::test]
async fn another_tenants_connection_does_not_exist() {
    let fixture = Fixture::new().await;
    fixture.connect(&connection(1), &tokens(1)).await;
    assert!(fixture.vault.connection(&umbrella(), connection(1).id).await.unwrap().is_none());
    assert!(fixture.vault.connections(&umbrella(), alice(), None).await.unwrap().is_empty());
    assert!(fixture.vault.connections(&acme(), bob(), None).await.unwrap().is_empty());
    assert!(fixture.vault.any_connection(connection(1).id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_subjects_connections_are_found_by_provider() {
    let fixture = Fixture::new().await;
    let elsewhere = Connection { provider: "gitlab".parse().unwrap(), ..connection(3) };
    for connection in [&connection(1), &connection(2), &elsewhere] {
        fixture.connect(connection, &tokens(1)).await;
    }
    let found = async |provider: Option<&str>| {
        let provider = provider.map(|name| name.parse().unwrap());
        let found = fixture.vault.connections(&acme(), alice(), provider.as_ref()).await.unwrap();
        let mut ids: Vec<_> = found.into_iter().map(|stored| stored.value.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(found(None).await, [connection(1).id, connection(2).id, elsewhere.id]);
    assert_eq!(found(Some("github-canary")).await, [connection(1).id, connection(2).id]);
    assert_eq!(found(Some("gitlab")).await, [elsewhere.id]);
    assert!(found(Some("slack")).await.is_empty());
}

#[tokio::test]
async fn the_indexes_do_not_show_who_shares_a_provider() {
    let fixture = Fixture::new().await;
    let alices = fixture.connect(&connection(1), &tokens(1)).await;
    let mut keys = Vec::new();
    for (number, tenant, subject) in [(2, acme(), bob()), (3, umbrella(), alice())] {
        let other = Connection { tenant: tenant.clone(), subject, ..connection(number) };
        let mut change = fixture.vault.change(&tenant, Some(subject)).await.unwrap();
        change.insert_connection(&other, &tokens(number), LATER);
        change.commit().await.unwrap();
        keys.extend(fixture.vault.store().row(other.key()).await.unwrap().unwrap().index.clone());
    }
    keys.extend(fixture.row(&alices).await.index);
    let hashes =
        keys.iter().filter(|entry| entry.key.len() == 80).flat_map(|entry| [&entry.key[..32], &entry.key[32..64]]);
    assert_eq!(hashes.collect::<HashSet<_>>().len(), 6);
}

#[tokio::test]
async fn kept_tokens_are_not_sealed_again_and_replaced_or_dropped_ones_are_gone() {
    let fixture = Fixture::new().await;
    let first = fixture.connect(&connection(1), &tokens(1)).await;
    let sealed = fixture.row(&first).await.field(FieldTag::RefreshToken).unwrap().clone();

    let mut renamed = first.value.clone();
    renamed.account = Some("other".to_owned());
    let second = fixture.update(&first, &renamed, Tokens::Keep).await.unwrap();
    assert_eq!(second.version(), 2);
    assert_eq!(second.value, renamed);
    assert!(fixture.row(&second).await.field(FieldTag::RefreshToken).unwrap() == &sealed);
    assert!(fixture.vault.refresh_token(&second).await.unwrap() == tokens(1).refresh);

    let without_refresh = TokenSet { refresh: None, ..tokens(2) };
    let third = fixture.update(&second, &next_generation(&renamed), Tokens::Replace(&without_refresh)).await.unwrap();
    assert!(fixture.vault.access_token(&third).await.unwrap() == tokens(2).access);
    assert!(fixture.vault.refresh_token(&third).await.unwrap().is_none());

    let fourth = fixture.update(&third, &third.value, Tokens::Drop).await.unwrap();
    let refusal = fixture.vault.access_token(&fourth).await.err();
    assert!(matches!(refusal, Some(VaultError::NoTokens { .. })));
    assert!(fixture.vault.connection_tokens(&fourth).await.unwrap().is_none());
}

#[tokio::test]
async fn a_new_generation_cannot_keep_the_old_tokens() {
    let fixture = Fixture::new().await;
    let first = fixture.connect(&connection(1), &tokens(1)).await;
    let refusal = fixture.update(&first, &next_generation(&first.value), Tokens::Keep).await.err();
    assert!(matches!(refusal, Some(VaultError::Misuse(Misuse::TokensOfOtherGeneration { .. }))));
}

#[tokio::test]
async fn a_change_from_a_stale_read_is_a_conflict_and_writes_nothing() {
    let fixture = Fixture::new().await;
    let first = fixture.connect(&connection(1), &tokens(1)).await;
    fixture.update(&first, &first.value, Tokens::Keep).await.unwrap();
    let before = fixture.store.head().revision;

    let mut change = fixture.change().await;
    change.update_connection(&first, &first.value, Tokens::Drop, LATER);
    change.audit(&audit_record());
    let record = format!("{:?}", RecordKey::new(RecordKind::Connection, first.value.id.as_bytes()));
    assert_eq!(change.commit().await, Err(VaultError::Conflict { record: record.clone() }));

    let mut change = fixture.change().await;
    change.require_connection(&first);
    change.insert_flow(&flow(1));
    assert_eq!(change.commit().await, Err(VaultError::PreconditionFailed { record }));

    assert_eq!(fixture.store.head().revision, before);
    assert!(fixture.vault.flow(&acme(), flow(1).id).await.unwrap().is_none());
}

#[tokio::test]
async fn fields_do_not_open_in_each_others_place() {
    let fixture = Fixture::new().await;
    let stored = fixture.connect(&connection(1), &tokens(1)).await;
    let row = fixture.row(&stored).await;
    let swapped = with_field(&row, FieldTag::AccessToken, &row, FieldTag::RefreshToken);
    let forged = fixture.read_forged(&stored, swapped).await.unwrap();
    assert_unsealable(fixture.vault.access_token(&forged).await, &stored);
}

#[tokio::test]
async fn rows_do_not_open_in_each_others_place() {
    let fixture = Fixture::new().await;
    let mine = fixture.connect(&connection(1), &tokens(1)).await;
    let other = fixture.connect(&connection(2), &tokens(2)).await;
    let (row, others) = (fixture.row(&mine).await, fixture.row(&other).await);
    assert_unsealable(fixture.read_forged(&mine, others.clone()).await, &mine);

    let with_others_token = with_field(&row, FieldTag::AccessToken, &others, FieldTag::AccessToken);
    let forged = fixture.read_forged(&mine, with_others_token).await.unwrap();
    assert_unsealable(fixture.vault.access_token(&forged).await, &mine);
}

#[tokio::test]
async fn a_row_of_another_tenant_or_subject_does_not_open_here() {
    let fixture = Fixture::new().await;
    let mine = fixture.connect(&connection(1), &tokens(1)).await;
    let row = fixture.row(&mine).await;
    for (number, tenant, subject) in [(2, umbrella(), alice()), (3, acme(), bob())] {
        let other = Connection { tenant: tenant.clone(), subject, ..connection(number) };
        let mut change = fixture.vault.change(&tenant, Some(subject)).await.unwrap();
        change.insert_connection(&other, &tokens(2), LATER);
        change.commit().await.unwrap();
        let stored = fixture.vault.connection(&tenant, other.id).await.unwrap().unwrap();
        assert_unsealable(fixture.read_forged(&stored, row.clone()).await, &stored);
        let with_my_token = with_field(&fixture.row(&stored).await, FieldTag::AccessToken, &row, FieldTag::AccessToken);
        let forged = fixture.read_forged(&stored, with_my_token).await.unwrap();
        assert_unsealable(fixture.vault.access_token(&forged).await, &stored);
    }
}

#[tokio::test]
async fn older_fields_do_not_open_beside_newer_ones() {
    let fixture = Fixture::new().await;
    let first = fixture.connect(&connection(1), &tokens(1)).await;
    let old = fixture.row(&first).await;
    let newer = next_generation(&first.value);
    let second = fixture.update(&first, &newer, Tokens::Replace(&tokens(2))).await.unwrap();
    let new = fixture.row(&second).await;

    let old_token = with_field(&new, FieldTag::RefreshToken, &old, FieldTag::RefreshToken);
    let forged = fixture.read_forged(&second, old_token).await.unwrap();
    assert_unsealable(fixture.vault.refresh_token(&forged).await, &second);

    let old_record = with_field(&new, FieldTag::Record, &old, FieldTag::Record);
    assert_unsealable(fixture.read_forged(&second, old_record).await, &second);
}

#[tokio::test]
async fn a_row_put_back_to_an_older_version_is_found_when_it_is_opened() {
    let fixture = Fixture::new().await;
    let first = fixture.connect(&connection(1), &tokens(1)).await;
    let mut olds = vec![fixture.row(&first).await];
    // The same generation and the same time: only the version tells the rows apart.
    let second = fixture.update(&first, &first.value, Tokens::Keep).await.unwrap();
    olds.push(fixture.row(&second).await);
    let newest = fixture.update(&second, &next_generation(&first.value), Tokens::Replace(&tokens(2))).await.unwrap();
    let rolled_back = VaultError::RolledBack { record: format!("{:?}", newest.value.key()) };
    for (alarms, old) in (1..).zip(olds) {
        assert_eq!(fixture.read_forged(&newest, old).await.err(), Some(rolled_back.clone()));
        assert_eq!(fixture.vault.alarms(), alarms);
    }
    assert!(fixture.vault.any_connection(newest.value.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_row_put_back_after_it_was_deleted_is_found_when_it_is_opened() {
    let fixture = Fixture::new().await;
    let mut change = fixture.change().await;
    change.insert_flow(&flow(1));
    change.commit().await.unwrap();
    let stored = fixture.vault.any_flow(flow(1).id).await.unwrap().unwrap();
    let row = fixture.row(&stored).await;
    let mut change = fixture.change().await;
    change.delete_flow(&stored);
    change.commit().await.unwrap();
    let record = format!("{:?}", stored.value.key());
    assert_eq!(fixture.read_forged(&stored, row).await.err(), Some(VaultError::RolledBack { record }));
}

#[tokio::test]
async fn a_damaged_row_is_reported_by_name_and_harms_no_other() {
    let fixture = Fixture::new().await;
    let stored = fixture.connect(&connection(1), &tokens(1)).await;
    fixture.connect(&connection(2), &tokens(1)).await;
    let row = fixture.row(&stored).await;
    let record = format!("Connection/{}", &stored.value.id.to_string()["con_".len()..]);

    let mut empty = row.clone();
    empty.fields.clear();
    assert_eq!(fixture.read_forged(&stored, empty).await.err(), Some(VaultError::Corrupt { record: record.clone() }));

    for (length, expected) in
        [(10, VaultError::Corrupt { record: record.clone() }), (60, VaultError::Unsealable { record: record.clone() })]
    {
        let mut cut = row.clone();
        cut.fields[0].1 = Sealed::from_bytes(cut.fields[0].1.as_bytes().slice(..length));
        assert_eq!(fixture.read_forged(&stored, cut).await.err(), Some(expected));
    }
    assert!(fixture.vault.connection(&acme(), connection(2).id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_wrong_root_key_is_told_by_its_name() {
    let fixture = Fixture::new().await;
    fixture.connect(&connection(1), &tokens(1)).await;
    let error = open(&fixture.store, root(9), Random::system()).await.err();
    assert_eq!(error, Some(VaultError::WrongRootKey { expected: root(1).id(), given: vec![root(9).id()] }));
}

#[tokio::test]
async fn a_store_that_lost_its_installation_record_gets_no_new_one() {
    let fixture = Fixture::new().await;
    let (key, _) = fixture.only_row(RecordKind::Installation).await;
    fixture.store.forge(&key, None);
    assert_eq!(fixture.reopen().await.err(), Some(VaultError::InstallationMissing));
}

#[tokio::test]
async fn vaults_that_open_a_new_store_together_agree_on_its_secret() {
    let (store, _) = new_store();
    store.race(RecordKind::Installation, 2);
    let (one, other) = tokio::join!(open(&store, root(1), Random::system()), open(&store, root(1), Random::system()));
    let subject = |vault: &Vault| vault.keys().subject_id(&"entra".parse().unwrap(), "", &["alice"]);
    assert_eq!(subject(&one.unwrap()), subject(&other.unwrap()));
}

#[tokio::test]
async fn changes_that_race_for_a_new_subject_make_one_key() {
    for (kind, keys) in [(RecordKind::Tenant, 3), (RecordKind::Subject, 3)] {
        let fixture = Fixture::new().await;
        let other = fixture.reopen().await.unwrap();
        fixture.store.race(kind, 2);
        let begin = async |vault: &Vault, number| {
            let mut change = vault.change(&acme(), Some(alice())).await.unwrap();
            change.insert_connection(&connection(number), &tokens(number), LATER);
            change.commit().await.unwrap();
        };
        tokio::join!(begin(&fixture.vault, 1), begin(&other, 2));
        assert_eq!(fixture.store.rows(RecordKind::Key).await.len(), keys);
        for vault in [&fixture.vault, &other, &fixture.reopen().await.unwrap()] {
            assert_eq!(vault.connections(&acme(), alice(), None).await.unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn without_the_subjects_key_only_what_the_tenant_owns_opens() {
    let fixture = Fixture::new().await;
    let mut change = fixture.change().await;
    change.insert_connection(&connection(1), &tokens(1), LATER);
    change.event(&event(&connection(1), EventKind::Connected));
    change.audit(&audit_record());
    change.commit().await.unwrap();
    let stored = fixture.vault.connection(&acme(), connection(1).id).await.unwrap().unwrap();
    let begun_before = fixture.change().await;
    fixture.destroy_key(alice()).await;

    let vault = fixture.reopen().await.unwrap();
    assert_unsealable(vault.connection(&acme(), connection(1).id).await, &stored);
    assert_eq!(vault.change(&acme(), Some(alice())).await.err(), Some(VaultError::SubjectErased));
    assert_eq!(vault.events(Revision::default(), 10).await.unwrap().len(), 1);
    assert_eq!(vault.audit(0, 10).await.unwrap(), [(1, audit_record())]);
    assert!(vault.subject(&acme(), alice()).await.unwrap().is_some());

    // Nor can what was begun before still be sealed under the destroyed key.
    let mut begun_before = begun_before;
    begun_before.insert_flow(&flow(1));
    assert_eq!(begun_before.commit().await.err(), Some(VaultError::SubjectErased));
    // The refusal emptied the cache of it.
    assert_eq!(fixture.vault.change(&acme(), Some(alice())).await.err(), Some(VaultError::SubjectErased));
}

#[tokio::test]
async fn a_key_row_in_anothers_place_does_not_unwrap() {
    let fixture = Fixture::new().await;
    let stored = fixture.connect(&connection(1), &tokens(1)).await;
    let bobs = Connection { subject: bob(), ..connection(2) };
    let mut change = fixture.vault.change(&acme(), Some(bob())).await.unwrap();
    change.insert_connection(&bobs, &tokens(2), LATER);
    change.commit().await.unwrap();
    let keys = fixture.store.rows(RecordKind::Key).await;
    let [_, _, (alices, _), (_, bobs_row)] = &keys[..] else { panic!("two keys of a tenant, two of subjects") };
    fixture.store.forge(alices, Some(bobs_row.clone()));
    let error = fixture.reopen().await.unwrap().any_connection(stored.value.id).await.err();
    assert_eq!(error, Some(VaultError::Unsealable { record: format!("{alices:?}") }));
}

#[tokio::test]
async fn a_subject_says_which_key_is_theirs() {
    let fixture = Fixture::new().await;
    assert!(fixture.vault.subject(&acme(), alice()).await.unwrap().is_none());
    fixture.change().await;
    let subject = fixture.vault.subject(&acme(), alice()).await.unwrap().unwrap();
    assert_eq!((subject.value.subject, subject.value.not_before), (alice(), None));
    let keys = fixture.store.rows(RecordKind::Key).await;
    assert!(keys.iter().any(|(key, _)| key.id() == subject.value.key.as_bytes().as_slice()));
    let mut change = fixture.change().await;
    change.require_subject(&subject);
    change.insert_flow(&flow(1));
    change.commit().await.unwrap();
    assert!(fixture.vault.subject(&umbrella(), alice()).await.unwrap().is_none());
}

#[tokio::test]
async fn nothing_is_sealed_for_anyone_but_the_change_sets_own_subject() {
    let fixture = Fixture::new().await;
    let revision = fixture.store.head().revision;
    let strangers =
        [Connection { subject: bob(), ..connection(1) }, Connection { tenant: umbrella(), ..connection(1) }];
    for stranger in &strangers {
        let mut change = fixture.change().await;
        change.insert_connection(stranger, &tokens(1), LATER);
        assert!(matches!(change.commit().await, Err(VaultError::Misuse(Misuse::OtherOwner { .. }))));
    }
    let mut change = fixture.vault.change(&acme(), None).await.unwrap();
    change.insert_flow(&flow(1));
    assert!(matches!(change.commit().await, Err(VaultError::Misuse(Misuse::OtherOwner { .. }))));
    let mut change = fixture.change().await;
    change.audit(&AuditRecord { tenant: umbrella(), ..audit_record() });
    assert!(matches!(change.commit().await, Err(VaultError::Misuse(Misuse::OtherOwner { .. }))));
    let mut change = fixture.change().await;
    change.event(&event(&strangers[1], EventKind::Connected));
    assert!(matches!(change.commit().await, Err(VaultError::Misuse(Misuse::OtherOwner { .. }))));
    // Only the two keys were made.
    assert_eq!(fixture.store.head().revision, Revision(revision.0 + 2));
}

#[tokio::test]
async fn a_record_is_written_once_in_a_change_set_and_only_over_itself() {
    let fixture = Fixture::new().await;
    let stored = fixture.connect(&connection(1), &tokens(1)).await;
    let mut change = fixture.change().await;
    change.update_connection(&stored, &stored.value, Tokens::Keep, LATER);
    change.update_connection(&stored, &stored.value, Tokens::Keep, LATER);
    assert!(matches!(change.commit().await, Err(VaultError::Misuse(Misuse::Malformed { .. }))));
    let refusal = fixture.update(&stored, &connection(2), Tokens::Keep).await.err();
    assert!(matches!(refusal, Some(VaultError::Misuse(Misuse::OtherRecord { .. }))));
}

#[tokio::test]
async fn a_record_may_be_required_and_written_together() {
    let fixture = Fixture::new().await;
    let stored = fixture.connect(&connection(1), &tokens(1)).await;
    for expected in [true, false] {
        let mut change = fixture.change().await;
        change.require_connection(&stored);
        change.update_connection(&stored, &stored.value, Tokens::Keep, LATER);
        assert_eq!(change.commit().await.is_ok(), expected);
    }
}

#[tokio::test]
async fn a_failing_random_source_commits_nothing() {
    let (store, _) = new_store();
    let works = Arc::new(AtomicBool::new(true));
    let (switch, system) = (works.clone(), Random::system());
    let random = Random::from_fill(Arc::new(move |bytes: &mut [u8]| {
        if switch.load(Ordering::Relaxed) { system.fill(bytes) } else { Err(RandomUnavailable) }
    }));
    let vault = open(&store, root(1), random).await.unwrap();
    let mut change = vault.change(&acme(), Some(alice())).await.unwrap();
    let before = store.head().revision;
    works.store(false, Ordering::Relaxed);
    change.insert_connection(&connection(1), &tokens(1), LATER);
    works.store(true, Ordering::Relaxed);
    change.event(&event(&connection(1), EventKind::Connected));
    assert_eq!(change.commit().await, Err(VaultError::Random(RandomUnavailable)));
    assert_eq!(store.head().revision, before);
}

#[tokio::test]
async fn an_open_flow_is_found_by_its_intent_and_nothing_less() {
    let fixture = Fixture::new().await;
    let flow = flow(1);
    let mut change = fixture.change().await;
    change.insert_flow(&flow);
    change.commit().await.unwrap();
    let now = flow.created_at;
    let find = async |intent: FlowIntent<'_>| fixture.vault.open_flow(&acme(), &intent, now).await.unwrap();
    let intent = FlowIntent::of(&flow);
    assert_eq!(find(intent).await.unwrap().value, flow);

    let (fewer, other) = (ScopeSet::default(), "other".parse().unwrap());
    let others = [
        FlowIntent { subject: bob(), ..intent },
        FlowIntent { agent: None, ..intent },
        FlowIntent { plugin: None, ..intent },
        FlowIntent { provider: &other, ..intent },
        FlowIntent { scopes: &fewer, ..intent },
        FlowIntent { account: None, ..intent },
        FlowIntent { account: Some(""), ..intent },
        FlowIntent { return_url: None, ..intent },
        FlowIntent { renews: Some(ConnectionId::from_bytes([9; 16])), ..intent },
    ];
    for other in others {
        assert!(find(other).await.is_none(), "{other:?}");
    }
    assert!(fixture.vault.open_flow(&umbrella(), &intent, now).await.unwrap().is_none());
    assert!(fixture.vault.open_flow(&acme(), &intent, flow.expires_at).await.unwrap().is_none());
    assert!(fixture.vault.flow(&umbrella(), flow.id).await.unwrap().is_none());

    let stored = fixture.vault.flow(&acme(), flow.id).await.unwrap().unwrap();
    let mut change = fixture.change().await;
    change.update_flow(&stored, &Flow { state: FlowState::Denied, ..flow.clone() }, Parked::Keep);
    change.commit().await.unwrap();
    assert!(find(intent).await.is_none());
}

#[tokio::test]
async fn a_subjects_flows_are_counted_up_to_the_limit() {
    let fixture = Fixture::new().await;
    for page in 0..6 {
        let mut change = fixture.change().await;
        (0..50).for_each(|number| change.insert_flow(&flow(page * 50 + number)));
        change.commit().await.unwrap();
    }
    let count =
        async |subject, limit| fixture.vault.flows_of(&acme(), subject, flow(7).created_at, limit).await.unwrap();
    assert_eq!(count(alice(), 1000).await, 300);
    assert_eq!(count(alice(), 20).await, 20);
    assert_eq!(count(alice(), 256).await, 256);
    assert_eq!(count(alice(), 280).await, 280);
    assert_eq!(count(bob(), 20).await, 0);
    let over = fixture.vault.flows_of(&acme(), alice(), flow(7).expires_at, 20).await.unwrap();
    assert_eq!(over, 0, "a flow that is over is remembered, and counts no more");

    let stored = fixture.vault.any_flow(flow(7).id).await.unwrap().unwrap();
    let mut change = fixture.change().await;
    change.delete_flow(&stored);
    change.commit().await.unwrap();
    assert_eq!(count(alice(), 1000).await, 299);
    assert!(fixture.vault.any_flow(flow(7).id).await.unwrap().is_none());
}

#[tokio::test]
async fn tokens_wait_in_a_flow_until_they_are_dropped() {
    let fixture = Fixture::new().await;
    let flow = flow(1);
    let mut change = fixture.change().await;
    change.insert_flow(&flow);
    change.commit().await.unwrap();
    let update = async |parked: Parked<'_>| {
        let stored = fixture.vault.flow(&acme(), flow.id).await.unwrap().unwrap();
        let mut change = fixture.change().await;
        change.update_flow(&stored, &flow, parked);
        change.commit().await.unwrap();
        fixture.vault.flow(&acme(), flow.id).await.unwrap().unwrap()
    };
    let read = async |stored: &Stored<Flow>| fixture.vault.flow_tokens(stored).await.unwrap();

    assert!(read(&update(Parked::Keep).await).await.is_none());
    let parked = update(Parked::Replace(&flow_tokens(1))).await;
    let old = fixture.row(&parked).await;
    for stored in [parked, update(Parked::Keep).await] {
        let FlowTokens { tokens: held, granted, obtained_at, nonce } = read(&stored).await.unwrap();
        assert!(held.access == tokens(1).access && held.refresh == tokens(1).refresh);
        assert!(held.id_token == tokens(1).id_token);
        assert!(nonce == flow_tokens(1).nonce);
        assert_eq!((granted, obtained_at), (flow_tokens(1).granted, flow_tokens(1).obtained_at));
    }
    let replaced = update(Parked::Replace(&flow_tokens(2))).await;
    let rolled_back = with_field(&fixture.row(&replaced).await, FieldTag::AccessToken, &old, FieldTag::AccessToken);
    let forged = fixture.read_forged(&replaced, rolled_back).await.unwrap();
    assert!(matches!(fixture.vault.flow_tokens(&forged).await, Err(VaultError::Unsealable { .. })));
    assert!(read(&update(Parked::Drop).await).await.is_none());
}

#[tokio::test]
async fn an_attempt_is_found_by_its_state_alone_and_keeps_its_secrets() {
    let fixture = Fixture::new().await;
    let attempt = attempt(&flow(1));
    let mut change = fixture.change().await;
    change.insert_attempt(&attempt, &state(1), &verifier(), Some(&nonce()));
    change.insert_attempt(&attempt, &state(2), &verifier(), None);
    change.commit().await.unwrap();
    let read = async |number| fixture.vault.attempt(&state(number)).await.unwrap();
    assert!(read(3).await.is_none());
    assert!(fixture.vault.attempt_nonce(&read(2).await.unwrap()).await.unwrap().is_none());

    let open = read(1).await.unwrap();
    let consumed = Attempt { consumed_by: Some([7; 32]), ..attempt.clone() };
    for expected in [true, false] {
        let mut change = fixture.change().await;
        change.update_attempt(&open, &consumed);
        // Two callbacks race: one consumes it.
        assert_eq!(change.commit().await.is_ok(), expected);
    }
    let stored = read(1).await.unwrap();
    assert_eq!(stored.value, consumed);
    assert!(fixture.vault.attempt_verifier(&stored).await.unwrap() == verifier());
    assert!(fixture.vault.attempt_nonce(&stored).await.unwrap() == Some(nonce()));

    let mut change = fixture.change().await;
    change.delete_attempt(&stored);
    change.commit().await.unwrap();
    assert!(read(1).await.is_none());
}

#[tokio::test]
async fn a_job_keeps_its_tokens_until_it_is_deleted() {
    let fixture = Fixture::new().await;
    let revoke = job(1, JobKind::RevokeTokens { provider: "github-canary".parse().unwrap(), connection: None });
    let settle = job(2, JobKind::SettleFlow { flow: flow(1).id });
    let mut change = fixture.change().await;
    change.insert_job(&revoke, Some(&tokens(1)), LATER);
    change.insert_job(&settle, None, LATER);
    change.commit().await.unwrap();
    let first = fixture.vault.job(revoke.id).await.unwrap().unwrap();
    let tried = Job { failures: 1, ..revoke.clone() };
    let mut change = fixture.change().await;
    change.reschedule_job(&first, &tried, LATER.plus(std::time::Duration::from_secs(60)));
    change.commit().await.unwrap();

    let stored = fixture.vault.job(revoke.id).await.unwrap().unwrap();
    assert_eq!(stored.value, tried);
    assert!(fixture.vault.job_tokens(&stored).await.unwrap().unwrap().refresh == tokens(1).refresh);
    let other = fixture.vault.job(settle.id).await.unwrap().unwrap();
    assert!(fixture.vault.job_tokens(&other).await.unwrap().is_none());
    let due: Vec<_> =
        fixture.vault.due(Timestamp::NEVER, 10).await.unwrap().into_iter().map(|due| due.record).collect();
    assert_eq!(due, [DueRecord::Job(settle.id), DueRecord::Job(revoke.id)]);

    let mut change = fixture.change().await;
    change.delete_job(&stored);
    change.commit().await.unwrap();
    assert!(fixture.vault.job(revoke.id).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_due_comes_in_order_of_time_whatever_it_is() {
    let fixture = Fixture::new().await;
    let at = Timestamp::from_millis;
    // Flows and attempts are due when they can be forgotten.
    let flow = Flow { expires_at: at(40).minus(FLOW_MEMORY), ..flow(1) };
    let mut change = fixture.change().await;
    change.insert_connection(&connection(1), &tokens(1), at(-50));
    change.insert_connection(&connection(2), &tokens(1), at(30));
    change.insert_connection(&connection(3), &tokens(1), Timestamp::NEVER);
    change.insert_flow(&flow);
    change.insert_attempt(
        &Attempt { expires_at: at(20).minus(FLOW_MEMORY), ..attempt(&flow) },
        &state(1),
        &verifier(),
        None,
    );
    change.insert_job(&job(1, JobKind::SettleFlow { flow: flow.id }), None, at(10));
    change.commit().await.unwrap();

    let due = fixture.vault.due(at(40), 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.at.as_millis()).collect::<Vec<_>>(), [-50, 10, 20, 30, 40]);
    assert_eq!(due[0].record, DueRecord::Connection(connection(1).id));
    assert_eq!(due[1].record, DueRecord::Job(job(1, JobKind::SettleFlow { flow: flow.id }).id));
    assert_eq!(due[4].record, DueRecord::Flow(flow.id));
    let DueRecord::Attempt(key) = due[2].record else { panic!("the attempt comes third") };
    assert_eq!(fixture.vault.attempt_by_key(&key).await.unwrap().unwrap().value.flow, flow.id);
    assert_eq!(fixture.vault.due(at(39), 10).await.unwrap().len(), 4);
    assert_eq!(fixture.vault.due(at(40), 2).await.unwrap(), due[..2]);
    assert_eq!(fixture.vault.due_after(&due[1], at(40), 10).await.unwrap(), due[2..]);

    let stored = fixture.vault.any_connection(connection(1).id).await.unwrap().unwrap();
    let mut change = fixture.change().await;
    change.update_connection(&stored, &stored.value, Tokens::Keep, at(35));
    change.commit().await.unwrap();
    let due = fixture.vault.due(at(40), 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.at.as_millis()).collect::<Vec<_>>(), [10, 20, 30, 35, 40]);
}

#[tokio::test]
async fn events_come_back_by_revision_and_in_order() {
    let fixture = Fixture::new().await;
    let kinds = [vec![EventKind::Connected], vec![EventKind::Recovered, EventKind::Refreshed]];
    let mut revisions = Vec::new();
    for kinds in &kinds {
        let mut change = fixture.change().await;
        kinds.iter().for_each(|kind| change.event(&event(&connection(1), *kind)));
        revisions.push(change.commit().await.unwrap().revision);
    }
    let events = fixture.vault.events(Revision::default(), 100).await.unwrap();
    let expected = kinds.map(|kinds| kinds.iter().map(|kind| event(&connection(1), *kind)).collect::<Vec<_>>());
    assert_eq!(events, revisions.iter().copied().zip(expected).collect::<Vec<_>>());
    assert_eq!(fixture.vault.events(revisions[0], 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_that_does_not_open_ends_the_log_for_nobody() {
    let fixture = Fixture::new().await;
    let mut revisions = Vec::new();
    for _ in 0..3 {
        let mut change = fixture.change().await;
        change.event(&event(&connection(1), EventKind::Refreshed));
        revisions.push(change.commit().await.unwrap().revision);
    }
    fixture.store.spoil_events(revisions[1]);
    let events = fixture.vault.events(Revision::default(), 100).await.unwrap();
    let refreshed = vec![event(&connection(1), EventKind::Refreshed)];
    let expected = [(revisions[0], refreshed.clone()), (revisions[1], vec![]), (revisions[2], refreshed)];
    assert_eq!(events, expected);
    // Nor for a reader whose whole page it is.
    assert_eq!(fixture.vault.events(revisions[0], 1).await.unwrap(), [(revisions[1], vec![])]);
}

/// Names of characters that JSON writes as two.
#[tokio::test]
async fn as_many_holders_as_are_kept_with_the_longest_names_fit_a_row_with_room() {
    let fixture = Fixture::new().await;
    let at = Timestamp::from_millis(9_999_999_999_999);
    let mut holders = Holders::of(&connection(1));
    for number in 0..MOST_HOLDERS {
        let name: String = (0..128).map(|bit| if bit < 7 && number >> bit & 1 == 1 { '"' } else { '\\' }).collect();
        let (holder, generation) = (name.parse().unwrap(), u64::MAX);
        let report = AppliedReport { holder, generation, outcome: ApplyOutcome::Applied };
        let Heard::News(next) = holders.hear(&report, at) else { panic!("{number}") };
        holders = next;
    }
    assert_eq!(holders.list().len(), MOST_HOLDERS);
    let mut change = fixture.change().await;
    change.put_holders(None, &holders);
    change.commit().await.unwrap();
    let (_, row) = fixture.only_row(RecordKind::Holders).await;
    let size = row.field(FieldTag::Record).unwrap().as_bytes().len();
    assert!((40 * 1024..52 * 1024).contains(&size), "{size}");
    assert_eq!(fixture.vault.holders(&connection(1)).await.unwrap().unwrap().value, holders);
}

#[tokio::test]
async fn a_connection_that_does_not_open_hides_no_other_from_whoever_reports() {
    let fixture = Fixture::new().await;
    let damaged = fixture.connect(&connection(1), &tokens(1)).await;
    fixture.connect(&connection(2), &tokens(1)).await;
    let mut row = fixture.row(&damaged).await;
    row.fields.clear();
    fixture.store.forge(&damaged.value.key(), Some(row));
    let vault = &fixture.vault;
    let sought = async |number| {
        let credential = connection(number).credential.id;
        vault.connection_of_credential(&acme(), alice(), credential).await
    };
    assert_eq!(sought(2).await.unwrap().unwrap().value, connection(2));
    assert_eq!(fixture.vault.alarms(), 1);
    let record = format!("{:?}", damaged.value.key());
    assert_eq!(sought(1).await.err(), Some(VaultError::Corrupt { record }), "it may be there");
    fixture.store.repent();
    assert_eq!(sought(1).await.unwrap().unwrap().value, connection(1));
    assert!(sought(3).await.unwrap().is_none());
}

#[tokio::test]
async fn log_entries_do_not_open_in_each_others_place() {
    let fixture = Fixture::new().await;
    for _ in 0..2 {
        let mut change = fixture.change().await;
        change.event(&event(&connection(1), EventKind::Refreshed));
        change.audit(&audit_record());
        change.commit().await.unwrap();
    }
    fixture.store.exchange_bodies();
    let events = fixture.vault.events(Revision::default(), 10).await.unwrap();
    assert!(events.len() == 2 && events.iter().all(|(_, events)| events.is_empty()));
    assert_eq!(fixture.vault.alarms(), 2);
    assert!(matches!(fixture.vault.audit(0, 10).await, Err(VaultError::Unsealable { .. })));
    assert_eq!(fixture.vault.alarms(), 3);
}

#[tokio::test]
async fn audit_records_come_back_numbered_and_chained() {
    let fixture = Fixture::new().await;
    let mut change = fixture.change().await;
    change.audit(&audit_record());
    let second = AuditRecord { action: AuditAction::TokenRead, ..audit_record() };
    change.audit(&second);
    assert_eq!(change.commit().await.unwrap().audit, [1, 2]);
    let mut change = fixture.vault.change(&umbrella(), None).await.unwrap();
    let third = AuditRecord { tenant: umbrella(), ..audit_record() };
    change.audit(&third);
    assert_eq!(change.commit().await.unwrap().audit, [3]);

    let expected = [(1, audit_record()), (2, second), (3, third)];
    assert_eq!(fixture.vault.audit(0, 10).await.unwrap(), expected);
    assert_eq!(fixture.vault.audit(1, 1).await.unwrap(), expected[1..2]);
    let entries = fixture.store.audit(0, 10).await.unwrap();
    let linked = entries.iter().map(|entry| entry.linked.as_ref());
    assert_eq!(check(fixture.vault.keys().audit(), None, linked).unwrap().unwrap().sequence, 3);
}

struct Fixture {
    store: Arc<TamperingStore>,
    vault: Vault,
}

impl Fixture {
    async fn new() -> Self {
        let (store, audit_key) = new_store();
        let vault = Vault::open(store.clone(), root(1), Random::system(), &audit_key).await;
        Self { store, vault: vault.expect("a new store") }
    }

    /// As after a restart: nothing is cached.
    async fn reopen(&self) -> Result<Vault, VaultError> {
        open(&self.store, root(1), Random::system()).await
    }

    async fn change(&self) -> claviger::vault::Change {
        self.vault.change(&acme(), Some(alice())).await.expect("a working store")
    }

    async fn connect(&self, connection: &Connection, tokens: &TokenSet) -> Stored<Connection> {
        let mut change = self.change().await;
        change.insert_connection(connection, tokens, LATER);
        change.commit().await.expect("a new connection");
        self.vault.any_connection(connection.id).await.expect("it opens").expect("it is there")
    }

    async fn update(
        &self,
        from: &Stored<Connection>,
        to: &Connection,
        tokens: Tokens<'_>,
    ) -> Result<Stored<Connection>, VaultError> {
        let mut change = self.change().await;
        change.update_connection(from, to, tokens, LATER);
        change.commit().await?;
        Ok(self.vault.any_connection(to.id).await?.expect("it was just written"))
    }

    async fn row<T: Placed>(&self, stored: &Stored<T>) -> Row {
        let row = self.store.row(stored.value.key()).await.expect("a working store").expect("it is there");
        Row::clone(&row)
    }

    async fn only_row(&self, kind: RecordKind) -> (RecordKey, Row) {
        self.store.rows(kind).await.pop().expect("there is one")
    }

    /// Reads the record with `row` in its place.
    async fn read_forged<T: Placed>(&self, stored: &Stored<T>, row: Row) -> Result<Stored<T>, VaultError> {
        self.store.forge(&stored.value.key(), Some(row));
        let read = T::read(&self.vault, &stored.value).await;
        self.store.repent();
        read
    }

    async fn destroy_key(&self, subject: SubjectId) {
        let stored = self.vault.subject(&acme(), subject).await.expect("it opens").expect("it is there");
        let key = RecordKey::new(RecordKind::Key, stored.value.key.as_bytes());
        let version = self.store.row(key.clone()).await.expect("a working store").expect("it is there").version;
        let writes = vec![Write::delete(key, version)];
        self.store.commit(ChangeSet { writes, ..ChangeSet::default() }).await.expect("nobody else writes");
    }
}

async fn write_one_of_each(vault: &Vault) {
    let (connection, flow) = (connection(1), flow(1));
    let mut change = vault.change(&acme(), Some(alice())).await.expect("a working store");
    change.insert_connection(&connection, &tokens(1), LATER);
    change.put_holders(None, &holders(&connection));
    change.insert_flow(&flow);
    change.insert_attempt(&attempt(&flow), &state(1), &verifier(), Some(&nonce()));
    change.insert_job(&job(1, JobKind::SettleFlow { flow: flow.id }), Some(&tokens(2)), LATER);
    change.event(&event(&connection, EventKind::Connected));
    change.audit(&audit_record());
    change.commit().await.expect("a new store");
    let stored = vault.flow(&acme(), flow.id).await.expect("it opens").expect("it is there");
    let mut change = vault.change(&acme(), Some(alice())).await.expect("a working store");
    change.update_flow(&stored, &flow, Parked::Replace(&flow_tokens(3)));
    change.commit().await.expect("nobody else writes");
}

/// What must not be legible: names, addresses, secrets, and words of the records themselves.
fn needles() -> Vec<Vec<u8>> {
    let texts = [
        "acme-canary",
        "github-canary",
        "jira-canary",
        "alice@canary.example",
        "agent-canary",
        "holder-canary",
        "repo:canary",
        "access-canary",
        "refresh-canary",
        "id-token-canary",
        "state-canary",
        "verifier-canary",
        "nonce-canary",
        "return.canary.example",
        "redirect.canary.example",
        "issuer.canary.example",
        "session-canary",
        "browser-canary",
        "connected",
    ];
    let ids = [alice().as_bytes().to_vec(), bob().as_bytes().to_vec(), connection(1).credential.id.as_bytes().to_vec()];
    texts.into_iter().map(|text| text.as_bytes().to_vec()).chain(ids).collect()
}

/// Every key and every value.
async fn dump(store: &dyn Store) -> Vec<Bytes> {
    let mut dump = Vec::new();
    let mut copying = store.copy().await.unwrap();
    while let Some(part) = copying.next().await {
        let Copied::Rows(rows) = part.unwrap() else { continue };
        dump.extend(rows.into_iter().flat_map(|row| [Some(row.place), row.value]).flatten());
    }
    dump
}

fn files_under(directory: &Path) -> Vec<Bytes> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files_under(&path),
            false => vec![fs::read(&path).unwrap().into()],
        })
        .collect()
}

/// What a test can forge and read again.
trait Placed: Sized {
    fn key(&self) -> RecordKey;
    async fn read(vault: &Vault, value: &Self) -> Result<Stored<Self>, VaultError>;
}

impl Placed for Connection {
    fn key(&self) -> RecordKey {
        RecordKey::new(RecordKind::Connection, self.id.as_bytes())
    }

    async fn read(vault: &Vault, value: &Self) -> Result<Stored<Self>, VaultError> {
        Ok(vault.any_connection(value.id).await?.expect("it is there"))
    }
}

impl Placed for Flow {
    fn key(&self) -> RecordKey {
        RecordKey::new(RecordKind::Flow, self.id.as_bytes())
    }

    async fn read(vault: &Vault, value: &Self) -> Result<Stored<Self>, VaultError> {
        Ok(vault.any_flow(value.id).await?.expect("it is there"))
    }
}

fn new_store() -> (Arc<TamperingStore>, AuditKey) {
    let audit_key = AuditKey::default();
    let (installation, epoch) = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
    let inner = MemoryStore::new(installation, epoch, Box::new(Chain::new(audit_key.clone())));
    (Arc::new(TamperingStore::over(Arc::new(inner))), audit_key)
}

/// Opens a store whose linker has its key, or needs none.
async fn open(store: &Arc<TamperingStore>, root: RootKey, random: Random) -> Result<Vault, VaultError> {
    let store: Arc<dyn Store> = store.clone();
    Vault::open(store, root, random, &AuditKey::default()).await
}

fn assert_unsealable<T, R: Placed>(result: Result<T, VaultError>, stored: &Stored<R>) {
    assert_eq!(result.err(), Some(VaultError::Unsealable { record: format!("{:?}", stored.value.key()) }));
}

/// Whether the bytes stand anywhere as they are, in hexadecimal or in either base64, at any offset.
fn found(everything: &[Bytes], needle: &[u8]) -> bool {
    let hex: String = needle.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![needle.to_vec(), hex.to_uppercase().into(), hex.into()];
    for offset in 0..3 {
        let shifted = [&vec![0; offset], needle].concat();
        // The first and last characters depend on what stands around the needle.
        let (from, to) = ([0, 2, 3][offset], shifted.len() * 4 / 3);
        forms.push(STANDARD_NO_PAD.encode(&shifted).as_bytes()[from..to].to_vec());
        forms.push(URL_SAFE_NO_PAD.encode(&shifted).as_bytes()[from..to].to_vec());
    }
    let stands_in = |bytes: &Bytes, form: &[u8]| bytes.windows(form.len()).any(|window| window == form);
    everything.iter().any(|bytes| forms.iter().any(|form| stands_in(bytes, form)))
}
