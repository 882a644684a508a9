//! The promises of the trait, one a test.

use std::sync::Arc;

use bytes::Bytes;
use claviger::{
    domain::{AuditLinker, Revision},
    store::{
        CommitError, EventEntry, Expect, FieldTag, IndexEntry, IndexKind, RecordKey, RecordKind, StoreError, Write,
        change::{LINK_ROOM, MAX_ROW},
        codec,
        key::{MAX_ID, MAX_INDEX_KEY, MAX_INDEX_VALUE},
    },
};

use crate::words::{
    AnyStore, Chain, EPOCH, GREEDY, INSTALLATION, Set, fields, key, listed, listing, page, poll_once, sealed,
};

pub(crate) async fn an_absent_row_is_none(store: AnyStore) {
    assert!(store.row(key(1)).await.unwrap().is_none());
}

pub(crate) async fn a_new_row_has_version_one_and_the_revision_of_its_change_set(store: AnyStore) {
    Set::default().create(9, "before").on(&*store).await;
    let receipt = Set::default().create(1, "new").on(&*store).await;
    let row = store.row(key(1)).await.unwrap().unwrap();
    assert_eq!((row.version, row.revision), (1, receipt.revision));
    assert!(row.fields == fields("new") && row.field(FieldTag::RefreshToken).is_none());
}

pub(crate) async fn a_replaced_row_has_the_next_version(store: AnyStore) {
    Set::default().create(1, "old").on(&*store).await;
    let receipt = Set::default().replace(1, 1, "new").on(&*store).await;
    let row = store.row(key(1)).await.unwrap().unwrap();
    assert_eq!((row.version, row.revision), (2, receipt.revision));
    assert!(row.fields == fields("new"));
}

pub(crate) async fn deleting_a_row_removes_it_and_its_index_entries(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["a", "b"]).on(&*store).await;
    assert_eq!(listing(&*store, "").await, ["a", "b"]);
    Set::default().delete(1, 1).on(&*store).await;
    assert!(store.row(key(1)).await.unwrap().is_none());
    assert!(listing(&*store, "").await.is_empty());
    // the next life of the record starts at version 1
    Set::default().create(1, "anew").on(&*store).await;
    assert_eq!(store.row(key(1)).await.unwrap().unwrap().version, 1);
}

/// Whoever holds on to a row may take it for unchanged when the store gives out the very same again.
pub(crate) async fn a_row_in_the_same_place_of_memory_is_the_same_row(store: AnyStore) {
    Set::default().create(1, "1").create(2, "other").on(&*store).await;
    for version in 1..20 {
        let before = store.row(key(1)).await.unwrap().unwrap();
        assert!(*store.row(key(1)).await.unwrap().unwrap() == *before);
        Set::default().replace(1, version, "again").on(&*store).await;
        let after = store.row(key(1)).await.unwrap().unwrap();
        assert!(!Arc::ptr_eq(&before, &after) && before.version == version && after.version == version + 1);
    }
    let before = store.row(key(1)).await.unwrap().unwrap();
    Set::default().delete(1, 20).on(&*store).await;
    Set::default().create(1, "next life").on(&*store).await;
    assert!(!Arc::ptr_eq(&before, &store.row(key(1)).await.unwrap().unwrap()));
}

pub(crate) async fn deleting_what_is_expected_to_be_absent_removes_nothing(store: AnyStore) {
    let delete = |id| Set::default().write(Write { expect: Expect::Absent, ..Write::delete(key(id), 0) });
    assert_eq!(delete(1).on(&*store).await.revision, Revision(1));
    assert!(store.row(key(1)).await.unwrap().is_none());
    Set::default().list(1, Expect::Absent, &["a"]).on(&*store).await;
    refuses(&store, delete(1), CommitError::Conflict { key: key(1) }).await;
    assert!(store.row(key(1)).await.unwrap().is_some());
    assert_eq!(listing(&*store, "").await, ["a"]);
}

pub(crate) async fn creating_a_row_that_exists_is_a_conflict(store: AnyStore) {
    Set::default().create(1, "first").on(&*store).await;
    refuses(&store, Set::default().create(1, "second"), CommitError::Conflict { key: key(1) }).await;
    assert!(store.row(key(1)).await.unwrap().unwrap().fields == fields("first"));
}

pub(crate) async fn replacing_a_stale_row_is_a_conflict(store: AnyStore) {
    Set::default().create(1, "1").on(&*store).await;
    Set::default().replace(1, 1, "2").on(&*store).await;
    refuses(&store, Set::default().replace(1, 1, "3"), CommitError::Conflict { key: key(1) }).await;
    refuses(&store, Set::default().replace(1, 3, "3"), CommitError::Conflict { key: key(1) }).await;
    assert!(store.row(key(1)).await.unwrap().unwrap().fields == fields("2"));
}

pub(crate) async fn replacing_a_row_that_is_absent_is_a_conflict(store: AnyStore) {
    refuses(&store, Set::default().replace(1, 1, "new"), CommitError::Conflict { key: key(1) }).await;
    assert!(store.row(key(1)).await.unwrap().is_none());
}

pub(crate) async fn deleting_a_stale_row_is_a_conflict(store: AnyStore) {
    Set::default().create(1, "1").on(&*store).await;
    refuses(&store, Set::default().delete(1, 2), CommitError::Conflict { key: key(1) }).await;
    assert!(store.row(key(1)).await.unwrap().is_some());
}

pub(crate) async fn a_refused_change_set_writes_nothing_at_all(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["1"]).event(1, "event").audit(1, "audit").on(&*store).await;
    let head = store.head();
    let refused = Set::default()
        .list(2, Expect::Absent, &["2"])
        .list(1, Expect::Version(9), &["moved"])
        .event(2, "never")
        .audit(2, "never");
    refuses(&store, refused, CommitError::Conflict { key: key(1) }).await;

    assert!(store.row(key(2)).await.unwrap().is_none());
    assert_eq!(store.row(key(1)).await.unwrap().unwrap().version, 1);
    assert_eq!(listing(&*store, "").await, ["1"]);
    assert_eq!(store.events(Revision(0), 10).await.unwrap().len(), 1);
    assert_eq!(store.audit(0, 10).await.unwrap().len(), 1);
    assert_eq!(store.head(), head);
}

pub(crate) async fn a_precondition_on_absence_holds_or_refuses(store: AnyStore) {
    Set::default().needs(2, Expect::Absent).create(1, "1").on(&*store).await;
    let refused = Set::default().needs(1, Expect::Absent).create(3, "3");
    refuses(&store, refused, CommitError::PreconditionFailed { key: key(1) }).await;
    assert!(store.row(key(3)).await.unwrap().is_none());
}

pub(crate) async fn a_precondition_on_a_version_holds_or_refuses(store: AnyStore) {
    Set::default().create(1, "1").on(&*store).await;
    Set::default().needs(1, Expect::Version(1)).create(2, "2").on(&*store).await;
    for stale in [0, 2, u64::MAX] {
        let refused = Set::default().needs(1, Expect::Version(stale)).create(3, "3");
        refuses(&store, refused, CommitError::PreconditionFailed { key: key(1) }).await;
    }
    let absent = Set::default().needs(9, Expect::Version(1)).create(3, "3");
    refuses(&store, absent, CommitError::PreconditionFailed { key: key(9) }).await;
    // a record that only had to hold still is not written
    assert_eq!(store.row(key(1)).await.unwrap().unwrap().version, 1);
    assert!(store.row(key(3)).await.unwrap().is_none());
}

pub(crate) async fn of_racing_writers_one_wins(store: AnyStore) {
    Set::default().create(1, "start").on(&*store).await;
    for version in 1..=5 {
        let race = (0..16).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(Set::default().replace(1, version, "mine").0).await })
        });
        let mut winners = 0;
        for racer in race.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Ok(_) => winners += 1,
                Err(error) => assert_eq!(error, CommitError::Conflict { key: key(1) }),
            }
        }
        assert_eq!(winners, 1);
        assert_eq!(store.row(key(1)).await.unwrap().unwrap().version, version + 1);
    }
}

pub(crate) async fn a_refusal_concerns_only_the_refused(store: AnyStore) {
    let sets = [
        Set::default().create(1, "a").event(1, "a").audit(1, "a"),
        Set::default().create(1, "too late").event(2, "never").audit(2, "never"),
        Set::default().needs(1, Expect::Version(1)).create(2, "b").event(3, "b").audit(3, "b"),
        Set::default().needs(1, Expect::Absent).create(3, "never"),
        Set::default().replace(1, 1, "c").audit(4, "c"),
    ];
    // started in this order before any is answered, so that a store which groups them has them in one group
    let mut commits: Vec<_> = sets.into_iter().map(|set| store.commit(set.0)).collect();
    let mut answers = Vec::new();
    for commit in &mut commits {
        answers.push(poll_once(commit));
    }
    let mut outcomes = Vec::new();
    for (commit, answer) in commits.into_iter().zip(answers) {
        outcomes.push(match answer {
            Some(answer) => answer,
            None => commit.await,
        });
    }

    let receipts: Vec<_> =
        outcomes.iter().flatten().map(|receipt| (receipt.revision.0, receipt.audit.clone())).collect();
    assert_eq!(receipts, [(1, vec![1]), (2, vec![2]), (3, vec![3])]);
    assert_eq!(outcomes[1], Err(CommitError::Conflict { key: key(1) }));
    assert_eq!(outcomes[3], Err(CommitError::PreconditionFailed { key: key(1) }));
    assert!(store.row(key(1)).await.unwrap().unwrap().fields == fields("c"));
    let events = store.events(Revision(0), 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.revision.0).collect::<Vec<_>>(), [1, 2]);
}

pub(crate) async fn every_committed_set_has_the_next_revision(store: AnyStore) {
    assert_eq!(store.head().revision, Revision(0));
    let sets = [
        Set::default().create(1, "with an event").event(1, "e"),
        Set::default().create(2, "without"),
        Set::default().audit(1, "audit alone"),
        Set::default().event(2, "event alone"),
        Set::default().needs(1, Expect::Version(1)),
        Set::default().delete(1, 1),
    ];
    for (expected, set) in (1..).zip(sets) {
        assert_eq!(set.on(&*store).await.revision, Revision(expected));
        store.commit(Set::default().needs(99, Expect::Version(1)).event(9, "refused").0).await.unwrap_err();
    }
}

pub(crate) async fn audit_numbers_are_dense_across_refusals(store: AnyStore) {
    let mut numbers = Vec::new();
    for id in 0..20 {
        // every third is refused
        let expect = if id % 3 == 2 { Expect::Version(1) } else { Expect::Absent };
        let set = Set::default().needs(200, expect).audit(id, "one").audit(id, "two");
        if let Ok(receipt) = store.commit(set.0).await {
            assert_eq!(receipt.audit.len(), 2);
            numbers.extend(receipt.audit);
        }
    }
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let stored = store.audit(0, usize::MAX).await.unwrap();
    assert_eq!(stored.iter().map(|record| record.sequence).collect::<Vec<_>>(), numbers);
}

pub(crate) async fn the_linker_sees_the_record_before(store: AnyStore) {
    Set::default().audit(1, "a").audit(2, "b").on(&*store).await;
    store.commit(Set::default().needs(1, Expect::Version(1)).audit(3, "refused").0).await.unwrap_err();
    Set::default().audit(4, "c").on(&*store).await;

    let first = Chain.link(1, None, &sealed(b"a"));
    let second = Chain.link(2, Some(&first), &sealed(b"b"));
    let third = Chain.link(3, Some(&second), &sealed(b"c"));
    let stored = store.audit(0, 10).await.unwrap();
    assert_eq!(stored.iter().map(|record| record.linked.to_vec()).collect::<Vec<_>>(), [first, second, third]);
    assert_eq!(stored.iter().map(|record| record.id.as_bytes()[0]).collect::<Vec<_>>(), [1, 2, 4]);
}

pub(crate) async fn audit_records_resume_after_a_number(store: AnyStore) {
    for id in 1..=5 {
        Set::default().audit(id, "record").on(&*store).await;
    }
    let numbers = |after, limit| {
        let store = Arc::clone(&store);
        async move { store.audit(after, limit).await.unwrap().iter().map(|record| record.sequence).collect::<Vec<_>>() }
    };
    assert_eq!(numbers(0, 2).await, [1, 2]);
    assert_eq!(numbers(2, 2).await, [3, 4]);
    assert_eq!(numbers(4, 2).await, [5]);
    assert!(numbers(5, 2).await.is_empty() && numbers(u64::MAX, 2).await.is_empty() && numbers(0, 0).await.is_empty());
}

pub(crate) async fn a_purge_removes_the_old_ends_and_the_head_says_so(store: AnyStore) {
    for id in 1..=4 {
        Set::default().create(id, "row").event(id, "0").event(id, "1").audit(id, "record").on(&*store).await;
    }
    let mut watch = store.watch_head();
    watch.borrow_and_update();
    Set::default().audit(5, "checkpoint").purge(2, 3).on(&*store).await;
    let head = *watch.borrow_and_update();
    assert_eq!((head.compacted, head.audit, head.audit_purged), (Revision(2), 5, 3));
    assert_eq!(store.head(), head);
    assert_eq!(revisions(&store).await, [3, 3, 4, 4]);
    assert_eq!(numbers(&store).await, [4, 5]);
    // resuming from a place that is gone begins at the first that is there
    assert_eq!(store.events(Revision(1), 1).await.unwrap()[0].revision, Revision(3));
    assert_eq!(store.audit(1, 1).await.unwrap()[0].sequence, 4);
    assert!(store.row(key(1)).await.unwrap().is_some());

    Set::default().purge(4, 0).on(&*store).await;
    assert!(revisions(&store).await.is_empty());
    assert_eq!((store.head().compacted, store.head().audit_purged), (Revision(4), 3));
}

pub(crate) async fn a_purge_behind_an_earlier_one_changes_nothing(store: AnyStore) {
    for id in 1..=3 {
        Set::default().event(id, "event").audit(id, "record").on(&*store).await;
    }
    Set::default().purge(2, 2).on(&*store).await;
    for (events, audit) in [(0, 0), (1, 1), (2, 2)] {
        Set::default().purge(events, audit).on(&*store).await;
        assert_eq!((store.head().compacted, store.head().audit_purged), (Revision(2), 2));
    }
    assert_eq!(revisions(&store).await, [3]);
    assert_eq!(numbers(&store).await, [3]);
}

pub(crate) async fn a_purge_reaches_sets_that_wait_with_it_but_not_its_own(store: AnyStore) {
    let sets = [
        Set::default().event(1, "event").audit(1, "record"),
        Set::default().event(2, "event").audit(2, "record"),
        Set::default().event(3, "its own").audit(3, "its own").audit(4, "its own").purge(u64::MAX, u64::MAX),
        Set::default().event(4, "event").audit(5, "record"),
    ];
    // started in this order before any is answered, so that a store which groups them has them in one group
    let mut commits: Vec<_> = sets.into_iter().map(|set| store.commit(set.0)).collect();
    let answers: Vec<_> = commits.iter_mut().map(poll_once).collect();
    for (commit, answer) in commits.into_iter().zip(answers) {
        match answer {
            Some(answer) => answer.unwrap(),
            None => commit.await.unwrap(),
        };
    }
    assert_eq!(revisions(&store).await, [3, 4]);
    assert_eq!(numbers(&store).await, [3, 4, 5]);
    assert_eq!((store.head().compacted, store.head().audit, store.head().audit_purged), (Revision(2), 5, 2));
}

pub(crate) async fn the_newest_audit_record_is_never_purged(store: AnyStore) {
    Set::default().purge(u64::MAX, u64::MAX).on(&*store).await;
    assert_eq!((store.head().audit, store.head().audit_purged), (0, 0));
    Set::default().audit(1, "a").audit(2, "b").on(&*store).await;
    for _ in 0..2 {
        Set::default().purge(0, u64::MAX).on(&*store).await;
        assert_eq!(numbers(&store).await, [2]);
    }
    assert_eq!((store.head().audit, store.head().audit_purged), (2, 1));
    // and the next one is linked to it
    let newest = store.audit(0, 9).await.unwrap().remove(0).linked;
    Set::default().audit(3, "c").on(&*store).await;
    assert_eq!(store.audit(2, 9).await.unwrap()[0].linked, Chain.link(3, Some(&newest), &sealed(b"c")));
}

pub(crate) async fn a_refused_change_set_purges_nothing(store: AnyStore) {
    for id in 1..=3 {
        Set::default().event(id, "event").audit(id, "record").on(&*store).await;
    }
    let head = store.head();
    let refused = Set::default().replace(9, 1, "absent").purge(2, 2);
    refuses(&store, refused, CommitError::Conflict { key: key(9) }).await;
    assert_eq!(revisions(&store).await, [1, 2, 3]);
    assert_eq!(numbers(&store).await, [1, 2, 3]);
    assert_eq!(store.head(), head);
}

pub(crate) async fn index_entries_follow_their_row(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["kept", "left"]).on(&*store).await;
    assert_eq!(listing(&*store, "").await, ["kept", "left"]);
    Set::default().list(1, Expect::Version(1), &["kept", "taken"]).on(&*store).await;
    assert_eq!(listing(&*store, "").await, ["kept", "taken"]);
    // the value follows too
    let changed = IndexEntry { value: Bytes::from_static(b"new"), ..listed(1, "kept") };
    Set::default().write(Write::put(key(1), Expect::Version(2), fields("x"), vec![changed.clone()])).on(&*store).await;
    let found = store.index(IndexKind::ConnectionsOfSubject, Bytes::new(), None, 10).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&changed));
    assert_eq!(store.row(key(1)).await.unwrap().unwrap().index, [changed]);
    Set::default().replace(1, 3, "unlisted").on(&*store).await;
    assert!(listing(&*store, "").await.is_empty());
}

pub(crate) async fn an_index_key_of_another_record_is_a_conflict(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["mine"]).on(&*store).await;
    refuses(&store, Set::default().list(2, Expect::Absent, &["mine"]), CommitError::Conflict { key: key(2) }).await;
    assert!(store.row(key(2)).await.unwrap().is_none());
    let found = store.index(IndexKind::ConnectionsOfSubject, Bytes::new(), None, 10).await.unwrap();
    assert_eq!(found, [listed(1, "mine")]);
}

pub(crate) async fn an_index_key_is_unique_within_its_index_alone(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["key"]).on(&*store).await;
    let elsewhere = IndexEntry { index: IndexKind::FlowsByIntent, ..listed(2, "key") };
    Set::default().write(Write::put(key(2), Expect::Absent, fields("x"), vec![elsewhere.clone()])).on(&*store).await;
    for (index, entry) in [(IndexKind::ConnectionsOfSubject, listed(1, "key")), (IndexKind::FlowsByIntent, elsewhere)] {
        assert_eq!(store.index(index, Bytes::new(), None, 9).await.unwrap(), [entry]);
    }
}

pub(crate) async fn keys_and_values_of_the_longest_length_are_taken(store: AnyStore) {
    let record = RecordKey::new(RecordKind::Connection, [1; MAX_ID]);
    let entry = IndexEntry {
        index: IndexKind::ConnectionsOfSubject,
        key: vec![2; MAX_INDEX_KEY].into(),
        record: record.clone(),
        value: vec![3; MAX_INDEX_VALUE].into(),
    };
    Set::default()
        .write(Write::put(record.clone(), Expect::Absent, fields("x"), vec![entry.clone()]))
        .on(&*store)
        .await;
    assert_eq!(store.row(record).await.unwrap().unwrap().index, std::slice::from_ref(&entry));
    assert_eq!(store.index(IndexKind::ConnectionsOfSubject, entry.key.clone(), None, 9).await.unwrap(), [entry]);
}

/// A linker that adds more than it may has the set refused, and leaves no hole.
pub(crate) async fn a_link_without_room_is_too_large(store: AnyStore) {
    let body = "x".repeat(MAX_ROW - LINK_ROOM - codec::entry_size(0));
    let greedy = [GREEDY, &body[GREEDY.len()..]].concat();
    let refused = store.commit(Set::default().audit(1, "first").audit(2, &greedy).event(1, "never").0).await;
    assert!(matches!(refused, Err(CommitError::TooLarge { size }) if size > MAX_ROW), "{refused:?}");
    assert!(numbers(&store).await.is_empty() && revisions(&store).await.is_empty());
    assert_eq!(Set::default().audit(3, &body).on(&*store).await.audit, [1]);
}

pub(crate) async fn an_entry_that_moves_within_a_set_is_no_conflict(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["baton", "one"]).on(&*store).await;
    let handed_over = Set::default().list(2, Expect::Absent, &["baton"]).list(1, Expect::Version(1), &["one"]);
    handed_over.on(&*store).await;
    let found = store.index(IndexKind::ConnectionsOfSubject, Bytes::new(), None, 10).await.unwrap();
    assert_eq!(found, [listed(2, "baton"), listed(1, "one")]);
}

pub(crate) async fn a_listing_shows_its_prefix_in_key_order(store: AnyStore) {
    let keys = ["b2", "a", "b1", "b", "c", "b\u{ff}"];
    for (id, key) in (1..).zip(keys) {
        Set::default().list(id, Expect::Absent, &[key]).on(&*store).await;
    }
    assert_eq!(listing(&*store, "b").await, ["b", "b1", "b2", "b\u{ff}"]);
    assert_eq!(listing(&*store, "").await, ["a", "b", "b1", "b2", "b\u{ff}", "c"]);
    assert!(listing(&*store, "d").await.is_empty());
    assert!(store.index(IndexKind::Due, Bytes::new(), None, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_page_resumes_after_its_last_entry(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["a1", "a2", "a3", "b"]).on(&*store).await;
    for _ in 0..2 {
        assert_eq!(page(&*store, "a", None, 2).await, ["a1", "a2"]);
        assert_eq!(page(&*store, "a", Some("a2"), 2).await, ["a3"]);
        assert!(page(&*store, "a", Some("a3"), 2).await.is_empty());
        assert!(page(&*store, "a", Some("z"), 2).await.is_empty());
        assert_eq!(page(&*store, "a", Some("0"), 2).await, ["a1", "a2"]);
        assert!(page(&*store, "a", None, 0).await.is_empty());
        // now from whatever the whole listing left behind
        assert_eq!(listing(&*store, "a").await, ["a1", "a2", "a3"]);
    }
}

pub(crate) async fn a_page_resumes_after_a_deletion(store: AnyStore) {
    for (id, key) in (1..).zip(["a", "b", "c", "d"]) {
        Set::default().list(id, Expect::Absent, &[key]).on(&*store).await;
    }
    assert_eq!(page(&*store, "", None, 2).await, ["a", "b"]);
    Set::default().delete(2, 1).on(&*store).await;
    assert_eq!(page(&*store, "", Some("b"), 2).await, ["c", "d"]);
}

pub(crate) async fn events_come_in_whole_revisions(store: AnyStore) {
    Set::default().event(1, "1.0").event(2, "1.1").event(3, "1.2").on(&*store).await;
    Set::default().create(1, "no event").on(&*store).await;
    Set::default().event(4, "3.0").event(5, "3.1").on(&*store).await;
    for (limit, expected) in [(0, 0), (1, 3), (3, 3), (4, 5), (5, 5), (100, 5)] {
        let events = store.events(Revision(0), limit).await.unwrap();
        assert_eq!(events.len(), expected, "limit {limit}");
        let places: Vec<_> = events.iter().map(|event| (event.revision.0, event.index)).collect();
        assert_eq!(places, [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1)][..expected]);
    }
}

pub(crate) async fn events_resume_after_a_revision(store: AnyStore) {
    for id in 1..=3 {
        Set::default().event(id, "first").event(id, "second").on(&*store).await;
    }
    let events: Vec<EventEntry> = store.events(Revision(1), 2).await.unwrap();
    assert!(events.iter().all(|event| event.revision == Revision(2) && event.id.as_bytes() == &[2; 16]));
    assert!(events[0].body == sealed(b"first") && events[1].body == sealed(b"second"));
    assert!(store.events(Revision(3), 2).await.unwrap().is_empty());
    assert!(store.events(Revision(u64::MAX), 2).await.unwrap().is_empty());
}

pub(crate) async fn a_row_beyond_the_limit_is_too_large(store: AnyStore) {
    let rest = codec::row_size(&vec![(FieldTag::Record, sealed(b""))], &[]);
    let row = |id, size: usize| {
        let fields = vec![(FieldTag::Record, sealed(&vec![id; size - rest]))];
        Set::default().write(Write::put(key(id), Expect::Absent, fields, Vec::new()))
    };
    let overhead = codec::entry_size(0);
    let text = |size: usize| "x".repeat(size - overhead);
    row(1, MAX_ROW).on(&*store).await;
    Set::default().event(1, &text(MAX_ROW)).audit(1, &text(MAX_ROW - LINK_ROOM)).on(&*store).await;

    let size = MAX_ROW + 1;
    refuses(&store, row(2, size).event(2, "never"), CommitError::TooLarge { size }).await;
    refuses(&store, Set::default().event(2, &text(size)), CommitError::TooLarge { size }).await;
    refuses(&store, Set::default().audit(2, &text(size - LINK_ROOM)), CommitError::TooLarge { size }).await;
    assert_eq!(store.row(key(1)).await.unwrap().unwrap().fields[0].1.as_bytes().len(), MAX_ROW - rest);
    assert!(store.row(key(2)).await.unwrap().is_none());
    assert_eq!(store.events(Revision(0), 10).await.unwrap().len(), 1);
    assert_eq!(store.head().revision, Revision(2));
}

pub(crate) async fn a_set_that_contradicts_itself_is_malformed(store: AnyStore) {
    let put = |index, fields| Set::default().write(Write::put(key(1), Expect::Absent, fields, index));
    let twice = |index| vec![index, listed(1, "a")];
    let long = |key, value| IndexEntry { key, value, ..listed(1, "") };
    let long_id = RecordKey::new(RecordKind::Connection, [1; MAX_ID + 1]);
    let named = Write::put(long_id.clone(), Expect::Absent, fields("long id"), Vec::new());
    refuses(&store, Set::default().write(named), CommitError::Malformed { key: long_id }).await;
    let sets = [
        Set::default().create(1, "a").create(1, "b"),
        put(twice(listed(1, "a")), fields("same index key")),
        put(twice(listed(2, "b")), fields("another record's entry")),
        put(Vec::new(), [fields("same tag"), fields("same tag")].concat()),
        put(vec![long(vec![1; 256].into(), Bytes::new())], fields("long key")),
        put(vec![long(Bytes::new(), vec![1; 65].into())], fields("long value")),
    ];
    for set in sets {
        refuses(&store, set, CommitError::Malformed { key: key(1) }).await;
    }
    assert_eq!(store.head().revision, Revision(0));
}

pub(crate) async fn the_head_follows_every_commit(store: AnyStore) {
    let mut watch = store.watch_head();
    let head = *watch.borrow_and_update();
    assert_eq!((head.installation, head.epoch), (INSTALLATION, EPOCH));
    assert_eq!((head.revision, head.compacted, head.available), (Revision(0), Revision(0), true));
    assert_eq!((head.audit, head.audit_purged), (0, 0));
    for id in 1..=3 {
        let receipt = Set::default().create(id, "row").audit(id, "a").audit(id, "b").on(&*store).await;
        assert_eq!(store.head().audit, 2 * u64::from(id));
        assert!(watch.has_changed().unwrap());
        assert_eq!(watch.borrow_and_update().revision, receipt.revision);
        assert_eq!(store.head().revision, receipt.revision);
    }
    store.close().await;
    assert!(!watch.borrow_and_update().available && !store.head().available);
}

pub(crate) async fn a_started_commit_that_is_dropped_still_commits(store: AnyStore) {
    let mut watch = store.watch_head();
    let mut commit = store.commit(Set::default().create(1, "left alone").0);
    poll_once(&mut commit);
    drop(commit);
    watch.wait_for(|head| head.revision == Revision(1)).await.unwrap();
    assert!(store.row(key(1)).await.unwrap().unwrap().fields == fields("left alone"));
}

pub(crate) async fn closing_finishes_what_is_waiting_and_refuses_what_follows(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["a"]).on(&*store).await;
    assert_eq!(listing(&*store, "").await, ["a"]);
    let mut commits: Vec<_> = (2..50).map(|id| store.commit(Set::default().create(id, "waiting").0)).collect();
    let answers: Vec<_> = commits.iter_mut().map(poll_once).collect();
    store.close().await;
    for (commit, answer) in commits.into_iter().zip(answers) {
        match answer {
            Some(answer) => answer.unwrap(),
            None => commit.await.unwrap(),
        };
    }
    refuses(&store, Set::default().create(99, "late"), CommitError::Unavailable).await;
    assert!(store.row(key(1)).await.is_err_and(|error| error == StoreError::Unavailable));
    let everything = store.index(IndexKind::ConnectionsOfSubject, Bytes::new(), None, 9).await;
    assert_eq!(everything, Err(StoreError::Unavailable));
    assert!(store.events(Revision(0), 9).await.is_err_and(|error| error == StoreError::Unavailable));
    assert!(store.audit(0, 9).await.is_err_and(|error| error == StoreError::Unavailable));
    store.close().await;
}

/// A reader that saw an acknowledgement, and every reader after it, sees that write or a later one.
pub(crate) async fn nobody_reads_back_behind_an_acknowledged_commit(store: AnyStore) {
    Set::default().list(1, Expect::Absent, &["at 1"]).on(&*store).await;
    let acknowledged = Arc::new(std::sync::atomic::AtomicU64::new(1));
    let order = std::sync::atomic::Ordering::SeqCst;
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut newest = 0;
                while newest < 200 {
                    let floor = acknowledged.load(order).max(newest);
                    newest = if reader % 2 == 0 {
                        store.row(key(1)).await.unwrap().unwrap().version
                    } else {
                        let listed = listing(&*store, "at ").await;
                        assert_eq!(listed.len(), 1);
                        listed[0]["at ".len()..].parse().unwrap()
                    };
                    assert!(newest >= floor, "read {newest} after {floor} was acknowledged");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for version in 1..200 {
        Set::default().list(1, Expect::Version(version), &[&format!("at {}", version + 1)]).on(&*store).await;
        acknowledged.store(version + 1, order);
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

async fn revisions(store: &AnyStore) -> Vec<u64> {
    store.events(Revision(0), usize::MAX).await.unwrap().iter().map(|event| event.revision.0).collect()
}

async fn numbers(store: &AnyStore) -> Vec<u64> {
    store.audit(0, usize::MAX).await.unwrap().iter().map(|record| record.sequence).collect()
}

async fn refuses(store: &AnyStore, set: Set, error: CommitError) {
    assert_eq!(store.commit(set.0).await, Err(error));
}
