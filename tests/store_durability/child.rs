//! Tests that run themselves again as a child, under a program that makes system calls fail, and a store for them.

use std::{
    future::Future,
    io::Write as _,
    path::{Path, PathBuf},
    pin::pin,
    process::Command,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use claviger::{
    domain::{AuditLinker, EntryId, InstallationId, Sealed},
    store::{
        ChangeSet, Expect, FieldTag, NewEntry, RecordKey, RecordKind, Store, Write,
        sled::{OpenError, SledOptions, SledStore},
    },
};

/// One test as a child under strace.
pub(crate) struct Traced {
    test: &'static str,
    directory: PathBuf,
}

impl Traced {
    pub(crate) fn new(test: &'static str, directory: &Path) -> Self {
        Self { test, directory: directory.to_owned() }
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.directory.join("trace")
    }

    /// Runs the child to its end and returns what it told.
    pub(crate) fn run(&self, options: &[&str]) -> Vec<String> {
        let output = self.command(options).output().expect(STRACE);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));
        told(output.stdout)
    }

    /// Runs the child to its end, which may be a violent one: what it told, and whether it ended by itself.
    pub(crate) fn run_or_die(&self, options: &[&str]) -> (Vec<String>, bool) {
        let output = self.command(options).output().expect(STRACE);
        (told(output.stdout), output.status.success())
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-o"]).arg(self.trace()).args(options).arg(myself());
        this_test(self.test, &self.directory, strace)
    }
}

/// The words of a child, from its output.
pub(crate) fn told(output: Vec<u8>) -> Vec<String> {
    let lines = String::from_utf8(output).unwrap();
    lines.lines().filter_map(|line| line.split_once(WORD)).map(|(_, word)| word.to_owned()).collect()
}

pub(crate) fn this_test(test: &str, directory: &Path, mut command: Command) -> Command {
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(DIRECTORY, directory);
    command
}

pub(crate) fn myself() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Only in the child: the directory to work in.
#[expect(clippy::disallowed_methods, reason = "libtest leaves a child no other way to be told something")]
pub(crate) fn told_directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Whether this machine lets the test do what the command does. Where it does not, the test fails under `make test`, and
/// says on its own that it was left out.
#[expect(clippy::disallowed_methods, reason = "`make test` tells the tests by this variable")]
pub(crate) fn can_run(what: &str, command: &mut Command) -> bool {
    let ran = command.output().is_ok_and(|output| output.status.success());
    assert!(ran || std::env::var_os("CLAVIGER_TOOLS").is_none(), "this machine does not allow {what}");
    if !ran {
        eprintln!("left out: this machine does not allow {what}");
    }
    ran
}

pub(crate) fn tell(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{WORD}{word}").unwrap();
    out.flush().unwrap();
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONGEST, future).await }).expect("two minutes are enough")
}

pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

pub(crate) async fn commit_and_close(directory: &Path, commits: u64) {
    let store = open(directory).await.unwrap();
    let mut started: Vec<_> = (1..=commits).map(|number| store.commit(change_set(number))).collect();
    let answers: Vec<_> = started.iter_mut().map(poll_once).collect();
    for (commit, answer) in started.into_iter().zip(answers) {
        match answer {
            Some(answer) => answer.unwrap(),
            None => commit.await.unwrap(),
        };
    }
    store.close().await;
}

/// One row, one event and one audit record, all new.
pub(crate) fn change_set(number: u64) -> ChangeSet {
    let body = Sealed::from_bytes(Bytes::from(vec![number as u8; 2_000]));
    let entry =
        || NewEntry { id: EntryId::from_bytes([1; 16]), body: Sealed::from_bytes(Bytes::from_static(b"entry")) };
    ChangeSet {
        writes: vec![Write::put(key(number), Expect::Absent, vec![(FieldTag::Record, body)], Vec::new())],
        events: vec![entry()],
        audit: vec![entry()],
        ..ChangeSet::default()
    }
}

pub(crate) fn key(number: u64) -> RecordKey {
    RecordKey::new(RecordKind::Connection, [number.to_be_bytes(); 2].concat())
}

pub(crate) async fn open(directory: &Path) -> Result<SledStore, OpenError> {
    open_with(directory, 16 << 20, 1 << 20).await
}

pub(crate) async fn open_with(directory: &Path, page_cache: u64, row_cache: u64) -> Result<SledStore, OpenError> {
    let options = SledOptions {
        directory: directory.join("store"),
        page_cache,
        row_cache,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    };
    SledStore::open(options, Box::new(Unlinked)).await
}

struct Unlinked;

impl AuditLinker for Unlinked {
    fn link(&self, _: u64, _: Option<&[u8]>, body: &Sealed) -> Vec<u8> {
        body.as_bytes().to_vec()
    }
}

const DIRECTORY: &str = "CLAVIGER_TEST_STORE_DIRECTORY";
/// Tells the child's words from those of the test harness.
pub(crate) const WORD: &str = "child: ";
const STRACE: &str = "strace runs (apt-get install strace; a container needs CAP_SYS_PTRACE)";
const LONGEST: Duration = Duration::from_secs(120);
