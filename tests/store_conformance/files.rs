//! What the embedded store promises of its files.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use claviger::{
    domain::{EntryId, InstallationId, Revision},
    store::{
        CommitError, Expect, FieldTag, IndexKind, RecordKey, RecordKind, Store, StoreError, Write,
        change::MAX_ROW,
        codec::{CommitPart, Place, row_size},
        sled::{self, OpenError, SledOptions, SledStore},
    },
};
use tempfile::TempDir;

use crate::words::{Chain, Set, fields, key, listed, listing, open_at, options, poll_once, sealed};

#[tokio::test]
async fn an_acknowledged_change_set_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    Set::default().list(1, Expect::Absent, &["a", "b"]).event(1, "1").audit(1, "1").on(&store).await;
    Set::default().create(2, "gone").on(&store).await;
    Set::default().delete(2, 1).list(1, Expect::Version(1), &["b", "c"]).event(2, "2").audit(2, "2").on(&store).await;
    let before = (store.head(), store.row(key(1)).await.unwrap());
    let (events, audit) = (store.events(Revision(0), 9).await.unwrap(), store.audit(0, 9).await.unwrap());
    store.close().await;

    let store = open_at(directory.path()).await.unwrap();
    assert_eq!(store.head(), before.0);
    assert!(store.row(key(1)).await.unwrap() == before.1);
    assert!(store.row(key(2)).await.unwrap().is_none());
    assert_eq!(listing(&store, "").await, ["b", "c"]);
    assert!(store.events(Revision(0), 9).await.unwrap() == events && events.len() == 2);
    assert!(store.audit(0, 9).await.unwrap() == audit && audit.len() == 2);
    // and the numbering goes on
    let receipt = Set::default().audit(3, "3").on(&store).await;
    assert_eq!((receipt.revision, receipt.audit), (Revision(4), vec![3]));
    store.close().await;
}

#[tokio::test]
async fn a_store_keeps_the_names_of_its_creation() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    let head = store.head();
    store.close().await;
    let others = SledOptions {
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
        ..options(directory.path())
    };
    let store = SledStore::open(others, Box::new(Chain)).await.unwrap();
    assert_eq!(store.head(), head);
    store.close().await;
}

#[tokio::test]
async fn a_second_open_is_told_that_the_directory_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    let error = refusal(directory.path()).await;
    assert!(matches!(&error, OpenError::InUse { directory: named } if *named == directory.path().join("store")));
    assert!(error.to_string().contains("in use") && error.to_string().contains("stop it"));
    // the first is none the worse for it
    Set::default().create(1, "row").on(&store).await;
    store.close().await;
    open_at(directory.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_directory_that_a_bare_sled_holds_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    open_at(directory.path()).await.unwrap().close().await;
    let held = sled::files(&directory.path().join("store")).open().unwrap();
    assert!(matches!(refusal(directory.path()).await, OpenError::InUse { .. }));
    drop(held);
}

#[tokio::test]
async fn a_dropped_store_lets_go_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    Set::default().create(1, "row").on(&store).await;
    drop(store);
    let reopened = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            match open_at(directory.path()).await {
                Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        }
    });
    let store = reopened.await.expect("the thread of the dropped store ends");
    assert!(store.row(key(1)).await.unwrap().is_some());
    store.close().await;
}

#[tokio::test]
async fn the_directory_is_closed_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    open_at(directory.path()).await.unwrap().close().await;
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&path, Permissions::from_mode(0o2775)).unwrap();
    open_at(directory.path()).await.unwrap().close().await;
    assert_eq!(mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_path_that_is_no_directory_is_unreadable() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("store"), "a file").unwrap();
    let error = refusal(directory.path()).await;
    assert!(matches!(&error, OpenError::Unreadable { path, .. } if path.starts_with(directory.path())), "{error}");
}

/// sled never fsyncs such a file, so a row in one would not be durable.
#[tokio::test]
async fn no_page_spills_into_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    let empty = row_size(&vec![(FieldTag::Record, sealed(b""))], &[]);
    for round in 0..3_u8 {
        for id in 0..80 {
            let fields = vec![(FieldTag::Record, sealed(&vec![round; MAX_ROW - empty]))];
            let expect = if round == 0 { Expect::Absent } else { Expect::Version(round.into()) };
            Set::default().write(Write::put(key(id), expect, fields, Vec::new())).on(&store).await;
        }
    }
    let spilled = fs::read_dir(directory.path().join("store/blobs")).unwrap().count();
    assert_eq!(spilled, 0);
    store.close().await;
}

#[tokio::test]
async fn a_change_set_of_thousands_of_rows_is_whole_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    four_thousand_rows().on(&store).await;
    // a smaller set in the same slot leaves the other parts of the old one behind
    for id in 0..300 {
        Set::default().event((id % 256) as u8, "event").on(&store).await;
    }
    let head = store.head();
    store.close().await;
    let store = open_at(directory.path()).await.unwrap();
    assert_eq!(store.head(), head);
    store.close().await;
}

#[tokio::test]
async fn a_large_set_that_lost_a_part_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    four_thousand_rows().on(&store).await;
    store.close().await;
    remove(directory.path(), &Place::Commit { slot: 1, part: 1 });
    let error = refusal(directory.path()).await;
    assert!(matches!(error, OpenError::TornChangeSet { revision: Revision(1) }), "{error}");
}

#[tokio::test]
async fn a_corrupt_row_is_reported_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    Set::default()
        .list(1, Expect::Absent, &["a"])
        .event(1, "event")
        .audit(1, "audit")
        .audit(2, "last")
        .on(&store)
        .await;
    Set::default().create(2, "sound").event(2, "event").on(&store).await;
    store.close().await;
    let names = [
        (Place::Record(key(1)), "Connection/01010101010101010101010101010101"),
        (Place::Index(IndexKind::ConnectionsOfSubject, Bytes::from_static(b"a")), "ConnectionsOfSubject/61"),
        (Place::Audit(1), "Audit/1"),
    ];
    for (place, _) in &names {
        damage(directory.path(), place);
    }
    damage(directory.path(), &Place::Event(Revision(1), 0));

    let store = open_at(directory.path()).await.unwrap();
    let rows = [
        store.row(key(1)).await.map(drop),
        store.index(IndexKind::ConnectionsOfSubject, Bytes::new(), None, 9).await.map(drop),
        store.audit(0, 9).await.map(drop),
    ];
    for (read, (_, name)) in rows.into_iter().zip(&names) {
        assert_eq!(read, Err(StoreError::Corrupt { row: (*name).to_owned() }));
    }
    // It keeps nobody from the events after it.
    let events = store.events(Revision(0), 9).await.unwrap();
    let bodies: Vec<_> = events.iter().map(|event| (event.revision.0, event.body.as_bytes().is_empty())).collect();
    assert_eq!(bodies, [(1, true), (2, false)]);
    let judged = store.commit(Set::default().replace(1, 1, "over it").0).await;
    assert_eq!(judged, Err(CommitError::Corrupt { row: names[0].1.to_owned() }));
    // the others are none the worse for it
    assert!(store.row(key(2)).await.unwrap().unwrap().fields == fields("sound"));
    Set::default().replace(2, 1, "still sound").on(&store).await;
    assert!(store.head().available);
    store.close().await;
}

#[tokio::test]
async fn an_intact_row_in_anothers_place_is_corrupt() {
    let directory = three_sets().await;
    tamper(directory.path(), |tree| {
        let value = tree.get(Place::Record(key(1)).encode()).unwrap().unwrap();
        tree.insert(Place::Record(key(9)).encode(), value).unwrap();
    });
    let store = open_at(directory.path()).await.unwrap();
    assert!(store.row(key(9)).await.is_err_and(|error| matches!(error, StoreError::Corrupt { .. })));
    store.close().await;
}

#[tokio::test]
async fn a_change_set_that_lost_a_row_is_named() {
    for (place, torn) in [
        (Place::Record(key(1)), 2),
        (Place::Record(key(2)), 1),
        (Place::Index(IndexKind::ConnectionsOfSubject, Bytes::from_static(b"new")), 3),
        (Place::Event(Revision(1), 0), 1),
        (Place::Audit(1), 1),
        (Place::Audit(2), 2),
        (Place::Commit { slot: 1, part: 0 }, 1),
        (Place::Commit { slot: 2, part: 0 }, 2),
    ] {
        let directory = three_sets().await;
        remove(directory.path(), &place);
        let error = refusal(directory.path()).await;
        assert!(
            matches!(error, OpenError::TornChangeSet { revision } if revision == Revision(torn)),
            "without {place}: {error}"
        );
    }
}

#[tokio::test]
async fn a_change_set_that_kept_an_older_row_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    Set::default().create(1, "old").on(&store).await;
    store.close().await;
    let mut old = None;
    tamper(directory.path(), |tree| old = tree.get(Place::Record(key(1)).encode()).unwrap());
    let store = open_at(directory.path()).await.unwrap();
    Set::default().replace(1, 1, "new").on(&store).await;
    Set::default().create(2, "later").on(&store).await;
    store.close().await;
    tamper(directory.path(), |tree| {
        tree.insert(Place::Record(key(1)).encode(), old.unwrap()).unwrap();
    });
    assert!(matches!(refusal(directory.path()).await, OpenError::TornChangeSet { revision: Revision(2) }));
}

#[tokio::test]
async fn a_change_set_that_did_not_remove_its_row_is_named() {
    let directory = three_sets().await;
    let left = Place::Index(IndexKind::ConnectionsOfSubject, Bytes::from_static(b"old"));
    tamper(directory.path(), |tree| {
        tree.insert(left.encode(), claviger::store::codec::encode_index_entry(&listed(3, "old")).to_vec()).unwrap();
    });
    assert!(matches!(refusal(directory.path()).await, OpenError::TornChangeSet { revision: Revision(3) }));
}

#[tokio::test]
async fn rows_beyond_the_newest_commit_row_are_torn() {
    let directory = three_sets().await;
    remove(directory.path(), &Place::Commit { slot: 3, part: 0 });
    assert!(matches!(refusal(directory.path()).await, OpenError::TornChangeSet { revision: Revision(3) }));
    // the same for a set that has an audit record and no event
    remove(directory.path(), &Place::Commit { slot: 2, part: 0 });
    remove(directory.path(), &Place::Event(Revision(3), 0));
    assert!(matches!(refusal(directory.path()).await, OpenError::TornChangeSet { revision: Revision(2) }));
}

#[tokio::test]
async fn only_the_end_of_the_log_has_to_be_whole() {
    let directory = three_sets().await;
    let store = open_at(directory.path()).await.unwrap();
    for _ in 0..=CommitPart::SLOTS {
        Set::default().needs(9, Expect::Absent).on(&store).await;
    }
    store.close().await;
    remove(directory.path(), &Place::Event(Revision(1), 0));
    open_at(directory.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_purge_survives_reopening_even_of_all_that_can_go() {
    let directory = three_sets().await;
    let store = open_at(directory.path()).await.unwrap();
    Set::default().purge(u64::MAX, u64::MAX).on(&store).await;
    let head = store.head();
    assert_eq!((head.compacted, head.audit, head.audit_purged), (Revision(3), 2, 1));
    store.close().await;
    let store = open_at(directory.path()).await.unwrap();
    assert_eq!(store.head(), head);
    assert!(store.events(Revision(0), 9).await.unwrap().is_empty());
    assert_eq!(store.audit(0, 9).await.unwrap().len(), 1);
    assert_eq!(Set::default().audit(3, "next").on(&store).await.audit, [3]);
    store.close().await;
}

#[tokio::test]
async fn a_purge_that_was_not_written_whole_is_named() {
    let places = [Place::Event(Revision(1), 0), Place::Audit(1), Place::Meta];
    for place in places {
        let directory = three_sets().await;
        let mut old = None;
        tamper(directory.path(), |tree| old = tree.get(place.encode()).unwrap());
        let store = open_at(directory.path()).await.unwrap();
        Set::default().purge(2, 1).on(&store).await;
        store.close().await;
        tamper(directory.path(), |tree| drop(tree.insert(place.encode(), old.unwrap()).unwrap()));
        let error = refusal(directory.path()).await;
        assert!(matches!(error, OpenError::TornChangeSet { revision: Revision(4) }), "{place}: {error}");
    }
}

#[tokio::test]
async fn an_unknown_format_is_refused_by_its_number() {
    let directory = three_sets().await;
    tamper(directory.path(), |tree| {
        let mut meta = tree.get(Place::Meta.encode()).unwrap().unwrap().to_vec();
        meta[0] = 9;
        tree.insert(Place::Meta.encode(), meta).unwrap();
    });
    assert!(matches!(refusal(directory.path()).await, OpenError::UnknownFormat { found: 9 }));
}

#[tokio::test]
async fn a_store_without_its_own_row_is_corrupt() {
    let directory = three_sets().await;
    remove(directory.path(), &Place::Meta);
    assert!(matches!(refusal(directory.path()).await, OpenError::Corrupt { row } if row == "Meta"));
}

#[tokio::test]
async fn a_directory_that_lost_its_files_is_not_begun_anew() {
    let directory = three_sets().await;
    for file in fs::read_dir(directory.path().join("store")).unwrap().map(Result::unwrap) {
        if file.file_name() == "db" || file.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(file.path()).unwrap();
        }
    }
    assert!(matches!(refusal(directory.path()).await, OpenError::Corrupt { row } if row == "Meta"));
}

#[tokio::test]
async fn more_change_sets_than_there_is_room_for_wait_and_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    let body = "x".repeat(30_000);
    // 24 MB, of which 16 may wait
    let sets = (0..200_u8).map(|id| Set::default().create(id, &body).event(id, &body).event(id, &body));
    let mut commits: Vec<_> = sets.map(|set| store.commit(set.0)).collect();
    let answers: Vec<_> = commits.iter_mut().map(poll_once).collect();
    assert!(answers.iter().all(Option::is_none));
    let mut revisions = Vec::new();
    for commit in commits {
        revisions.push(commit.await.unwrap().revision.0);
    }
    assert_eq!(revisions, (1..=200).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test]
async fn many_rounds_of_opening_leave_the_store_as_it_is() {
    let directory = three_sets().await;
    for _ in 0..20 {
        let store = open_at(directory.path()).await.unwrap();
        assert_eq!(store.head().revision, Revision(3));
        store.close().await;
    }
}

/// A closed store with rows 1 to 3, an event, an audit record and an index entry that moved from `old` to `new`.
pub(crate) async fn three_sets() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    let first = Set::default().create(1, "1").create(2, "2").list(3, Expect::Absent, &["old"]);
    first.event(1, "event").audit(1, "audit").on(&store).await;
    Set::default().replace(1, 1, "1 again").audit(2, "audit").on(&store).await;
    Set::default().list(3, Expect::Version(1), &["new"]).event(3, "event").on(&store).await;
    store.close().await;
    directory
}

/// More rows than one commit row can list.
fn four_thousand_rows() -> Set {
    let job = |id: u32| RecordKey::new(RecordKind::Job, [id.to_be_bytes(); 4].concat());
    let put = |id| Write::put(job(id), Expect::Absent, fields("job"), Vec::new());
    (0..4_000).fold(Set::default(), |set, id| set.write(put(id)))
}

pub(crate) async fn refusal(directory: &Path) -> OpenError {
    match open_at(directory).await {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

/// Changes the files behind the store's back.
pub(crate) fn tamper(directory: &Path, change: impl FnOnce(&::sled::Tree)) {
    let db = sled::files(&directory.join("store")).open().unwrap();
    change(&db);
    db.flush().unwrap();
    drop(db);
    // sled's threads let go of the file a moment later
    File::open(directory.join("store/db")).unwrap().lock().unwrap();
}

pub(crate) fn remove(directory: &Path, place: &Place) {
    tamper(directory, |tree| assert!(tree.remove(place.encode()).unwrap().is_some(), "{place} was there"));
}

/// Flips one bit of the row's content, behind its format and checksum.
pub(crate) fn damage(directory: &Path, place: &Place) {
    tamper(directory, |tree| {
        let mut value = tree.get(place.encode()).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        tree.insert(place.encode(), value).unwrap();
    });
}
