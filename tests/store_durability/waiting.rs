//! What a store takes in memory while its disk stands still.

use std::fs;

use bytes::Bytes;
use claviger::{
    domain::Sealed,
    store::{ChangeSet, Expect, FieldTag, Store, Write},
};

use tokio::task::unconstrained;

use crate::{
    child::{Traced, block_on, commit_and_close, key, open, poll_once, tell, told_directory},
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

/// The most that this process ever had in memory, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
