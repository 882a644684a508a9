//! The hub: nobody misses a revision of their own, nobody hears one twice, and nobody is woken by another's.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use claviger::{
    audit::Chain,
    domain::{EntryId, EventKind, InstallationId, Revision, SubjectId},
    events::{Hub, Listener, LoggedRevision, Read, Wire},
    grpc::WIRE,
    sealing::{AuditKey, Random},
    store::Store,
    vault::Vault,
};
use futures_util::poll;
use proptest::prelude::*;
use support::{
    clock::ManualClock,
    memory_store::MemoryStore,
    slow_log::SlowLog,
    specimens::{acme, alice, bob, connection, event, root},
};
use tokio_util::sync::CancellationToken;

#[expect(dead_code, reason = "shared with other tests")]
mod support {
    pub(crate) mod clock;
    pub(crate) mod memory_store;
    pub(crate) mod slow_log;
    pub(crate) mod specimens;
}

/// More than a listener keeps, and less than the hub does.
const MANY: u64 = 100;
/// As long as an event can be: a row of the store.
const LONG: usize = 64 << 10;
/// 512 KiB, and a revision.
const MOST_AT_ONCE: usize = 9 * LONG;

struct Log {
    clock: ManualClock,
    store: Arc<SlowLog>,
    vault: Vault,
    hub: Hub,
    stopping: CancellationToken,
    /// Alice's revisions.
    hers: Vec<Revision>,
}

impl Log {
    async fn new() -> Self {
        Self::written(WIRE).await
    }

    async fn written(wire: Wire) -> Self {
        let audit_key = AuditKey::default();
        let (installation, epoch) = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
        let store = Arc::new(MemoryStore::new(installation, epoch, Box::new(Chain::new(audit_key.clone()))));
        let (clock, store) = (ManualClock::new(), Arc::new(SlowLog::over(store)));
        let vault =
            Vault::open(Arc::clone(&store) as Arc<dyn Store>, root(1), Random::system(), &audit_key).await.unwrap();
        let hub = Hub::new(vault.clone(), wire, Arc::new(clock.clone()));
        let stopping = CancellationToken::new();
        tokio::spawn(hub.clone().run(stopping.clone()));
        Self { clock, store, vault, hub, stopping, hers: Vec::new() }
    }

    async fn write(&mut self, subject: SubjectId) {
        let mut about = connection(1);
        about.subject = subject;
        let mut change = self.vault.change(&acme(), Some(subject)).await.unwrap();
        change.event(&event(&about, EventKind::Refreshed));
        let revision = change.commit().await.unwrap().revision;
        if subject == alice() {
            self.hers.push(revision);
        }
    }

    fn listener(&self) -> Listener {
        self.hub.listen(acme(), alice())
    }

    async fn is_announced(&self) {
        let head = self.hub.head().revision;
        let mut announced = self.hub.subscribe();
        let reached = announced.wait_for(|announced| *announced >= head);
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the hub stands still").unwrap();
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// What a subscriber knows.
struct Reader {
    listener: Listener,
    cursor: Revision,
    heard: Vec<Revision>,
}

impl Reader {
    fn of(log: &Log) -> Self {
        let listener = log.listener();
        Self { cursor: log.hub.announced(), listener, heard: Vec::new() }
    }

    async fn read(&mut self) {
        self.take().await;
    }

    async fn take(&mut self) -> Vec<Arc<LoggedRevision>> {
        let Read::Revisions { revisions, complete } = self.listener.after(self.cursor).await.unwrap() else {
            panic!("nothing was compacted");
        };
        let hers = revisions.iter().filter(|logged| logged.events[0].status.subject == alice());
        self.heard.extend(hers.map(|logged| logged.revision));
        assert!(self.cursor <= complete && revisions.iter().all(|logged| logged.revision <= complete));
        self.cursor = complete;
        revisions
    }

    /// Until everything is read: what is still in memory when it is let go of.
    async fn take_all(&mut self, log: &Log) -> Vec<Weak<LoggedRevision>> {
        let mut taken = Vec::new();
        while self.cursor < log.hub.announced() {
            let revisions = self.take().await;
            let bytes: usize = revisions.iter().flat_map(|logged| &logged.events).map(|event| event.wire.len()).sum();
            assert!(bytes <= MOST_AT_ONCE, "{bytes} at once");
            taken.extend(revisions.iter().map(Arc::downgrade));
        }
        taken
    }
}

#[tokio::test]
async fn nobody_is_woken_by_anothers_events() {
    let mut log = Log::new().await;
    let mut reader = Reader::of(&log);
    reader.read().await;
    log.write(bob()).await;
    log.is_announced().await;
    assert!(poll!(pin!(reader.listener.rung())).is_pending());
    log.write(alice()).await;
    log.is_announced().await;
    assert!(poll!(pin!(reader.listener.rung())).is_ready());
    reader.read().await;
    assert_eq!(reader.heard, log.hers);
}

#[tokio::test]
async fn what_was_left_unread_is_read_from_the_log() {
    let mut log = Log::new().await;
    let mut reader = Reader::of(&log);
    reader.read().await;
    for _ in 0..MANY {
        log.write(alice()).await;
    }
    log.is_announced().await;
    assert!(poll!(pin!(reader.listener.rung())).is_ready());
    while reader.cursor < log.hub.announced() {
        reader.read().await;
    }
    assert!(poll!(pin!(reader.listener.rung())).is_pending(), "it has been told of all of them");
    log.write(alice()).await;
    log.is_announced().await;
    assert!(poll!(pin!(reader.listener.rung())).is_ready(), "it is told again once it has caught up");
    reader.read().await;
    assert_eq!(reader.heard, log.hers);
}

#[tokio::test]
async fn the_longest_events_fill_no_more_memory_than_short_ones() {
    let mut log = Log::written(Wire { event: |_| vec![0; LONG], ..WIRE }).await;
    let (mut reader, mut idle) = (Reader::of(&log), Reader::of(&log));
    idle.read().await;
    for _ in 0..30 {
        log.write(alice()).await;
    }
    log.is_announced().await;
    let mut taken = reader.take_all(&log).await;
    let mut reader = Reader { listener: log.hub.listen(acme(), bob()), ..reader };
    for _ in 0..300 {
        log.write(bob()).await;
        log.is_announced().await;
        taken.extend(reader.take_all(&log).await);
    }
    assert_eq!(taken.len(), 330);
    let kept = |revisions: &[Weak<LoggedRevision>]| revisions.iter().filter(|one| one.strong_count() > 0).count();
    assert!(kept(&taken[..30]) <= 2, "the one who does not read holds {}", kept(&taken[..30]));
    assert!(kept(&taken) <= 258, "{} are in memory", kept(&taken));
    idle.take_all(&log).await;
    assert_eq!(idle.heard, log.hers);
}

#[tokio::test]
async fn what_could_not_be_read_is_announced_without_another_change() {
    let mut log = Log::new().await;
    log.store.fail(true);
    log.write(alice()).await;
    let again_at = ManualClock::START.plus(Duration::from_secs(1));
    let tries = log.clock.someone_sleeps_until(again_at);
    tokio::time::timeout(Duration::from_secs(20), tries).await.expect("it does not try again");
    log.store.fail(false);
    log.clock.advance(Duration::from_secs(1));
    log.is_announced().await;
}

/// With a log that is longer than what is kept in memory.
async fn long_log() -> Log {
    let mut log = Log::written(Wire { event: |_| vec![0; LONG], ..WIRE }).await;
    for number in 0..400 {
        log.write(if number < 150 { alice() } else { bob() }).await;
    }
    log.is_announced().await;
    log
}

#[tokio::test]
async fn whoever_does_not_wait_for_what_they_asked_for_keeps_nobody_from_the_log() {
    let log = long_log().await;
    let owner = (acme(), alice());
    let mut asked: Vec<_> = (0..70).map(|_| Box::pin(log.hub.after(&owner, Revision(0)))).collect();
    for asked in &mut asked {
        assert!(poll!(asked).is_pending(), "it is not in memory");
    }
    let mut reader = Reader { cursor: Revision(0), ..Reader::of(&log) };
    let all = async {
        while reader.cursor < log.hub.announced() {
            reader.read().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("somebody who is not there has its turn");
    assert_eq!(reader.heard, log.hers);
}

#[tokio::test]
async fn those_who_catch_up_share_what_is_read() {
    let log = long_log().await;
    let read = async |owner, cursor| match log.hub.after(&(acme(), owner), cursor).await.unwrap() {
        Read::Revisions { revisions, .. } => revisions,
        Read::Compacted(_) => panic!("nothing was compacted"),
    };
    let first = read(alice(), Revision(0)).await;
    let (again, other) = (read(alice(), Revision(0)).await, read(bob(), first[1].revision).await);
    assert!(first.iter().zip(&again).all(|(one, other)| Arc::ptr_eq(one, other)));
    assert!(first[2..].iter().zip(&other).all(|(one, other)| Arc::ptr_eq(one, other)));
}

#[tokio::test]
async fn a_hub_begins_with_the_newest_events_in_memory() {
    let log = long_log().await;
    let begun = Hub::new(log.vault.clone(), WIRE, Arc::new(log.clock.clone()));
    begun.recall().await;
    log.store.fail(true);
    let mut heard = Vec::new();
    let mut cursor = Revision(0);
    while cursor < begun.announced() {
        let Read::Revisions { revisions, complete } = begun.after(&(acme(), alice()), cursor).await.unwrap() else {
            panic!("nothing was compacted");
        };
        heard.extend(
            revisions.iter().filter(|logged| logged.events[0].status.subject == alice()).map(|logged| logged.revision),
        );
        cursor = complete;
    }
    assert_eq!(heard, log.hers, "short ones are all kept");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Alice,
    Bob,
    /// Others run, the hub among them.
    Yield,
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![6 => Just(Step::Alice), 2 => Just(Step::Bob), 3 => Just(Step::Yield), 1 => Just(Step::Read)];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whenever_one_reads_every_revision_is_heard_once_and_in_order(steps in steps(), joins in 0..40usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut log = Log::new().await;
            let mut reader = None;
            let mut before = 0;
            for (number, step) in steps.into_iter().enumerate() {
                if number == joins {
                    // From a position that it has kept.
                    before = log.hers.len() / 2;
                    let cursor = before.checked_sub(1).map_or(Revision(0), |last| log.hers[last]);
                    reader = Some(Reader { cursor, ..Reader::of(&log) });
                }
                match (step, &mut reader) {
                    (Step::Alice, _) => log.write(alice()).await,
                    (Step::Bob, _) => log.write(bob()).await,
                    (Step::Yield, _) | (Step::Read, None) => tokio::task::yield_now().await,
                    (Step::Read, Some(reader)) => reader.read().await,
                }
            }
            let Some(mut reader) = reader else { return };
            // Woken for everything that is still to come, without a look at the clock.
            while reader.heard.len() < log.hers.len() - before {
                let seen = reader.cursor;
                reader.read().await;
                if reader.cursor == seen && reader.heard.len() < log.hers.len() - before {
                    let rung = reader.listener.rung();
                    tokio::time::timeout(Duration::from_secs(20), rung).await.expect("it is not woken");
                }
            }
            assert_eq!(reader.heard, log.hers[before..]);
        });
    }
}
