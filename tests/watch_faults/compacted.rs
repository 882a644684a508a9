//! kill -9 in the middle of a compaction (fault test 1), between its commits: what is gone is gone for
//! everybody, and whoever was behind it is told.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use claviger::{
    app::SystemClock,
    domain::{
        AccessToken, Clock as _, Connection, ConnectionId, Consent, Credential, CredentialEvent, CredentialId,
        CredentialStatus, EventKind, Granted, ScopeSet, SubjectId, TenantId, Timestamp,
    },
    proto::v1::{OnLost, WatchCredentialStatusRequest as Request, watch_credential_status_response::Body},
    vault::{TokenSet, Vault},
};
use rustix::process::Signal;

use crate::{
    clients::{Watchers, from_snapshot},
    place::{Broker, Place, ask_for_a_new_one, kill_traced, revoke_all},
    process::Process,
    relay::Relay,
    tools::there_is,
    watch_validator::assert_valid,
};

const WATCHERS: usize = 5;
/// Of one revision. A compaction removes 512 in one change set.
const EVENTS: u32 = 64;
/// After so many commits of a life. There is more to compact than all of them.
const KILLS: [usize; 2] = [2, 3];
const SLOWLY: &str = "inject=fdatasync:delay_exit=400000";
/// Of the past, before the watchers come and after it.
const REVISIONS: u32 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_compaction_leaves_nobody_in_the_dark() {
    if !there_is("strace") {
        return;
    }
    let place = Place::new("watch = { streams_per_principal = 1000 }\nevents = { retention = \"1m\" }").await;
    let keeping = || Broker::that_runs(Process::spawn(place.command().env("CLAVIGER__EVENTS__RETENTION", "365d")));
    let broker = keeping();
    let alice = place.person("alice", &broker.connect()).await;
    broker.process.stop(Signal::KILL);
    let vault = place.vault().await;
    let (tenant, subject): (TenantId, SubjectId) = ("acme".parse().unwrap(), alice.subject.parse().unwrap());
    let mut past = Past::begin(&vault, &tenant, subject).await;
    past.go_on(&vault, REVISIONS).await;
    vault.store().close().await;

    let broker = keeping();
    let way = Relay::to(broker.grpc).await;
    let (mut watchers, client) = (Watchers::default(), alice.client(way.address));
    for _ in 0..WATCHERS {
        watchers.add(client.clone(), &alice.subject, Request { on_lost: OnLost::Resync.into(), ..from_snapshot() });
    }
    watchers.until("synced", |standing| standing.synced).await;
    broker.process.stop(Signal::KILL);
    let vault = place.vault().await;
    past.go_on(&vault, REVISIONS).await;
    let mut log = crate::event_log::read(&vault).await;
    vault.store().close().await;

    let mut ends = Vec::new();
    for commits in KILLS {
        kill_after(commits, &place).await;
        ends.push(place.log().await.compacted);
    }
    println!("compacted up to {ends:?}, of {}", log.revisions.keys().last().unwrap());
    let broker = place.serve();
    way.lead_to(broker.grpc);
    let client = alice.client(broker.grpc);
    client.revoke(revoke_all()).await.unwrap();
    alice.connect(&client).await;
    client.get_plugin_token(ask_for_a_new_one()).await.unwrap();
    watchers.until("up to date", |standing| standing.generation == 2).await;
    broker.process.stop(Signal::KILL);
    let left = place.log().await;
    assert!(ends.iter().any(|end| (1..left.compacted).contains(end)), "never in its middle: {ends:?}");
    log.revisions.extend(left.revisions);
    let histories = watchers.record.histories();
    let told = |body: &Body| matches!(body, Body::Resync(_));
    assert!(histories.iter().flat_map(|history| &history.messages).flat_map(|message| &message.body).any(told));
    assert_valid(&log, &histories);
}

/// Runs a broker that is killed after so many commits: each is made to last until the next one is looked for.
async fn kill_after(commits: usize, place: &Place) {
    let data = place.path("store").join("db");
    let options = ["--seccomp-bpf", "-f", "--absolute-timestamps=format:unix,precision:us", "-etrace=fdatasync", "-P"];
    let mut process = place.traced(&[&options[..], &[data.to_str().unwrap(), "-e", SLOWLY]].concat());
    let killing = move || {
        let seen = RefCell::new(BTreeSet::new());
        process.error_line(|line| {
            let mut seen = seen.borrow_mut();
            line.contains("(DELAYED)") && (seen.insert(line.to_owned()), seen.len() >= commits).1
        });
        kill_traced(&process);
        process.finish()
    };
    let ended = tokio::task::spawn_blocking(killing).await.unwrap();
    assert!(!ended.status.success(), "{}", ended.stderr);
}

/// Things of an hour ago, which the broker's compaction finds.
struct Past {
    connection: Connection,
    at: Timestamp,
}

impl Past {
    async fn begin(vault: &Vault, tenant: &TenantId, subject: SubjectId) -> Self {
        let at = SystemClock.now().minus(Duration::from_secs(3600));
        let granted =
            Granted { scopes: ScopeSet::default(), expires_at: None, refreshable: false, refresh_token_end: None };
        let connection = Connection {
            id: ConnectionId::from_bytes([7; 16]),
            tenant: tenant.clone(),
            subject,
            provider: "dev".parse().unwrap(),
            account: Some("of an hour ago".to_owned()),
            created_at: at,
            consent: Consent { subject, agent: None, scopes: ScopeSet::default(), at },
            credential: Credential::pending(CredentialId::from_bytes([7; 16]), at)
                .authorized(granted, at)
                .unwrap()
                .credential,
            remote_revocation: None,
            withheld: false,
        };
        let tokens = TokenSet { access: AccessToken::new("old".to_owned()), refresh: None, id_token: None };
        let mut change = vault.change(tenant, Some(subject)).await.unwrap();
        change.insert_connection(&connection, &tokens, Timestamp::NEVER);
        change.commit().await.unwrap();
        Self { connection, at }
    }

    async fn go_on(&mut self, vault: &Vault, revisions: u32) {
        let Connection { tenant, subject, .. } = &self.connection;
        for _ in 0..revisions {
            let mut change = vault.change(tenant, Some(*subject)).await.unwrap();
            for _ in 0..EVENTS {
                self.at = self.at.plus(Duration::from_millis(1));
                change.event(&CredentialEvent {
                    kind: EventKind::Recovered,
                    tenant: tenant.clone(),
                    occurred_at: self.at,
                    status: CredentialStatus::of(&self.connection),
                });
            }
            change.commit().await.unwrap();
        }
    }
}
