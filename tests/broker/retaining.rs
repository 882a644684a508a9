//! How long what is logged is kept, and what is left of what was not.

use std::{pin::pin, sync::Arc, time::Duration};

use claviger::{
    audit::{self, Break, TrailError, check},
    broker::{Broker, BrokerError, Delivery, OnLost, ResyncReason, Start, Watch, WatchFilter, WatchMessage},
    domain::{
        AuditAction, AuditRecord, Clock, ConnectionId, CredentialEvent, CredentialId, CredentialState,
        CredentialStatus, EventKind, Revision, ScopeSet, Timestamp,
    },
    store::Store,
    vault::Vault,
};
use tokio_stream::StreamExt as _;

use crate::{
    installation::{FullStore, Installation, call},
    support::records::Records,
    world::World,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTES: Duration = Duration::from_secs(600);

/// A broker, and a vault through which its logs are filled without it.
struct Kept {
    installation: Installation,
    broker: Broker,
    store: Arc<FullStore>,
    vault: Vault,
}

impl Kept {
    async fn over(installation: Installation) -> Self {
        let (broker, store) = installation.start().await;
        let vault = installation.vault(Arc::clone(&store) as Arc<dyn Store>).await;
        Self { installation, broker, store, vault }
    }

    async fn new() -> Self {
        Self::over(Installation::new().await).await
    }

    fn now(&self) -> Timestamp {
        self.installation.world.clock.now()
    }

    fn later(&self, by: Duration) {
        self.installation.world.clock.advance(by);
    }

    /// As many change sets of one event each.
    async fn events(&self, count: usize, at: Timestamp) -> Revision {
        let mut revision = Revision(0);
        for _ in 0..count {
            let mut change = self.vault.change(&"acme".parse().unwrap(), None).await.unwrap();
            change.event(&event(at));
            revision = change.commit().await.unwrap().revision;
        }
        revision
    }

    /// As many records in change sets of ten.
    async fn records(&self, count: usize) {
        for _ in 0..count / 10 {
            let mut change = self.vault.change(&"acme".parse().unwrap(), None).await.unwrap();
            (0..10).for_each(|_| change.audit(&record(self.now())));
            change.commit().await.unwrap();
        }
    }

    async fn event_revisions(&self) -> Vec<Revision> {
        self.vault.events(Revision(0), usize::MAX).await.unwrap().into_iter().map(|(revision, _)| revision).collect()
    }

    /// The checkpoints that are left, and what they say was removed.
    async fn checkpoints(&self) -> Vec<(u64, u64)> {
        let trail = self.vault.audit(0, usize::MAX).await.unwrap();
        let purged = trail.iter().filter(|(_, record)| record.action == AuditAction::AuditPurged);
        purged.map(|(sequence, record)| (*sequence, record.purged.unwrap().sequence)).collect()
    }
}

#[tokio::test]
async fn events_go_when_their_retention_is_over_and_not_before() {
    let kept = Kept::new().await;
    let old = kept.events(3, kept.now()).await;
    kept.later(DAY / 2);
    let young = kept.events(1, kept.now()).await;
    kept.later(DAY / 2);
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.event_revisions().await.len(), 4);
    kept.later(Duration::from_millis(1));
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.event_revisions().await, [young]);
    assert_eq!(kept.store.head().compacted, old);
}

#[tokio::test]
async fn many_events_go_in_small_change_sets() {
    let kept = Kept::new().await;
    let last = kept.events(1200, kept.now()).await;
    kept.later(2 * DAY);
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.event_revisions().await, []);
    assert_eq!(kept.store.head().compacted, last);
    assert_eq!(kept.store.head().revision.0, last.0 + 3);
}

#[tokio::test]
async fn an_event_that_follows_a_younger_one_waits_for_it() {
    let kept = Kept::new().await;
    let young = kept.events(1, kept.now()).await;
    let old = kept.events(1, kept.now().minus(DAY)).await;
    kept.later(DAY);
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.event_revisions().await, [young, old]);
    kept.later(Duration::from_millis(1));
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.event_revisions().await, []);
}

#[tokio::test]
async fn events_of_too_many_revisions_ago_go_before_their_time() {
    let mut installation = Installation::new().await;
    installation.retention.most_revisions = 10;
    let kept = Kept::over(installation).await;
    let last = kept.events(40, kept.now()).await;
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.store.head().compacted, Revision(last.0 - 10));
    assert_eq!(kept.event_revisions().await.len(), 10);
}

#[tokio::test]
async fn a_position_from_before_what_is_kept_is_lost_and_said_to_be() {
    let kept = Kept::new().await;
    let watch = |start, on_lost| Watch {
        filter: WatchFilter::default(),
        start,
        on_lost,
        delivery: Delivery::EveryEvent,
        progress_interval: None,
        connection: None,
    };
    let first = kept.broker.watch(&call(1), watch(Start::Now, OnLost::Fail)).await.unwrap();
    let Some(Ok(WatchMessage::Opened { token, .. })) = pin!(first).next().await else { panic!("it opens") };
    let last = kept.events(2, kept.now()).await;
    kept.later(2 * DAY);
    kept.broker.retain().await.unwrap();

    let resumed = kept.broker.watch(&call(1), watch(Start::Resume(token.clone()), OnLost::Fail)).await;
    assert!(matches!(resumed.err(), Some(BrokerError::RevisionCompacted { compacted, .. }) if compacted == last));
    let resumed = kept.broker.watch(&call(1), watch(Start::Resume(token), OnLost::Resync)).await.unwrap();
    let mut resumed = pin!(resumed);
    assert!(matches!(resumed.next().await, Some(Ok(WatchMessage::Opened { .. }))));
    let lost = WatchMessage::Resync { reason: ResyncReason::Compacted };
    assert!(resumed.next().await.is_some_and(|message| message.is_ok_and(|message| message == lost)));
}

#[tokio::test]
async fn a_chain_whose_old_records_are_gone_is_checked_from_its_checkpoint() {
    let kept = Kept::new().await;
    kept.records(1200).await;
    kept.later(400 * DAY);
    kept.records(10).await;
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.store.head().audit_purged, 0, "a checkpoint is made once a day");
    kept.later(DAY + Duration::from_millis(1));
    kept.broker.retain().await.unwrap();

    // the newest of the old records goes with the last of three batches
    assert_eq!(kept.checkpoints().await, [(1211, 512), (1212, 1024), (1213, 1200)]);
    assert_eq!(kept.store.head().audit_purged, 1200);
    let end = audit::verify(&kept.vault).await.unwrap().unwrap();
    assert_eq!(end.sequence, kept.store.head().audit);
    // from its beginning it holds no more
    let entries = kept.store.audit(0, usize::MAX).await.unwrap();
    let linked = entries.iter().map(|entry| &entry.linked[..]);
    assert_eq!(check(kept.vault.keys().audit(), None, linked), Err(Break::Missing { sequence: 1 }));

    kept.broker.retain().await.unwrap();
    assert_eq!(kept.checkpoints().await.len(), 3, "nothing is left to remove");
}

#[tokio::test]
async fn a_trail_without_anything_old_begins_at_its_first_record() {
    let kept = Kept::new().await;
    assert_eq!(audit::verify(&kept.vault).await.unwrap(), None);
    kept.records(20).await;
    assert_eq!(audit::beginning(&kept.vault).await.unwrap(), None);
    assert_eq!(audit::verify(&kept.vault).await.unwrap().unwrap().sequence, 20);
}

#[tokio::test]
async fn a_record_that_was_changed_is_named_and_retention_leaves_it() {
    let kept = Kept::new().await;
    kept.records(20).await;
    kept.store.spoil_audit(7);
    kept.later(500 * DAY);
    kept.broker.retain().await.unwrap();
    assert_eq!(kept.store.head().audit_purged, 0);
    let broken = audit::verify(&kept.vault).await;
    assert!(matches!(broken, Err(TrailError::Broken(Break::Altered { sequence: 7 }))));
}

#[tokio::test]
async fn a_checkpoint_that_was_changed_is_no_beginning() {
    let kept = Kept::new().await;
    kept.records(20).await;
    kept.later(500 * DAY);
    kept.broker.retain().await.unwrap();
    let [(checkpoint, 20)] = kept.checkpoints().await[..] else { panic!("all of them are gone") };
    audit::verify(&kept.vault).await.unwrap();
    kept.store.spoil_audit(checkpoint);
    assert!(matches!(audit::verify(&kept.vault).await, Err(TrailError::NoCheckpoint { purged: 20 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_broker_removes_what_is_old_by_itself() {
    let mut world = World::start().await;
    world.connect(&world.client("alice"), "alice").await;
    let looked_again = |world: &World| world.now().plus(MINUTES);
    world.clock.someone_sleeps_until(looked_again(&world)).await;
    world.clock.advance(2 * DAY);
    world.clock.someone_sleeps_until(looked_again(&world)).await;
    world.stop().await;
    let records = Records::open(&world).await;
    assert!(records.store.head().compacted > Revision(0));
    records.close().await;
}

fn event(at: Timestamp) -> CredentialEvent {
    let status = CredentialStatus {
        credential: CredentialId::from_bytes([1; 16]),
        connection: ConnectionId::from_bytes([1; 16]),
        subject: call(1).caller.subject,
        agent: None,
        provider: "dev".parse().unwrap(),
        state: CredentialState::Connected,
        generation: 1,
        scopes: ScopeSet::default(),
        expires_at: None,
        reason: None,
        authorization_ends_at: None,
    };
    CredentialEvent { kind: EventKind::Refreshed, tenant: "acme".parse().unwrap(), occurred_at: at, status }
}

fn record(at: Timestamp) -> AuditRecord {
    AuditRecord::by_broker("acme".parse().unwrap(), AuditAction::ConnectionsRead, at)
}
