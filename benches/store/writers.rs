//! Durable change sets a second beside raw sled, which writes rows of the same size in the same files: with a flush and
//! an fdatasync for each write, and with one for all that wait.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use claviger::{
    domain::{AuditLinker, Sealed},
    store::{
        ChangeSet, Expect, FieldTag, RecordKey, RecordKind, Store, Write,
        sled::{SledStore, files},
    },
};
use sled::{Batch, Db};
use tokio::{runtime::Runtime, sync::oneshot};

use super::{measure::Spread, population::scattered, product::options};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(1);
const ROW: usize = 2048;
/// As many as the store takes.
const GROUP: usize = 256;

pub(super) fn measure() {
    println!("\n## Durable change sets\n\nOne row of {ROW} bytes each; medians of {ROUNDS} rounds of {ROUND:?}.\n");
    println!("| writers | ours/s | one sync each/s | grouped/s | **ours by one sync each** | **ours by grouped** |");
    println!("|---|---|---|---|---|---|");
    for writers in [1, 16, 256] {
        let rounds: Vec<[f64; 3]> = (0..=ROUNDS).map(|round| run_round(round, writers)).skip(1).collect();
        let side = |side: usize| Spread::of(rounds.iter().map(|round| round[side])).median;
        let ratio = |to: usize| Spread::of(rounds.iter().map(|round| round[0] / round[to]));
        println!(
            "| {writers} | {:.0} | {:.0} | {:.0} | **{}** | **{}** |",
            side(0),
            side(1),
            side(2),
            ratio(1),
            ratio(2)
        );
    }
}

/// Ours, one sync each, grouped; in another order every time.
fn run_round(round: usize, writers: usize) -> [f64; 3] {
    let mut rates = [0.0; 3];
    for turn in 0..3 {
        let which = (round + turn) % 3;
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        rates[which] = [ours, one_sync_each, grouped][which](directory.path(), writers);
    }
    rates
}

fn ours(directory: &Path, writers: usize) -> f64 {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(SledStore::open(options(directory), Box::new(Unlinked)).await.unwrap());
        let writer = Arc::clone(&store);
        let rate = by_tasks(writers, move |number| {
            let store = Arc::clone(&writer);
            async move {
                let body = Sealed::from_bytes(Bytes::from(vec![0; ROW]));
                let key = RecordKey::new(RecordKind::Connection, key(number));
                let put = Write::put(key, Expect::Absent, vec![(FieldTag::Record, body)], Vec::new());
                store.commit(ChangeSet { writes: vec![put], ..ChangeSet::default() }).await.unwrap();
            }
        })
        .await;
        store.close().await;
        rate
    })
}

fn one_sync_each(directory: &Path, writers: usize) -> f64 {
    let (database, data) = open_raw(directory);
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    database.insert(key(number), vec![0; ROW]).unwrap();
                    database.flush().unwrap();
                    data.sync_data().unwrap();
                }
            });
        }
        thread::sleep(ROUND);
        over.store(true, Ordering::Relaxed);
    });
    next.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

fn grouped(directory: &Path, writers: usize) -> f64 {
    let (database, data) = open_raw(directory);
    let (requests, inbox) = mpsc::channel::<(u64, oneshot::Sender<()>)>();
    let writer = thread::spawn(move || {
        while let Ok(first) = inbox.recv() {
            let group: Vec<_> = std::iter::once(first).chain(inbox.try_iter().take(GROUP - 1)).collect();
            let mut batch = Batch::default();
            group.iter().for_each(|(number, _)| batch.insert(&key(*number), vec![0; ROW]));
            database.apply_batch(batch).unwrap();
            database.flush().unwrap();
            data.sync_data().unwrap();
            group.into_iter().for_each(|(_, done)| done.send(()).unwrap());
        }
    });
    let runtime = Runtime::new().unwrap();
    let rate = runtime.block_on(by_tasks(writers, move |number| {
        let requests = requests.clone();
        async move {
            let (done, is_done) = oneshot::channel();
            requests.send((number, done)).unwrap();
            is_done.await.unwrap();
        }
    }));
    writer.join().unwrap();
    rate
}

/// Writes a second by so many tasks, each waiting for its write before the next.
async fn by_tasks<F: Future<Output = ()> + Send + 'static>(
    writers: usize,
    write: impl Fn(u64) -> F + Clone + Send + 'static,
) -> f64 {
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (next, write) = (Arc::clone(&next), write.clone());
            tokio::spawn(async move {
                while begun.elapsed() < ROUND {
                    write(next.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    next.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

/// As the store opens it.
fn open_raw(directory: &Path) -> (Db, File) {
    let options = options(directory);
    let database = files(&options.directory).cache_capacity(options.page_cache).open().unwrap();
    let data = File::options().read(true).write(true).open(options.directory.join("db")).unwrap();
    (database, data)
}

/// No order, as ids and hashes have none.
fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scattered(number).to_be_bytes());
    key
}

struct Unlinked;

impl AuditLinker for Unlinked {
    fn link(&self, _: u64, _: Option<&[u8]>, body: &Sealed) -> Vec<u8> {
        body.as_bytes().to_vec()
    }
}
