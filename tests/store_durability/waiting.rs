//! What a store takes in memory while its disk stands still, and while it is filled and compacted.

use std::{fs, process::Command};

use bytes::Bytes;
use claviger::{
    domain::{EntryId, InstallationId, Revision, Sealed},
    store::{
        ChangeSet, CopiedRow, Expect, FieldTag, Head, Row, Store, Write,
        codec::{self, Place},
        sled::{Import, compact},
    },
};

use tokio::task::unconstrained;

use crate::{
    child::{Traced, block_on, commit_and_close, key, myself, open, poll_once, tell, this_test, told, told_directory},
    tools::there_is,
};

/// While one fsync takes its time, a thousand callers ask, give up and ask again, thirty times each: 940 MB of change
/// sets, of which the store may take in what it has room for.
#[test]
fn callers_that_give_up_and_ask_again_do_not_fill_the_memory() {
    const CALLERS: u64 = 1_000;
    const TIMES: u64 = 30;
    const SIZE: usize = 32 << 10;
    const MOST: u64 = 192 << 20;
    if !there_is("strace") {
        return;
    }
    let test = "waiting::callers_that_give_up_and_ask_again_do_not_fill_the_memory";
    let Some(directory) = told_directory() else {
        let directory = tempfile::tempdir().unwrap();
        block_on(commit_and_close(directory.path(), 0));
        let slow = ["-etrace=fdatasync", "-einject=fdatasync:delay_enter=8000000:when=1"];
        return assert_eq!(Traced::new(test, directory.path()).run(&slow), ["asked", "committed"]);
    };
    block_on(async {
        let change = |number| {
            let body = Sealed::from_bytes(Bytes::from(vec![1; SIZE]));
            let put = Write::put(key(number), Expect::Absent, vec![(FieldTag::Record, body)], Vec::new());
            ChangeSet { writes: vec![put], ..ChangeSet::default() }
        };
        let store = open(&directory).await.unwrap();
        let before = peak_memory();
        for time in 0..TIMES {
            // unconstrained: else the runtime makes each caller of one task wait, with room or without
            let ask = |caller| unconstrained(store.commit(change(time * CALLERS + caller)));
            let mut waiting: Vec<_> = (0..CALLERS).map(ask).collect();
            waiting.iter_mut().for_each(|commit| drop(poll_once(commit)));
        }
        tell("asked");
        // behind all that was taken in, and answered once the disk goes on
        store.commit(change(TIMES * CALLERS)).await.unwrap();
        let taken = peak_memory() - before;
        assert!(taken < MOST, "{} MB", taken >> 20);
        tell("committed");
        store.close().await;
    });
}

/// 80 MB of rows through a page cache of 64, twice.
#[test]
fn filling_and_compacting_a_store_take_little_more_memory_than_their_cache() {
    const ROWS: u64 = 40_000;
    const MOST: u64 = 224 << 20;
    let test = "waiting::filling_and_compacting_a_store_take_little_more_memory_than_their_cache";
    let Some(directory) = told_directory() else {
        let directory = tempfile::tempdir().unwrap();
        let output = this_test(test, directory.path(), Command::new(myself())).output().unwrap();
        return assert_eq!(told(output.stdout), ["filled", "compacted"]);
    };
    let before = peak_memory();
    let taken = || (peak_memory() - before) >> 20;
    let path = directory.join("store");
    let mut import = Import::begin(&path).unwrap();
    for first in (0..ROWS).step_by(1_000) {
        let rows: Vec<_> = (first..first + 1_000).map(row).collect();
        import.add(&rows).unwrap();
    }
    let (installation, epoch) = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
    let (revision, compacted) = (Revision(1), Revision(0));
    import
        .finish(Head { installation, epoch, revision, compacted, audit: 0, audit_purged: 0, available: true })
        .unwrap();
    assert!(taken() < MOST >> 20, "{} MB", taken());
    tell("filled");
    assert_eq!(compact(&path, |_| ()).unwrap().rows, ROWS);
    assert!(taken() < MOST >> 20, "{} MB", taken());
    tell("compacted");
}

fn row(number: u64) -> CopiedRow {
    let fields = vec![(FieldTag::Record, Sealed::from_bytes(Bytes::from(vec![number as u8; 2_000])))];
    let value = codec::encode_row(&key(number), &Row { version: 1, revision: Revision(1), fields, index: Vec::new() });
    CopiedRow { place: Place::Record(key(number)).encode().into(), value: Some(value) }
}

/// The most that this process ever had in memory, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
