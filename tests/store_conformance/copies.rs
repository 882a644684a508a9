//! Copies: what every store promises of them, and what the embedded one makes of them.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use claviger::{
    domain::{EntryId, Revision},
    store::{
        Copied, CopiedRow, CopyError, Copying, Expect, Head, IndexKind, Store, StoreError, Write,
        codec::{self, Family, Place},
        sled::{Import, OpenError, compact},
    },
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{
    files::{damage, refusal, remove, three_sets},
    words::{AnyStore, Set, fields, key, listed, open_at, open_memory, poll_once},
};

/// What a copy holds, and where it ends.
type Whole = (BTreeMap<Bytes, Bytes>, Head);

pub(crate) async fn a_copy_holds_everything_and_ends_with_the_head(store: AnyStore) {
    assert_eq!(copied(&*store).await, (BTreeMap::new(), store.head()));
    for step in 0..40 {
        work(step, 7).on(&*store).await;
    }
    let (rows, head) = copied(&*store).await;
    assert_eq!(head, store.head());
    let mut counts = BTreeMap::<_, usize>::new();
    for (place, value) in &rows {
        let place = Place::decode(place).unwrap();
        *counts.entry(place.family()).or_default() += 1;
        match place {
            Place::Record(key) => {
                assert!(codec::decode_row(&key, value).unwrap() == *store.row(key).await.unwrap().unwrap());
            }
            Place::Index(index, key) => {
                let entry = codec::decode_index_entry(index, key.clone(), value).unwrap();
                assert_eq!(store.index(index, key, None, 1).await.unwrap(), [entry]);
            }
            Place::Event(revision, index) => {
                let event = codec::decode_event(revision, index, value).unwrap();
                let found = store.events(Revision(revision.0 - 1), 1).await.unwrap();
                assert!(found[index as usize] == event);
            }
            Place::Audit(number) => {
                let record = codec::decode_audit(number, value).unwrap();
                assert!(store.audit(number - 1, 1).await.unwrap() == [record]);
            }
            Place::Meta | Place::Commit { .. } => panic!("{place} is the store's own"),
        }
    }
    let entries = store.index(IndexKind::ConnectionsOfSubject, Bytes::new(), None, 99).await.unwrap();
    let events = store.events(Revision(0), usize::MAX).await.unwrap().len();
    let audit = store.audit(0, usize::MAX).await.unwrap().len();
    let families = [Family::Record, Family::Index, Family::Event, Family::Audit];
    let present = (0..RECORDS).map(|id| store.row(key(id)));
    let mut rows = 0;
    for row in present {
        rows += usize::from(row.await.unwrap().is_some());
    }
    assert_eq!(families.map(|family| counts[&family]), [rows, entries.len(), events, audit]);
}

pub(crate) async fn a_copy_does_not_keep_the_writers_waiting(store: AnyStore) {
    for step in 0..40 {
        work(step, 7).on(&*store).await;
    }
    let begun = store.head().revision;
    let mut copy = store.copy().await.unwrap();
    let first = copy.next().await;
    // nobody reads on
    for step in 40..80 {
        work(step, 7).on(&*store).await;
    }
    let whole = read_on(copy, first).await.unwrap();
    assert!(whole.1.revision >= begun);
    assert_eq!(whole, replayed(whole.1.revision, 7).await);
    // and one that is given up leaves nothing behind
    drop(store.copy().await.unwrap());
    work(80, 7).on(&*store).await;
}

pub(crate) async fn a_closed_store_gives_no_copy(store: AnyStore) {
    Set::default().create(1, "row").on(&*store).await;
    store.close().await;
    assert!(store.copy().await.is_err_and(|error| error == StoreError::Unavailable));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// Under a writer that does not pause, a copy is what the store held at one revision: the same that the first so
    /// many change sets leave behind in another store.
    #[test]
    fn a_copy_under_writers_is_of_one_revision(seed in any::<u64>(), before in 1_u64..300) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let store: AnyStore = Arc::new(open_at(directory.path()).await.unwrap());
            commit_in_order(&*store, 0..before, seed).await;
            let (stop, begun) = (Arc::new(AtomicBool::new(false)), store.head().revision);
            let writer = tokio::spawn({
                let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
                async move {
                    let mut step = before;
                    while !stop.load(Ordering::SeqCst) {
                        commit_in_order(&*store, step..step + 20, seed).await;
                        step += 20;
                    }
                }
            });
            let copies = [copied(&*store).await, copied(&*store).await];
            stop.store(true, Ordering::SeqCst);
            writer.await.unwrap();
            for copy in copies {
                assert!(copy.1.revision >= begun && copy.1.revision <= store.head().revision);
                assert!(copy == replayed(copy.1.revision, seed).await, "at {:?}", copy.1);
            }
            store.close().await;
        });
    }
}

/// What changed behind the scan is read again, and what is gone is taken back.
#[tokio::test]
async fn a_copy_reads_again_what_changed_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    let body = "x".repeat(30_000);
    for id in 1..=60 {
        Set::default().create(id, &body).on(&store).await;
    }
    let mut copy = store.copy().await.unwrap();
    let Some(Ok(Copied::Rows(first))) = copy.next().await else { panic!("the copy begins with rows") };
    assert!(first.len() < 60, "a copy is read in pages");
    Set::default().delete(1, 1).replace(2, 1, "new").create(0, "before all").delete(60, 1).on(&store).await;
    let mut again = Vec::new();
    while let Some(part) = copy.next().await {
        if let Copied::Rows(rows) = part.unwrap() {
            again.extend(rows.into_iter().map(|row| (row.place, row.value.is_some())));
        }
    }
    let place = |id| Bytes::from(Place::Record(key(id)).encode());
    for (id, is_there) in [(1, false), (2, true), (0, true)] {
        assert_eq!(again.iter().find(|(found, _)| *found == place(id)), Some(&(place(id), is_there)));
    }
    // before the scan was there, so nothing has to be taken back
    assert!(again.iter().all(|(found, _)| *found != place(60)));
    store.close().await;
}

#[tokio::test]
async fn a_corrupt_row_ends_a_copy_by_its_name() {
    let directory = three_sets().await;
    damage(directory.path(), &Place::Record(key(2)));
    let store = open_at(directory.path()).await.unwrap();
    let row = "Connection/02020202020202020202020202020202".to_owned();
    let ended = read_on(store.copy().await.unwrap(), None).await;
    assert_eq!(ended.err(), Some(CopyError::Store(StoreError::Corrupt { row })));
    store.close().await;
}

#[tokio::test]
async fn a_corrupt_event_is_left_out_of_a_copy() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    Set::default().create(1, "sound").event(1, "lost").event(2, "kept").on(&store).await;
    store.close().await;
    damage(directory.path(), &Place::Event(Revision(1), 0));
    let store = open_at(directory.path()).await.unwrap();
    let mut copy = store.copy().await.unwrap();
    let mut places = Vec::new();
    while let Some(part) = copy.next().await {
        if let Copied::Rows(rows) = part.unwrap() {
            places.extend(rows.into_iter().map(|row| row.place));
        }
    }
    let there = |place: &Place| places.contains(&Bytes::from(place.encode()));
    assert!(there(&Place::Record(key(1))) && there(&Place::Event(Revision(1), 1)));
    assert!(!there(&Place::Event(Revision(1), 0)));
    store.close().await;
}

#[tokio::test]
async fn a_directory_filled_from_a_copy_is_that_store() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store: AnyStore = Arc::new(open_at(directory.path()).await.unwrap());
    commit_in_order(&*store, 0..400, 3).await;
    let mut copy = store.copy().await.unwrap();
    let mut import = Import::begin(&other.path().join("store")).unwrap();
    let head = loop {
        match copy.next().await.unwrap().unwrap() {
            Copied::Rows(rows) => import.add(&rows).unwrap(),
            Copied::End { head } => break head,
        }
    };
    let epoch = EntryId::from_bytes([77; 16]);
    import.finish(Head { epoch, ..head }).unwrap();

    let filled: AnyStore = Arc::new(open_at(other.path()).await.unwrap());
    assert_eq!(filled.head(), Head { epoch, ..head });
    let (rows, _) = copied(&*filled).await;
    assert!(rows == copied(&*store).await.0);
    // the numbering and the chain go on as they do in the other, also once it was opened anew
    for step in 400..700 {
        assert_eq!(work(step, 3).on(&*filled).await, work(step, 3).on(&*store).await);
    }
    filled.close().await;
    let filled = open_at(other.path()).await.unwrap();
    assert!(copied(&filled).await.0 == copied(&*store).await.0);
    filled.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_copy_of_an_empty_store_fills_an_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let head = open_memory().await.store.head();
    Import::begin(&directory.path().join("store")).unwrap().finish(head).unwrap();
    let store = open_at(directory.path()).await.unwrap();
    assert_eq!(store.head(), head);
    Set::default().create(1, "first").on(&store).await;
    store.close().await;
    open_at(directory.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn rows_that_are_not_intact_fill_nothing() {
    let directory = three_sets().await;
    let (rows, _) = copied_at(&directory).await;
    let empty = tempfile::tempdir().unwrap();
    let mut import = Import::begin(&empty.path().join("store")).unwrap();
    let (place, value) = rows.first_key_value().unwrap();
    let mut flipped = value.to_vec();
    flipped[9] ^= 1;
    let elsewhere = rows.last_key_value().unwrap().1.clone();
    let own = Bytes::from(Place::Meta.encode());
    for (place, value) in [
        (place.clone(), Some(flipped.into())),
        (place.clone(), Some(elsewhere)),
        (Bytes::from_static(&[9, 9]), Some(value.clone())),
        (own.clone(), Some(value.clone())),
        (own, None),
    ] {
        let refused = import.add(&[CopiedRow { place, value }]);
        assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_copy_that_lacks_its_end_fills_nothing() {
    let directory = three_sets().await;
    let (rows, head) = copied_at(&directory).await;
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().join("store");
    let fill = |without: Option<Place>, head| {
        let mut import = Import::begin(&path).unwrap();
        let without = without.map(|place| place.encode());
        let rows = rows.iter().filter(|(place, _)| without.as_deref() != Some(&place[..]));
        let row = |(place, value): (&Bytes, &Bytes)| CopiedRow { place: place.clone(), value: Some(value.clone()) };
        import.add(&rows.map(row).collect::<Vec<_>>()).unwrap();
        import.finish(head)
    };
    let without_newest = fill(Some(Place::Audit(2)), head);
    assert!(matches!(without_newest, Err(OpenError::TornChangeSet { revision: Revision(3) })));
    assert!(matches!(fill(None, Head { audit: 1, ..head }), Err(OpenError::TornChangeSet { .. })));
    let earlier = fill(None, Head { revision: Revision(2), ..head });
    assert!(matches!(earlier, Err(OpenError::TornChangeSet { revision: Revision(3) })));
    assert!(!path.join("db").exists() && !path.join("filling").exists());
    fill(None, head).unwrap();
    assert_eq!(copied_at(&empty).await, (rows, head));
}

#[tokio::test]
async fn a_store_is_replaced_at_the_end_or_not_at_all() {
    let (old, new) = (three_sets().await, tempfile::tempdir().unwrap());
    let store = open_at(new.path()).await.unwrap();
    commit_in_order(&store, 0..50, 5).await;
    store.close().await;
    let (before, after) = (copied_at(&old).await, copied_at(&new).await);
    let path = old.path().join("store");
    assert!(matches!(Import::begin(&path), Err(OpenError::Occupied { directory }) if directory == path));
    let begin = || {
        let mut import = Import::replace(&path).unwrap();
        let row = |(place, value): (&Bytes, &Bytes)| CopiedRow { place: place.clone(), value: Some(value.clone()) };
        import.add(&after.0.iter().map(row).collect::<Vec<_>>()).unwrap();
        import
    };
    let import = begin();
    // nobody else may use the directory while it is filled
    assert!(matches!(refusal(old.path()).await, OpenError::InUse { .. }));
    drop(import);
    assert_eq!(copied_at(&old).await, before);
    begin().finish(after.1).unwrap();
    assert_eq!(copied_at(&old).await, after);
}

#[tokio::test]
async fn what_an_interrupted_filling_left_is_removed_beside_a_store_and_refused_without() {
    let directory = three_sets().await;
    let filling = directory.path().join("store/filling");
    fs::create_dir(&filling).unwrap();
    fs::write(filling.join("db"), "half").unwrap();
    open_at(directory.path()).await.unwrap().close().await;
    assert!(!filling.exists());

    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().join("store");
    fs::create_dir_all(path.join("filling")).unwrap();
    let error = refusal(empty.path()).await;
    assert!(matches!(&error, OpenError::HalfFilled { directory } if *directory == path), "{error}");
    assert!(error.to_string().contains("fill it again"));
    let head = open_memory().await.store.head();
    Import::begin(&path).unwrap().finish(head).unwrap();
    open_at(empty.path()).await.unwrap().close().await;
}

#[tokio::test]
async fn compaction_keeps_the_store_and_gives_room_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(directory.path()).await.unwrap();
    for round in 0..12 {
        for id in 0..60 {
            let body = format!("{round} {}", "x".repeat(30_000));
            let set = Set::default().audit(id, "audit");
            let set = if round == 0 { set.create(id, &body) } else { set.replace(id, round, &body) };
            set.on(&store).await;
        }
    }
    Set::default().list(200, Expect::Absent, &["a", "b"]).event(1, "event").purge(300, 100).on(&store).await;
    store.close().await;
    let before = copied_at(&directory).await;
    let mut told = 0;
    let path = directory.path().join("store");
    let compacted = compact(&path, |rows| {
        assert!(rows >= told);
        told = rows;
    })
    .unwrap();
    assert_eq!((compacted.rows, told), (before.0.len() as u64, compacted.rows));
    assert!(compacted.after < compacted.before / 2, "{compacted:?}");
    assert!(!path.join("filling").exists());
    assert_eq!(copied_at(&directory).await, before);
    // once more, now without anything to gain, and then the log goes on
    compact(&path, |_| ()).unwrap();
    let store = open_at(directory.path()).await.unwrap();
    for id in 0..100 {
        Set::default().create(100 + id, "later").audit(id, "audit").on(&store).await;
    }
    let after = copied(&store).await;
    store.close().await;
    assert_eq!(copied_at(&directory).await, after);
}

#[tokio::test]
async fn compaction_refuses_what_is_no_closed_and_sound_store() {
    let directory = three_sets().await;
    let path = directory.path().join("store");
    let store = open_at(directory.path()).await.unwrap();
    assert!(matches!(compact(&path, |_| ()), Err(OpenError::InUse { .. })));
    store.close().await;
    damage(directory.path(), &Place::Record(key(2)));
    let error = compact(&path, |_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { row } if row.starts_with("Connection/0202")), "{error}");
    // the store is as it was
    let store = open_at(directory.path()).await.unwrap();
    assert!(store.row(key(1)).await.unwrap().is_some());
    store.close().await;
    remove(directory.path(), &Place::Commit { slot: 3, part: 0 });
    assert!(matches!(compact(&path, |_| ()), Err(OpenError::TornChangeSet { .. })));
    let absent = tempfile::tempdir().unwrap();
    let path = absent.path().join("store");
    assert!(matches!(compact(&path, |_| ()), Err(OpenError::Absent { directory }) if directory == path));
}

/// A change set as an installation writes them, decided by its number and a seed alone.
fn work(step: u64, seed: u64) -> Set {
    let mut dice = Dice(seed ^ (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let set = Set::default().audit(step as u8, "audit");
    let set = if dice.roll(3) == 0 { set.event(step as u8, "event").event(step as u8, "event") } else { set };
    let set = if dice.roll(10) == 0 { set.purge(step / 2, step / 3) } else { set };
    // every record has its turn once in a round: made in the first, replaced in others, deleted in the last of a life
    let (round, id) = (step / u64::from(RECORDS), (step % u64::from(RECORDS)) as u8);
    let keys = [format!("key {id}"), format!("key {id} in {round}")];
    let version = round % LIFE;
    match version {
        0 => set.list(id, Expect::Absent, &[&keys[0], &keys[1]]),
        last if last == LIFE - 1 => set.delete(id, last),
        _ => set.write(Write::put(
            key(id),
            Expect::Version(version),
            fields(&"x".repeat(dice.roll(30_000) as usize)),
            vec![listed(id, &keys[1])],
        )),
    }
}

/// Commits these, several at a time, in this order.
async fn commit_in_order(store: &dyn Store, steps: std::ops::Range<u64>, seed: u64) {
    let mut commits: Vec<_> = steps.map(|step| store.commit(work(step, seed).0)).collect();
    let answers: Vec<_> = commits.iter_mut().map(poll_once).collect();
    for (commit, answer) in commits.into_iter().zip(answers) {
        match answer {
            Some(answer) => answer.unwrap(),
            None => commit.await.unwrap(),
        };
    }
}

/// What the first change sets, up to this revision, leave behind.
async fn replayed(revision: Revision, seed: u64) -> Whole {
    let memory = open_memory().await.store;
    commit_in_order(&*memory, 0..revision.0, seed).await;
    copied(&*memory).await
}

async fn copied(store: &dyn Store) -> Whole {
    read_on(store.copy().await.unwrap(), None).await.unwrap()
}

async fn copied_at(directory: &TempDir) -> Whole {
    let store = open_at(directory.path()).await.unwrap();
    let copied = copied(&store).await;
    store.close().await;
    copied
}

/// Reads a copy to its end, behind a part that was read already.
async fn read_on(mut copy: Copying, mut part: Option<Result<Copied, CopyError>>) -> Result<Whole, CopyError> {
    let mut whole = BTreeMap::new();
    loop {
        match part.take() {
            Some(Ok(Copied::Rows(rows))) => {
                for CopiedRow { place, value } in rows {
                    match value {
                        Some(value) => whole.insert(place, value),
                        None => whole.remove(&place),
                    };
                }
            }
            Some(Ok(Copied::End { head })) => {
                assert!(copy.next().await.is_none());
                return Ok((whole, head));
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
        part = Some(copy.next().await.expect("a copy has an end"));
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

const RECORDS: u8 = 50;
/// Rounds from a record's making to its deletion.
const LIFE: u64 = 4;
