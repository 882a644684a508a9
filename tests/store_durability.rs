//! What an acknowledgement is worth: the system calls behind it, what happens when they fail, and kill -9.
//!
//! A kill does not test an fsync, for the page cache survives the process. So these tests run themselves again as a
//! child under strace, which shows the calls in order and makes chosen ones fail.
//!
//! - `faults`: full disks and failing calls, also in the middle of purging, filling and compacting
//! - `waiting`: what is kept in memory meanwhile · `child`: the child

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "store_durability/child.rs"]
mod child;
#[path = "store_durability/faults.rs"]
mod faults;
#[path = "support/tools.rs"]
mod tools;
#[path = "store_durability/waiting.rs"]
mod waiting;

use std::{
    fs,
    io::{BufRead, BufReader},
    iter,
    path::Path,
    process::{Command, Stdio},
};

use child::{
    Traced, WORD, block_on, change_set, commit_and_close, key, myself, open, open_with, poll_once, tell, this_test,
    told_directory,
};
use claviger::{
    domain::Revision,
    store::{CommitError, Store, StoreError, sled::OpenError},
};
use tools::there_is;

#[test]
fn every_acknowledgement_follows_its_own_flush_and_fdatasync() {
    const COMMITS: u64 = 100;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return commit_and_tell(&directory, COMMITS);
    }
    let directory = tempfile::tempdir().unwrap();
    let traced = Traced::new("every_acknowledgement_follows_its_own_flush_and_fdatasync", directory.path());
    let told = traced.run(&["-etrace=pwrite64,sync_file_range,fdatasync,write"]);
    assert_eq!(told.len() as u64, COMMITS + 1, "{told:?}");

    let mut calls = calls(&traced).into_iter().skip_while(|call| *call != Call::Told("opened".to_owned()));
    calls.next();
    for commit in 1..=COMMITS {
        let mut progress = Progress::Nothing;
        let told = loop {
            match (progress, calls.next().expect("the trace goes on until the last acknowledgement")) {
                (_, Call::Wrote) => progress = Progress::Written,
                (Progress::Written, Call::Flushed) => progress = Progress::Flushed,
                (Progress::Flushed, Call::SyncBegun) => progress = Progress::Syncing,
                (Progress::Syncing, Call::Synced) => progress = Progress::Synced,
                (_, Call::Told(told)) => break told,
                _ => {}
            }
        };
        assert_eq!(told, format!("acknowledged {commit}"));
        assert_eq!(progress, Progress::Synced, "before {told:?}");
    }
}

#[test]
fn nothing_is_acknowledged_when_fdatasync_fails() {
    nothing_is_acknowledged_when_it_fails("nothing_is_acknowledged_when_fdatasync_fails", "fdatasync");
}

#[test]
fn nothing_is_acknowledged_when_the_flush_fails() {
    nothing_is_acknowledged_when_it_fails("nothing_is_acknowledged_when_the_flush_fails", "sync_file_range");
}

fn nothing_is_acknowledged_when_it_fails(test: &'static str, call: &str) {
    if !there_is("strace") {
        return;
    }
    const COMMITS: u64 = 5;
    if let Some(directory) = told_directory() {
        return commit_and_tell(&directory, COMMITS);
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), 0));
    let traced = Traced::new(test, directory.path());
    let told = traced.run(&[&format!("-etrace=write,fadvise64,{call}"), &format!("-einject={call}:error=EIO")]);

    // each time the store goes down, comes back on a new handle, and fails again
    let mut expected = vec!["opened"];
    expected.extend(["unavailable", "down", "up"].repeat(COMMITS as usize));
    assert_eq!(told, expected);
    // what it read when it came back was what the disk holds, and not what the kernel remembers
    let trace = fs::read_to_string(traced.trace()).unwrap();
    let dropped = trace.lines().filter(|line| line.contains("/store/db>") && line.contains("POSIX_FADV_DONTNEED"));
    assert_eq!(dropped.count() as u64, COMMITS);
    assert_eq!(fs::read(directory.path().join("store/lock")).unwrap(), b".");
    // whichever of the five came through, each came through whole
    block_on(async {
        let store = open(directory.path()).await.unwrap();
        let Revision(revision) = store.head().revision;
        assert_eq!(store.audit(0, 100).await.unwrap().len() as u64, revision);
        assert_eq!(store.events(Revision(0), 100).await.unwrap().len() as u64, revision);
        store.close().await;
    });
}

#[test]
fn files_that_cannot_be_synced_do_not_open() {
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let refused = open(&directory).await.err().expect("no fsync works here");
            tell(if matches!(refused, OpenError::Unreadable { .. }) { "unreadable" } else { "something else" });
        });
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), 0));
    let traced = Traced::new("files_that_cannot_be_synced_do_not_open", directory.path());
    assert_eq!(traced.run(&["-etrace=write,fsync,fdatasync", "-einject=fsync,fdatasync:error=EIO"]), ["unreadable"]);
}

/// sled takes a read error at open for the end of its log, and overwrites what follows.
#[test]
fn files_that_cannot_be_read_do_not_open_and_stay_as_they_are() {
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let refused = open(&directory).await.err().expect("no read works here");
            tell(if matches!(refused, OpenError::Unreadable { .. }) { "unreadable" } else { "something else" });
        });
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), 10));
    let data = directory.path().join("store/db");
    let before = fs::read(&data).unwrap();
    let traced = Traced::new("files_that_cannot_be_read_do_not_open_and_stay_as_they_are", directory.path());
    let only = format!("-P{}", data.display());
    assert_eq!(traced.run(&["-etrace=read,pread64", &only, "-einject=read,pread64:error=EIO"]), ["unreadable"]);
    assert!(fs::read(&data).unwrap() == before);
}

/// A read error where sled reads at open has to be found before it does; elsewhere it answers whoever reads. So what it
/// reads is read first, and no more, or opening a large store would take as long as reading it.
#[test]
fn what_sled_reads_at_open_is_read_before_it_does() {
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async { open(&directory).await.unwrap().close().await });
    }
    assert!((0..8).any(|_| sleds_reads_are_covered()), "sled's reads were never told from ours");
}

/// False: this run does not tell.
fn sleds_reads_are_covered() -> bool {
    const SEGMENT: u64 = 8 << 20;
    let directory = tempfile::tempdir().unwrap();
    block_on(async {
        commit_and_close(directory.path(), 8_000).await;
        // leaves a snapshot, and then a log that goes on behind it
        open(directory.path()).await.unwrap().close().await;
        let store = open(directory.path()).await.unwrap();
        for number in 8_001..8_010 {
            store.commit(change_set(number)).await.unwrap();
        }
        store.close().await;
    });
    let traced = Traced::new("what_sled_reads_at_open_is_read_before_it_does", directory.path());
    let data = format!("-P{}", directory.path().join("store/db").display());
    traced.run(&["-etrace=pread64", &data]);
    // the thread, the offset and the length of every read; our reads are those of the first thread, until sled's others
    // look for the headers
    let trace = fs::read_to_string(traced.trace()).unwrap();
    let reads: Vec<(&str, u64, u64)> = trace
        .lines()
        .filter_map(|line| {
            let (thread, call) = line.split_once(' ')?;
            let arguments = call.split_once("pread64(")?.1;
            let (arguments, _) = arguments.split_once(')').or_else(|| arguments.split_once(" <unfinished"))?;
            let mut last = arguments.rsplit(", ").map(|argument| argument.parse());
            let (offset, length) = (last.next()?.ok()?, last.next()?.ok()?);
            Some((thread, offset, length))
        })
        .collect();
    let ours = reads.iter().take_while(|(thread, ..)| *thread == reads[0].0).count();
    let (ours, sleds) = reads.split_at(ours);
    let at_open = sleds.iter().filter(|(_, offset, length)| offset % SEGMENT == 0 && [20, SEGMENT].contains(length));
    // Which of its threads sled reads with is chance: when it was the first one, its reads are not told from ours.
    if at_open.clone().count() < 5 || !at_open.clone().any(|(.., length)| *length == SEGMENT) {
        return false;
    }
    for (_, offset, length) in at_open {
        assert!(ours.iter().any(|(_, at, read)| at == offset && read >= length), "{offset} + {length}: {ours:?}");
    }
    let [headers, whole] = [20, SEGMENT].map(|of| ours.iter().filter(|(.., length)| *length == of).count());
    assert!(whole < headers, "{whole} of {headers} segments");
    true
}

/// Acknowledged writes that are not there any more are not passed over: the store stays down rather than go on from an
/// older state.
#[test]
fn a_store_that_lost_durable_writes_stays_unavailable_and_still_closes() {
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let (data, older) = (directory.join("store/db"), directory.join("older"));
            let store = open(&directory).await.unwrap();
            store.commit(change_set(1)).await.unwrap();
            fs::copy(&data, &older).unwrap();
            store.commit(change_set(2)).await.unwrap();
            fs::rename(&older, &data).unwrap();
            let mut head = store.watch_head();
            assert_eq!(store.commit(change_set(3)).await, Err(CommitError::Unavailable));
            head.wait_for(|head| !head.available).await.unwrap();
            assert_eq!(store.commit(change_set(3)).await, Err(CommitError::Unavailable));
            assert!(store.row(key(1)).await.is_err());
            store.close().await;
            tell(if head.has_changed().is_ok_and(|changed| changed) { "changed" } else { "closed" });
        });
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), 0));
    let test = "a_store_that_lost_durable_writes_stays_unavailable_and_still_closes";
    let traced = Traced::new(test, directory.path());
    let told = traced.run(&["-etrace=write,fdatasync", "-einject=fdatasync:error=EIO:when=3"]);
    assert_eq!(told, ["closed"]);
}

/// One read of the file fails, long after the opening: the 700th of the thread that reads, while opening twice
/// takes some 600 of another. Whoever it hits is told so, the handle is replaced, and then it is all there.
#[test]
fn a_read_that_fails_is_unavailable_and_the_store_comes_back() {
    const ROWS: u64 = 4_000;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let store = open_with(&directory, 1 << 20, 0).await.unwrap();
            let mut numbers = 1..=ROWS;
            let hit = loop {
                let number = numbers.next().expect("a read fails before all have been read");
                match store.row(key(number)).await {
                    Ok(row) => assert_eq!(row.expect("every row is there").revision, Revision(number)),
                    Err(error) => break (number, error),
                }
            };
            assert_eq!(hit.1, StoreError::Unavailable);
            store.watch_head().wait_for(|head| head.available).await.unwrap();
            for number in iter::once(hit.0).chain(1..=ROWS) {
                let row = store.row(key(number)).await.unwrap().expect("every row is there");
                assert_eq!(row.revision, Revision(number));
            }
            tell("failed and came back");
            store.close().await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), ROWS));
    let traced = Traced::new("a_read_that_fails_is_unavailable_and_the_store_comes_back", directory.path());
    let data = format!("-P{}", directory.path().join("store/db").display());
    let told = traced.run(&["-etrace=pread64", &data, "-einject=pread64:error=EIO:when=700"]);
    assert_eq!(told, ["failed and came back"]);
}

/// The fdatasync takes its time here, and readers ask all the while.
#[test]
fn nobody_reads_what_is_not_durable() {
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let store = open_with(&directory, 16 << 20, 0).await.unwrap();
            tell("opened");
            let mut commit = store.commit(change_set(1));
            assert!(poll_once(&mut commit).is_none());
            while store.row(key(1)).await.unwrap().is_none()
                && store.events(Revision(0), 1).await.unwrap().is_empty()
                && store.audit(0, 1).await.unwrap().is_empty()
                && store.head().revision == Revision(0)
            {}
            tell("seen");
            commit.await.unwrap();
            store.close().await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    block_on(commit_and_close(directory.path(), 0));
    let traced = Traced::new("nobody_reads_what_is_not_durable", directory.path());
    let told = traced.run(&["-etrace=write,fdatasync", "-einject=fdatasync:delay_enter=300000"]);
    assert_eq!(told, ["opened", "seen"]);
    let seen = |call: &Call| *call != Call::Told("seen".to_owned());
    assert!(calls(&traced).into_iter().take_while(seen).any(|call| call == Call::Synced));
}

#[test]
fn waiting_change_sets_share_one_fdatasync() {
    const COMMITS: u64 = 64;
    if !there_is("strace") {
        return;
    }
    if let Some(directory) = told_directory() {
        return block_on(async {
            let store = open(&directory).await.unwrap();
            tell("opened");
            let mut commits: Vec<_> = (1..=COMMITS).map(|number| store.commit(change_set(number))).collect();
            // all are waiting before the first is asked for its answer
            let answers: Vec<_> = commits.iter_mut().map(poll_once).collect();
            for (commit, answer) in commits.into_iter().zip(answers) {
                match answer {
                    Some(answer) => answer.unwrap(),
                    None => commit.await.unwrap(),
                };
            }
            tell("committed");
            store.close().await;
        });
    }
    let directory = tempfile::tempdir().unwrap();
    let traced = Traced::new("waiting_change_sets_share_one_fdatasync", directory.path());
    assert_eq!(traced.run(&["-etrace=fdatasync,write"]), ["opened", "committed"]);
    let calls = calls(&traced).into_iter().skip_while(|call| *call != Call::Told("opened".to_owned()));
    let syncs = calls.filter(|call| *call == Call::Synced).count() as u64;
    assert!((1..=COMMITS / 4).contains(&syncs), "{syncs} for {COMMITS} change sets");
}

#[test]
fn an_acknowledged_change_set_survives_kill_9() {
    if let Some(directory) = told_directory() {
        return commit_and_tell(&directory, u64::MAX);
    }
    let directory = tempfile::tempdir().unwrap();
    let mut durable = 0;
    for round in 1..=20 {
        let mut child =
            this_test("an_acknowledged_change_set_survives_kill_9", directory.path(), Command::new(myself()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let told = lines.filter_map(|line| Some(line.split_once("acknowledged ")?.1.parse().unwrap()));
        let acknowledged: u64 = told.take(round).last().expect("the child commits");
        child.kill().unwrap();
        child.wait().unwrap();

        assert!(acknowledged >= durable + round as u64);
        block_on(async {
            let store = open(directory.path()).await.unwrap();
            let Revision(revision) = store.head().revision;
            assert!(revision >= acknowledged, "{acknowledged} was acknowledged, the log ends at {revision}");
            for number in 1..=revision {
                let row = store.row(key(number)).await.unwrap().expect("every change set left its row");
                assert_eq!(row.revision, Revision(number));
            }
            assert_eq!(store.audit(0, usize::MAX).await.unwrap().len() as u64, revision);
            durable = revision;
            store.close().await;
        });
    }
}

/// The child's part: commits one change set after the other, and writes a line after each answer.
fn commit_and_tell(directory: &Path, commits: u64) {
    block_on(async {
        let store = open(directory).await.unwrap();
        let mut head = store.watch_head();
        tell("opened");
        for _ in 0..commits {
            let number = store.head().revision.0 + 1;
            match store.commit(change_set(number)).await {
                Ok(_) => tell(&format!("acknowledged {number}")),
                Err(CommitError::Unavailable) => {
                    tell("unavailable");
                    // it went down before it answered, and may be up again by now
                    if head.has_changed().unwrap() {
                        tell("down");
                    }
                    head.wait_for(|head| head.available).await.unwrap();
                    tell("up");
                }
                Err(error) => panic!("{error}"),
            }
        }
        store.close().await;
    });
}

/// What a trace shows, of the data file and of the child's words.
#[derive(Debug, PartialEq)]
enum Call {
    Wrote,
    Flushed,
    SyncBegun,
    Synced,
    Told(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Progress {
    Nothing,
    Written,
    Flushed,
    Syncing,
    Synced,
}

/// The trace in order. A call that others interrupt stands on two lines, its beginning and its end.
fn calls(traced: &Traced) -> Vec<Call> {
    let trace = fs::read_to_string(traced.trace()).unwrap();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let call = line.trim_start_matches(|char: char| char.is_ascii_digit() || char == ' ');
        let ours = call.contains("/store/db>") || call.starts_with("<... ");
        let ended = !call.ends_with("<unfinished ...>");
        let succeeded = call.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
        let named = |name: &str| {
            ours && (call.starts_with(&format!("{name}(")) || call.starts_with(&format!("<... {name} resumed")))
        };
        if let Some(told) = call.split_once(WORD).filter(|_| call.starts_with("write(1")) {
            calls.push(Call::Told(told.1.split("\\n").next().unwrap().to_owned()));
        } else if named("fdatasync") {
            if !call.starts_with('<') {
                calls.push(Call::SyncBegun);
            }
            if ended && succeeded {
                calls.push(Call::Synced);
            }
        } else if named("pwrite64") && ended && succeeded {
            calls.push(Call::Wrote);
        } else if named("sync_file_range") && ended && succeeded {
            calls.push(Call::Flushed);
        }
    }
    calls
}
