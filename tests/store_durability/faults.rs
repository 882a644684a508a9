//! Disks that are full or fail while a store is written, purged, copied, filled or compacted.

use std::{fs, os::unix::fs::MetadataExt, path::Path, process::Command};

use claviger::{
    domain::Revision,
    store::{
        ChangeSet, CommitError, Copied, CopyError, Head, Purge, Store, StoreError,
        sled::{Import, OpenError, SledStore, compact},
    },
};

use crate::{
    child::{
        Traced, block_on, can_run, change_set, commit_and_close, key, myself, open, tell, this_test, told,
        told_directory,
    },
    tools::there_is,
};

/// On a file system of 48 MB, of which a ballast takes 16 until the rest is full.
#[test]
fn a_full_disk_takes_nothing_back_and_the_store_goes_on_once_there_is_room() {
    let Some(directory) = told_directory() else {
        let words = on_a_small_disk("a_full_disk_takes_nothing_back_and_the_store_goes_on_once_there_is_room", 48);
        return assert!(words.is_none_or(|words| words == ["full", "room", "closed"]));
    };
    block_on(async {
        let ballast = directory.join("ballast");
        fs::write(&ballast, vec![1; 16 << 20]).unwrap();
        let store = open(&directory).await.unwrap();
        let acknowledged = commit_until_refused(&store, u64::MAX).await.expect("the disk has an end");
        tell("full");
        fs::remove_file(&ballast).unwrap();
        store.watch_head().wait_for(|head| head.available).await.unwrap();
        tell("room");
        let durable = everything_is_there(&store, acknowledged).await;
        assert_eq!(commit_until_refused(&store, durable + 200).await, None);
        store.close().await;
        let store = open(&directory).await.unwrap();
        assert_eq!(everything_is_there(&store, durable + 200).await, durable + 200);
        store.close().await;
        tell("closed");
    });
}

/// A store that fills most of its disk can't be written a second time beside itself.
#[test]
fn compaction_without_room_leaves_the_store_as_it_was() {
    const COMMITS: u64 = 3_000;
    let Some(directory) = told_directory() else {
        let words = on_a_small_disk("compaction_without_room_leaves_the_store_as_it_was", 48);
        return assert!(words.is_none_or(|words| words == ["refused", "whole"]));
    };
    block_on(async {
        commit_and_close(&directory, COMMITS).await;
        let taken = fs::metadata(directory.join("store/db")).unwrap().blocks() * 512;
        let ballast = directory.join("ballast");
        fs::write(&ballast, vec![1; (44 << 20) - taken as usize]).unwrap();
        let error = compact(&directory.join("store"), |_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Failed { .. } | OpenError::Unreadable { .. }), "{error}");
        tell("refused");
        assert!(!directory.join("store/filling").exists());
        // Opening may write a segment of its own, for which the ballast left room or not.
        fs::remove_file(&ballast).unwrap();
        let store = open(&directory).await.unwrap();
        everything_is_there(&store, COMMITS).await;
        store.close().await;
        tell("whole");
    });
}

/// Whichever write or fsync of the disk fails, be it at opening or in a group, what was acknowledged is there, what was
/// not is there whole or not at all, and the store goes on.
#[test]
fn one_failed_call_takes_nothing_back() {
    const COMMITS: u64 = 12;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let Ok(store) = open(&directory).await else { return tell("not opened") };
            let mut acknowledged = COMMITS;
            while let Some(before) = commit_until_refused(&store, 2 * COMMITS).await {
                tell("refused");
                store.watch_head().wait_for(|head| head.available).await.unwrap();
                acknowledged = everything_is_there(&store, before.max(acknowledged)).await;
            }
            everything_is_there(&store, 2 * COMMITS).await;
            store.close().await;
            tell("whole");
        });
    }
    let mut refused = 0;
    for fault in [
        "pwrite64:error=ENOSPC:when=1",
        "pwrite64:error=ENOSPC:when=2",
        "pwrite64:error=ENOSPC:when=3..5",
        "pwrite64:error=EIO:when=4",
        "fdatasync:error=EIO:when=2",
        "fdatasync:error=ENOSPC:when=3..4",
        "sync_file_range:error=EIO:when=2",
        "fsync:error=EIO:when=1",
    ] {
        let directory = tempfile::tempdir().unwrap();
        block_on(commit_and_close(directory.path(), COMMITS));
        let data = format!("-P{}", directory.path().join("store/db").display());
        let call = fault.split(':').next().unwrap();
        let options = [format!("-etrace={call}"), data, format!("-einject={fault}")];
        let told = Traced::new("faults::one_failed_call_takes_nothing_back", directory.path())
            .run(&options.each_ref().map(String::as_str));
        let end = if told == ["not opened"] { COMMITS } else { 2 * COMMITS };
        assert!(["not opened", "whole"].contains(&told.last().unwrap().as_str()), "{fault}: {told:?}");
        block_on(async {
            let store = open(directory.path()).await.unwrap();
            assert_eq!(everything_is_there(&store, end).await, end, "{fault}: {told:?}");
            store.close().await;
        });
        refused += usize::from(told.len() > 1);
    }
    assert!(refused >= 4, "only {refused} of the faults hit a commit");
}

/// A purge is there whole or not at all, and is taken up again.
#[test]
fn a_fault_in_a_purge_leaves_all_or_nothing_of_it() {
    const COMMITS: u64 = 600;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let store = open(&directory).await.unwrap();
            let purge = |through| ChangeSet {
                purge: Purge { events: Revision(through), audit: through },
                ..ChangeSet::default()
            };
            for through in (100..=500).step_by(100) {
                while store.commit(purge(through)).await.is_err() {
                    tell("refused");
                    store.watch_head().wait_for(|head| head.available).await.unwrap();
                    the_ends_are_where_the_head_says(&store, COMMITS).await;
                }
                assert_eq!(store.head().audit_purged, through);
                the_ends_are_where_the_head_says(&store, COMMITS).await;
            }
            store.close().await;
            let store = open(&directory).await.unwrap();
            the_ends_are_where_the_head_says(&store, COMMITS).await;
            store.close().await;
            tell("whole");
        });
    }
    for fault in ["fdatasync:error=EIO:when=2", "pwrite64:error=ENOSPC:when=2..3", "sync_file_range:error=EIO:when=1"] {
        let directory = tempfile::tempdir().unwrap();
        block_on(commit_and_close(directory.path(), COMMITS));
        let data = format!("-P{}", directory.path().join("store/db").display());
        let call = fault.split(':').next().unwrap();
        let options = [format!("-etrace={call}"), data, format!("-einject={fault}")];
        let told = Traced::new("faults::a_fault_in_a_purge_leaves_all_or_nothing_of_it", directory.path())
            .run(&options.each_ref().map(String::as_str));
        assert!(told.len() > 1 && told.last().is_some_and(|word| word == "whole"), "{fault}: {told:?}");
    }
}

/// What a failed group left in the files nobody noted, so a copy across it would be of no revision.
#[test]
fn a_failure_ends_the_copies_that_are_being_taken() {
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let store = open(&directory).await.unwrap();
            let mut copy = store.copy().await.unwrap();
            assert!(matches!(copy.next().await, Some(Ok(Copied::Rows(_)))));
            store.commit(change_set(1_001)).await.unwrap_err();
            store.watch_head().wait_for(|head| head.available).await.unwrap();
            let ended = copy.next().await.map(|part| part.err());
            assert_eq!(ended, Some(Some(CopyError::Store(StoreError::Unavailable))));
            tell("ended");
            store.close().await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), 1_000));
    let traced = Traced::new("faults::a_failure_ends_the_copies_that_are_being_taken", directory.path());
    assert_eq!(traced.run(&["-etrace=fdatasync", "-einject=fdatasync:error=EIO:when=1"]), ["ended"]);
}

/// The filling that fails says so and leaves nothing; the one after it succeeds.
#[test]
fn a_fault_while_filling_leaves_what_was_there() {
    const COMMITS: u64 = 4_000;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let store = open(&directory).await.unwrap();
            let other = directory.join("other");
            while let Err(error) = fill(&store, &other.join("store")).await {
                assert!(matches!(error, OpenError::Failed { .. } | OpenError::Unreadable { .. }), "{error}");
                assert!(!other.join("store/db").exists() && !other.join("store/filling").exists());
                tell("refused");
            }
            store.close().await;
            let store = open(&other).await.unwrap();
            everything_is_there(&store, COMMITS).await;
            store.close().await;
            tell("whole");
        });
    }
    for fault in ["pwrite64:error=ENOSPC:when=1", "fdatasync:error=EIO:when=1", "fsync:error=EIO:when=1"] {
        let directory = tempfile::tempdir().unwrap();
        block_on(commit_and_close(directory.path(), COMMITS));
        let data = format!("-P{}", directory.path().join("other/store/filling/db").display());
        let call = fault.split(':').next().unwrap();
        let options = [format!("-etrace={call}"), data, format!("-einject={fault}")];
        let told = Traced::new("faults::a_fault_while_filling_leaves_what_was_there", directory.path())
            .run(&options.each_ref().map(String::as_str));
        assert!(told.len() > 1 && told.last().is_some_and(|word| word == "whole"), "{fault}: {told:?}");
    }
}

/// A kill at each change of the directory, one after the other, until a compaction comes through.
#[test]
fn a_compaction_killed_at_any_step_leaves_one_whole_store() {
    const COMMITS: u64 = 50;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        compact(&directory.join("store"), |_| ()).unwrap();
        return tell("compacted");
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), COMMITS));
    let traced = Traced::new("faults::a_compaction_killed_at_any_step_leaves_one_whole_store", directory.path());
    for step in 1.. {
        let calls = "rename,unlink,unlinkat,mkdir,fsync,fdatasync,pwrite64";
        let inject = format!("-einject={calls}:signal=KILL:when={step}");
        let (told, by_itself) = traced.run_or_die(&[&format!("-etrace={calls}"), &inject]);
        block_on(async {
            let store = open(directory.path()).await.unwrap();
            everything_is_there(&store, COMMITS).await;
            store.close().await;
        });
        assert!(!directory.path().join("store/filling").exists());
        if by_itself {
            assert_eq!(told, ["compacted"]);
            assert!(step > 10, "only {step} steps were killed");
            return;
        }
    }
}

/// Fills a directory from a copy of the store.
async fn fill(store: &SledStore, directory: &Path) -> Result<Head, OpenError> {
    let mut copy = store.copy().await.unwrap();
    let mut import = Import::begin(directory)?;
    loop {
        match copy.next().await.unwrap().unwrap() {
            Copied::Rows(rows) => import.add(&rows)?,
            Copied::End { head } => return import.finish(head).map(|()| head),
        }
    }
}

/// Commits new change sets up to this number; the last one that was acknowledged before one was refused.
async fn commit_until_refused(store: &SledStore, last: u64) -> Option<u64> {
    let mut head = store.watch_head();
    for number in store.head().revision.0 + 1..=last {
        head.borrow_and_update();
        match store.commit(change_set(number)).await {
            Ok(receipt) => assert_eq!(receipt.revision, Revision(number)),
            Err(error) => {
                assert_eq!(error, CommitError::Unavailable);
                // it went down before it answered, and may be up again by now
                assert!(head.has_changed().unwrap());
                return Some(number - 1);
            }
        }
    }
    None
}

/// Every change set up to the newest is there whole, and that is one that was acknowledged or the one after it.
async fn everything_is_there(store: &SledStore, acknowledged: u64) -> u64 {
    let Revision(revision) = store.head().revision;
    assert!((acknowledged..=acknowledged + 1).contains(&revision), "{acknowledged} acknowledged, now {revision}");
    for number in 1..=revision {
        let row = store.row(key(number)).await.unwrap().expect("every change set left its row");
        assert_eq!(row.revision, Revision(number));
    }
    assert!(store.row(key(revision + 1)).await.unwrap().is_none());
    assert_eq!(store.events(Revision(0), usize::MAX).await.unwrap().len() as u64, revision);
    assert_eq!(store.audit(0, usize::MAX).await.unwrap().len() as u64, revision);
    revision
}

/// The two logs begin behind what the head says is gone, both in the same step, and the rows are untouched.
async fn the_ends_are_where_the_head_says(store: &SledStore, commits: u64) {
    let head = store.head();
    let events = store.events(Revision(0), usize::MAX).await.unwrap();
    let audit = store.audit(0, usize::MAX).await.unwrap();
    assert_eq!(head.compacted.0, head.audit_purged);
    assert_eq!(events.first().map(|event| event.revision), Some(head.compacted.next()));
    assert_eq!(audit.first().map(|record| record.sequence), Some(head.audit_purged + 1));
    assert_eq!([events.len(), audit.len()], [(commits - head.audit_purged) as usize; 2]);
    assert!(store.row(key(1)).await.unwrap().is_some() && store.row(key(commits)).await.unwrap().is_some());
}

/// Runs the test again with its directory on a file system in memory of so many MB, which ends with it; `None`: this
/// machine does not let us mount one.
fn on_a_small_disk(test: &str, megabytes: u64) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\"");
    let unshare = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--user", "--map-root-user", "sh", "-c", script]).arg(directory.path());
        unshare
    };
    if !can_run("mounting a tmpfs (unshare, mount)", &mut unshare(&mount)) {
        return None;
    }
    let mut command = unshare(&format!("{mount} && exec \"$@\""));
    command.arg(myself());
    let output = this_test(&format!("faults::{test}"), directory.path(), command).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));
    Some(told(output.stdout))
}
