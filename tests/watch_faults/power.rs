//! Power loss (fault test 2): of the data file only what an fdatasync covered is left. What a watcher had heard by then,
//! and what was acknowledged, is in it.

use std::{fs, path::Path};

use rustix::process::Signal;

use tempfile::TempDir;

use crate::{
    clients::{Watchers, from_snapshot},
    disk::{self, Disk},
    event_log,
    place::{Broker, Place, ask_for_a_new_one, kill_traced},
    tools::there_is,
    watch_validator::{History, assert_valid},
};

const EVENTS: usize = 8;
/// How late a sync is, in microseconds: whoever publishes without waiting for it is early by so much.
const LATE: &str = "inject=fdatasync:delay_enter=50000";

/// strace tells of a call before it goes on, so that what was heard came after everything that stands in the trace by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_heard_is_in_what_was_synced() {
    if !there_is("strace") {
        return;
    }
    let place = Place::new("").await;
    let broker = place.serve();
    let alice = place.person("alice", &broker.connect()).await;
    alice.connect(&alice.client(broker.grpc)).await;
    broker.process.stop(Signal::KILL);
    // Apart from what is searched for secrets: a trace of sealed bytes is long, and nothing that the product emits.
    let apart = TempDir::with_prefix("claviger-watch-faults-").unwrap();
    let before = apart.path().join("before");
    disk::image(&place.path("store"), &[], &before);

    let trace = apart.path().join("trace");
    let mut options = disk::STRACE.to_vec();
    options.extend(["--seccomp-bpf", "-etrace=pwrite64,fdatasync,fsync", "-e", LATE, "-o", trace.to_str().unwrap()]);
    let broker = Broker::that_runs(place.traced(&options));
    let client = alice.client(broker.grpc);
    let mut watchers = Watchers::default();
    watchers.add(client.clone(), &alice.subject, from_snapshot());
    watchers.until("synced", |standing| standing.synced).await;
    // How long the trace was when so much had been heard.
    let mut heard: Vec<(usize, Vec<History>)> = Vec::new();
    for _ in 0..EVENTS {
        let generation = watchers.generation() + 1;
        let call = tokio::spawn({
            let client = client.clone();
            async move { client.get_plugin_token(ask_for_a_new_one()).await.map(drop) }
        });
        watchers.until("told", |standing| standing.generation == generation).await;
        heard.push((length(&trace), watchers.record.histories()));
        call.await.unwrap().unwrap();
    }
    kill_traced(&broker.process);
    tokio::task::spawn_blocking(|| broker.process.finish()).await.unwrap();

    let trace = fs::read_to_string(trace).unwrap();
    for (length, histories) in heard {
        let mut disk = Disk::default();
        trace[..length].lines().for_each(|line| disk.see(line));
        let synced = disk.synced();
        let image = tempfile::tempdir_in(apart.path()).unwrap();
        disk::image(&before, &disk.into_writes()[..synced], &image.path().join("store"));
        let vault = Place::open(&image.path().join("store"), &place.path("root.key")).await;
        let log = event_log::read(&vault).await;
        vault.store().close().await;
        assert_valid(&log, &histories);
    }
}

/// Up to the end of its last whole line.
fn length(trace: &Path) -> usize {
    fs::read(trace).unwrap().iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}
