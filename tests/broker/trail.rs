//! The audit trail, read from what a stopped broker has left.

use std::time::Duration;

use claviger::{
    audit::{Break, check},
    dev::{PlatformClaims, Signer},
    domain::{AuditAction, AuditRecord, AuditResult, EventKind, Link, Reason, Revision},
    proto::v1,
};
use tokio::time::timeout;
use tonic::Request;

use crate::{
    connecting::{SOON, head},
    support::records::Records,
    world::{PLUGIN, Settings, World, ask, claims, revoke_all, start},
};

impl Records {
    /// Every record, oldest first, with its number.
    async fn all(&self) -> Vec<(u64, AuditRecord)> {
        self.vault.audit(0, usize::MAX).await.unwrap()
    }

    async fn linked(&self) -> Vec<Vec<u8>> {
        let entries = self.store.audit(0, usize::MAX).await.unwrap();
        entries.into_iter().map(|entry| entry.linked.to_vec()).collect()
    }
}

/// Stops the broker and reads its trail, which must hold together.
async fn trail(world: &mut World) -> Vec<(u64, AuditRecord)> {
    world.stop().await;
    let records = Records::open(world).await;
    let (all, linked) = (records.all().await, records.linked().await);
    let end = check(records.vault.keys().audit(), None, linked.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(end.map_or(0, |end| end.sequence), all.len() as u64);
    records.close().await;
    all
}

fn of(action: AuditAction, trail: &[(u64, AuditRecord)]) -> Vec<(u64, AuditRecord)> {
    trail.iter().filter(|(_, record)| record.action == action).cloned().collect()
}

fn named(request_id: &str, trail: &[(u64, AuditRecord)]) -> Vec<AuditRecord> {
    let same = |record: &&AuditRecord| record.request_id.as_ref().is_some_and(|id| id.as_str() == request_id);
    trail.iter().map(|(_, record)| record).filter(same).cloned().collect()
}

fn request<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", id.parse().unwrap());
    request
}

/// What the calls below leave, by request id.
const DECISIONS: &[(&str, AuditAction, AuditResult, Option<Reason>)] = &[
    ("validate", AuditAction::TokenValidated, AuditResult::Allowed, None),
    ("token", AuditAction::TokenRead, AuditResult::Allowed, None),
    ("token-refused", AuditAction::TokenRead, AuditResult::Failed, Some(Reason::PluginUnknown)),
    ("watch", AuditAction::WatchOpened, AuditResult::Allowed, None),
    ("watch-refused", AuditAction::WatchOpened, AuditResult::Failed, Some(Reason::InvalidArgument)),
    ("start", AuditAction::AuthorizationStarted, AuditResult::Allowed, None),
    ("start-refused", AuditAction::AuthorizationStarted, AuditResult::Failed, Some(Reason::PluginUnknown)),
    ("flow", AuditAction::AuthorizationRead, AuditResult::Allowed, None),
    ("flow-refused", AuditAction::AuthorizationRead, AuditResult::Failed, Some(Reason::FlowNotFound)),
    ("list", AuditAction::ConnectionsRead, AuditResult::Allowed, None),
    ("get", AuditAction::ConnectionsRead, AuditResult::Allowed, None),
    ("get-refused", AuditAction::ConnectionsRead, AuditResult::Failed, Some(Reason::ConnectionNotFound)),
    ("code-refused", AuditAction::CodeStored, AuditResult::Failed, Some(Reason::FlowNotFound)),
    ("report", AuditAction::AppliedReported, AuditResult::Allowed, None),
    ("report-refused", AuditAction::AppliedReported, AuditResult::Failed, Some(Reason::ConnectionNotFound)),
    ("revoke-refused", AuditAction::RevocationRequested, AuditResult::Failed, Some(Reason::ConnectionNotFound)),
    ("revoke", AuditAction::RevocationRequested, AuditResult::Allowed, None),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_decision_is_on_record_under_its_request_id() {
    let mut world = World::start_with(Settings { audit_window: 0, ..Settings::default() }).await;
    let alice = world.client("alice");
    let connection = world.connect(&alice, "alice").await;
    let token = world.token("alice", &claims());
    let mut raw = world.raw(&token);
    let mut connections = world.raw_connections(&token);
    let flow_id = alice.start_authorization(start("notes")).await.unwrap().flow_id;

    raw.validate_platform_token(request("validate", Default::default())).await.unwrap();
    raw.get_plugin_token(request("token", ask(PLUGIN))).await.unwrap();
    raw.get_plugin_token(request("token-refused", ask("nowhere"))).await.err().unwrap();
    raw.watch_credential_status(request("watch", Default::default())).await.unwrap();
    let forged = v1::WatchCredentialStatusRequest {
        start: Some(v1::watch_credential_status_request::Start::ResumeToken(vec![1])),
        ..Default::default()
    };
    raw.watch_credential_status(request("watch-refused", forged)).await.err().unwrap();
    connections.start_authorization(request("start", start(PLUGIN))).await.unwrap();
    connections.start_authorization(request("start-refused", start("nowhere"))).await.err().unwrap();
    let flow = |flow_id: &str| v1::GetAuthorizationRequest { flow_id: flow_id.to_owned(), wait: None };
    connections.get_authorization(request("flow", flow(&flow_id))).await.unwrap();
    let other = format!("flw_{}", "0".repeat(flow_id.len() - 4));
    connections.get_authorization(request("flow-refused", flow(&other))).await.err().unwrap();
    connections.list_connections(request("list", Default::default())).await.unwrap();
    let get = |id: &str| v1::GetConnectionRequest { connection_id: id.to_owned() };
    connections.get_connection(request("get", get(&connection.connection_id))).await.unwrap();
    let other = format!("con_{}", "0".repeat(connection.connection_id.len() - 4));
    connections.get_connection(request("get-refused", get(&other))).await.err().unwrap();
    let code = v1::FlowCode { state: "unknown".to_owned(), code: "unknown".to_owned(), iss: String::new() };
    let code = v1::StoreAuthCodeRequest { flow: Some(v1::store_auth_code_request::Flow::FlowCode(code)) };
    raw.store_auth_code(request("code-refused", code)).await.err().unwrap();
    let report = |id: String| v1::ReportAppliedRequest {
        credential_id: id,
        generation: 1,
        outcome: v1::ApplyOutcome::Applied.into(),
        holder: "pod-1".to_owned(),
    };
    raw.report_applied(request("report", report(connection.credential_id.clone()))).await.unwrap();
    let unknown = format!("crd_{}", "0".repeat(connection.credential_id.len() - 4));
    raw.report_applied(request("report-refused", report(unknown))).await.err().unwrap();
    let revoke = |id: &str| v1::RevokeRequest {
        target: Some(v1::revoke_request::Target::ConnectionId(id.to_owned())),
        ..Default::default()
    };
    raw.revoke(request("revoke-refused", revoke(&other))).await.err().unwrap();
    raw.revoke(request("revoke", revoke(&connection.connection_id))).await.unwrap();

    let trail = trail(&mut world).await;
    for (id, action, result, reason) in DECISIONS {
        let records = named(id, &trail);
        let record = records.last().unwrap_or_else(|| panic!("{id} left no record"));
        assert_eq!((record.action, record.result, record.reason), (*action, *result, *reason), "{id}");
        assert!(record.subject.is_some() && record.peer.is_some() && record.user_agent.is_some(), "{id}");
    }
    let watched = named("watch-refused", &trail);
    assert!(watched.iter().all(|record| record.result != AuditResult::Allowed), "what was refused was not opened");
    let read = &named("token", &trail)[0];
    assert_eq!(read.plugin.as_ref().unwrap().as_str(), PLUGIN);
    assert_eq!(read.connection.unwrap().to_string(), connection.connection_id);
    assert_eq!((read.generation, read.provider.as_ref().unwrap().as_str()), (Some(1), "dev"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_requests_in_one_call_are_each_on_record() {
    let mut world = World::start().await;
    world.connect(&world.client("alice"), "alice").await;
    let of_session = |plugin: &str| v1::GetPluginTokenRequest { session_id: format!("at-{plugin}"), ..ask(plugin) };
    let several = v1::GetPluginTokensRequest { requests: vec![of_session(PLUGIN), of_session("notes")] };
    let mut raw = world.raw(&world.token("alice", &claims()));
    raw.get_plugin_tokens(request("several", several)).await.unwrap();

    let trail = trail(&mut world).await;
    let reads = named("several", &of(AuditAction::TokenRead, &trail));
    let said = |record: &AuditRecord| (record.plugin.clone().unwrap().to_string(), record.context.session_id.clone());
    let mut said: Vec<_> = reads.iter().map(|record| (said(record), record.result, record.reason)).collect();
    said.sort_by(|a, b| a.0.cmp(&b.0));
    let session = |plugin: &str| (plugin.to_owned(), Some(format!("at-{plugin}")));
    let refused = (session("notes"), AuditResult::Failed, Some(Reason::ScopesMissing));
    assert_eq!(said, [(session(PLUGIN), AuditResult::Allowed, None), refused]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_reads_are_one_record_and_their_number() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    let began = world.now();
    for _ in 0..5 {
        alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
        world.clock.advance(Duration::from_secs(1));
    }
    // Another session is another read.
    let session = v1::GetPluginTokenRequest { session_id: "other".to_owned(), ..ask(PLUGIN) };
    alice.get_plugin_token(session).await.unwrap();
    world.clock.advance(Duration::from_secs(5));
    alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    alice.get_plugin_token(ask(PLUGIN)).await.unwrap();

    let trail = trail(&mut world).await;
    let reads = of(AuditAction::TokenRead, &trail);
    assert_eq!(reads.len(), 3, "the first, the other session's, and the first of the next window");
    let repeated: Vec<_> = of(AuditAction::ReadsRepeated, &trail)
        .into_iter()
        .filter(|(_, record)| record.plugin.is_some())
        .map(|(_, record)| record.repeated.unwrap())
        .collect();
    assert_eq!(repeated.len(), 2);
    assert_eq!((repeated[0].first, repeated[0].count), (reads[0].0, 4));
    assert_eq!(repeated[0].last_at, began.plus(Duration::from_secs(4)));
    assert_eq!((repeated[1].first, repeated[1].count), (reads[2].0, 1), "an open window is closed at the stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_window_every_read_is_a_record() {
    let mut world = World::start_with(Settings { audit_window: 0, ..Settings::default() }).await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    for _ in 0..4 {
        alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    }
    let trail = trail(&mut world).await;
    assert_eq!(of(AuditAction::TokenRead, &trail).len(), 4);
    assert_eq!(of(AuditAction::ReadsRepeated, &trail).len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_its_link_and_is_counted_too() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    let wider = || v1::GetPluginTokenRequest { scopes: vec!["notes.write".to_owned()], ..ask(PLUGIN) };
    for _ in 0..6 {
        alice.get_plugin_token(wider()).await.err().unwrap();
    }
    let trail = trail(&mut world).await;
    let refused = of(AuditAction::TokenRead, &trail);
    assert_eq!(refused.len(), 1);
    let (first, record) = &refused[0];
    assert_eq!((record.result, record.reason), (AuditResult::Refused, Some(Reason::ScopeExceeded)));
    assert_eq!(record.link, Some(Link::Plugin));
    let repeated = of(AuditAction::ReadsRepeated, &trail);
    assert_eq!(repeated.len(), 1);
    let counted = repeated[0].1.repeated.as_ref().unwrap();
    assert_eq!((counted.first, counted.count, repeated[0].1.result), (*first, 5, AuditResult::Refused));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_verified_writes_nothing() {
    let mut world = World::start().await;
    let before = {
        let trail = trail(&mut world).await.len();
        world.run().await;
        trail
    };
    let forged = PlatformClaims { signer: Signer::Forger, ..claims() };
    let stranger = world.client_with(&world.token("alice", &forged));
    for _ in 0..20 {
        stranger.get_plugin_token(ask(PLUGIN)).await.err().unwrap();
    }
    assert_eq!(trail(&mut world).await.len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_of_a_read_is_there_before_its_token_leaves() {
    let mut world = World::start_with(Settings { audit_window: 0, ..Settings::default() }).await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    // Whoever has a token was on record before: a copy of the files, taken when it arrives, holds the record.
    alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    let copy = world.directory().join("as-it-was");
    std::fs::create_dir(&copy).unwrap();
    for name in ["db", "conf"] {
        std::fs::copy(world.config().store.directory.join(name), copy.join(name)).unwrap();
    }
    world.stop().await;
    let store = world.config().store.directory;
    for name in ["db", "conf"] {
        std::fs::copy(copy.join(name), store.join(name)).unwrap();
    }
    let records = Records::open(&world).await;
    assert_eq!(of(AuditAction::TokenRead, &records.all().await).len(), 1);
    records.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_and_its_record_are_one_change_set() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    // The connection's own job has nothing to do any more; it ends without a record.
    head(&alice).await;
    let before = head(&alice).await;
    world.clock.advance(Duration::from_secs(5));
    let job_ended = async {
        while head(&alice).await == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, job_ended).await.expect("the job ends");
    let (revision, records) = stopped(&mut world).await;
    world.run().await;
    let alice = world.client("alice");
    world.clock.advance(Duration::from_secs(570));
    alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    alice.revoke(revoke_all()).await.unwrap();
    let (end, trail) = stopped(&mut world).await;
    // As many change sets as records: each has one, so the record of a revision is known.
    assert_eq!(end.0 - revision.0, (trail.len() - records.len()) as u64);

    let records_of = Records::open(&world).await;
    let mut seen = Vec::new();
    for (at, events) in records_of.vault.events(revision, usize::MAX).await.unwrap() {
        let (_, record) = &trail[records.len() + (at.0 - revision.0) as usize - 1];
        assert_eq!(events.len(), 1);
        seen.push((events[0].kind, record.action));
        assert_eq!(record.connection, Some(events[0].status.connection));
        assert_eq!(record.generation, Some(events[0].status.generation));
    }
    records_of.close().await;
    let expected = [
        (EventKind::Refreshed, AuditAction::RefreshSettled),
        (EventKind::Revoked, AuditAction::RevocationRequested),
        (EventKind::Revoked, AuditAction::RevocationSettled),
    ];
    assert_eq!(seen, expected);
}

async fn stopped(world: &mut World) -> (Revision, Vec<(u64, AuditRecord)>) {
    world.stop().await;
    let records = Records::open(world).await;
    let (revision, all) = (records.store.head().revision, records.all().await);
    records.close().await;
    (revision, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_or_dropped_record_is_named() {
    let mut world = World::start().await;
    let alice = world.client("alice");
    world.connect(&alice, "alice").await;
    world.restart().await;
    world.client("alice").revoke(revoke_all()).await.unwrap();
    assert!(trail(&mut world).await.len() > 5, "and the chain went on after the restart");
    let records = Records::open(&world).await;
    let linked = records.linked().await;
    let key = records.vault.keys().audit();
    let verify = |entries: &[Vec<u8>]| check(key, None, entries.iter().map(Vec::as_slice));
    for at in 0..linked.len() {
        let sequence = at as u64 + 1;
        let mut edited = linked.clone();
        let last = edited[at].len() - 1;
        edited[at][last] ^= 1;
        assert_eq!(verify(&edited), Err(Break::Altered { sequence }));
        if sequence < linked.len() as u64 {
            let mut dropped = linked.clone();
            dropped.remove(at);
            assert_eq!(verify(&dropped), Err(Break::Missing { sequence }));
        }
    }
    records.close().await;
}
