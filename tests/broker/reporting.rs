//! Holders report what they have done with a generation, and whoever looks at the connection or revokes it is told.

use std::time::Duration;

use bytes::Bytes;
use claviger::{
    client::ClientError,
    domain::{ApplyOutcome, AuditAction, AuditRecord, AuditResult, ConnectionId, MOST_HOLDERS, Role},
    proto::v1::{
        self, ApplyOutcome as Outcome, CredentialEventKind as Kind, CredentialState as State, ErrorReason as Reason,
        revoke_request::Target,
    },
    store::{ChangeSet, Expect, IndexEntry, RecordKey, RecordKind, Write},
};
use futures_util::future::join_all;

use crate::{
    backing_up,
    heard::Client,
    keys::call_of,
    observer::{Observer, in_time},
    support::records::Records,
    world::{MINUTE, PLUGIN, World, ask, reason, revoke_all},
};

const POD_1: &str = "0f066824e0c3c4bd6d80f4c182769fa06e5da9ef0e1f44fcf590bb916f3e408f";

const IN_MARGIN: Duration = Duration::from_secs(541);

async fn report(
    client: &Client,
    connection: &v1::Connection,
    holder: &str,
    generation: u64,
    outcome: Outcome,
) -> Result<bool, ClientError> {
    let request = v1::ReportAppliedRequest {
        credential_id: connection.credential_id.clone(),
        generation,
        outcome: outcome.into(),
        holder: holder.to_owned(),
    };
    Ok(in_time(client.report_applied(request)).await?.recorded)
}

async fn look(client: &Client, connection: &v1::Connection) -> v1::Connection {
    let request = v1::GetConnectionRequest { connection_id: connection.connection_id.clone() };
    client.get_connection(request).await.unwrap().connection.unwrap()
}

/// Who holds which generation, and which the last report was about.
fn held(holders: &[v1::CredentialHolder]) -> Vec<(&str, u64, Outcome, u64)> {
    let told = holders.iter().map(|of| (of.holder.as_str(), of.generation, of.outcome(), of.reported_generation));
    told.collect()
}

/// A connection whose credential is of generation 2.
async fn refreshed(world: &World, client: &Client) -> v1::Connection {
    let connection = world.connect(client, "alice").await;
    world.clock.advance(IN_MARGIN);
    assert_eq!(client.get_plugin_token(ask(PLUGIN)).await.unwrap().generation, 2);
    look(client, &connection).await
}

#[tokio::test]
async fn who_holds_what_is_shown_with_the_connection_and_by_whoever_revokes_it() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = refreshed(&world, &client).await;
    assert_eq!(connection.holders, []);
    assert!(report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap());
    world.clock.advance(MINUTE);
    assert!(report(&client, &connection, "pod-2", 2, Outcome::Applied).await.unwrap());
    assert!(report(&client, &connection, "pod-1", 2, Outcome::Failed).await.unwrap());
    let expected = [("pod-1", 1, Outcome::Failed, 2), ("pod-2", 2, Outcome::Applied, 2)];

    world.restart().await;
    let client = world.client("alice");
    let shown = look(&client, &connection).await;
    assert_eq!(held(&shown.holders), expected);
    assert_eq!(shown.holders[0].reported_at.as_ref().unwrap().seconds, world.now().as_secs());
    let listed = client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.connections, [shown]);
    for preview in [true, false] {
        let results = client.revoke(v1::RevokeRequest { preview, ..revoke_all() }).await.unwrap().results;
        assert_eq!(held(&results[0].holders), expected, "preview: {preview}");
    }
}

#[tokio::test]
async fn a_holder_reports_also_once_the_connection_is_revoked_and_settled() {
    let world = World::start().await;
    let client = world.client("alice");
    let connection = refreshed(&world, &client).await;
    assert!(report(&client, &connection, "pod-1", 2, Outcome::Applied).await.unwrap());
    client.revoke(revoke_all()).await.unwrap();
    assert_eq!(look(&client, &connection).await.state(), State::Revoked);
    // One that was asked for before the revocation, and came to its place after it.
    assert!(report(&client, &connection, "pod-2", 2, Outcome::Applied).await.unwrap());
    assert!(report(&client, &connection, "pod-1", 2, Outcome::Removed).await.unwrap());
    let listed = client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.connections, [], "so whoever asks whom to visit asks by its id");
    let target = Some(Target::ConnectionId(connection.connection_id.clone()));
    let again = client.revoke(v1::RevokeRequest { target, preview: false }).await.unwrap();
    let expected = [("pod-1", 0, Outcome::Removed, 2), ("pod-2", 2, Outcome::Applied, 2)];
    assert_eq!(held(&again.results[0].holders), expected);
    assert_eq!(held(&look(&client, &connection).await.holders), expected);
}

#[tokio::test]
async fn a_report_that_was_overtaken_is_answered_so_and_changes_nothing() {
    let world = World::start().await;
    let client = world.client("alice");
    let connection = refreshed(&world, &client).await;
    assert!(report(&client, &connection, "pod-1", 2, Outcome::Applied).await.unwrap());
    let before = look(&client, &connection).await.holders;
    // So that whatever is written now differs.
    world.clock.advance(MINUTE);
    for outcome in [Outcome::Applied, Outcome::Failed, Outcome::Removed] {
        assert!(!report(&client, &connection, "pod-1", 1, outcome).await.unwrap());
    }
    assert_eq!(look(&client, &connection).await.holders, before);
    assert!(report(&client, &connection, "pod-2", 1, Outcome::Applied).await.unwrap(), "each holder by itself");
    assert!(report(&client, &connection, "pod-1", 2, Outcome::Applied).await.unwrap(), "it is safe to repeat");
}

#[tokio::test]
async fn what_is_repeated_is_not_written_again_within_the_hour() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    assert!(report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap());
    let before = look(&client, &connection).await.holders;
    world.clock.advance(59 * MINUTE);
    let client = world.client("alice");
    for _ in 0..20 {
        assert!(report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap());
    }
    assert_eq!(look(&client, &connection).await.holders, before);
    world.clock.advance(MINUTE);
    let client = world.client("alice");
    assert!(report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap());
    let after = look(&client, &connection).await.holders;
    assert_eq!(after[0].reported_at.as_ref().unwrap().seconds, world.now().as_secs());
    assert_eq!(reports_on_record(&mut world).await.len(), 2);
}

/// What a stopped broker has on record of reports.
async fn reports_on_record(world: &mut World) -> Vec<AuditRecord> {
    world.stop().await;
    let records = Records::open(world).await;
    let trail = records.vault.audit(0, 10_000).await.unwrap();
    records.close().await;
    let reports = trail.into_iter().filter(|(_, record)| record.action == AuditAction::AppliedReported);
    reports.map(|(_, record)| record).collect()
}

#[tokio::test]
async fn a_damaged_record_of_holders_fails_no_look_and_no_revocation() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap();
    world.stop().await;
    let records = Records::open(&world).await;
    let key = holders_row(&connection);
    let row = records.store.row(key.clone()).await.unwrap().unwrap();
    // Sealed for another version, of which the index knows nothing bad.
    let version = Bytes::copy_from_slice(&(row.version + 1).to_be_bytes());
    let index = row.index.iter().map(|entry| IndexEntry { value: version.clone(), ..entry.clone() }).collect();
    let writes = vec![Write::put(key, Expect::Version(row.version), row.fields.clone(), index)];
    records.store.commit(ChangeSet { writes, ..ChangeSet::default() }).await.unwrap();
    records.close().await;
    world.run().await;

    let client = world.client("alice");
    assert_eq!(look(&client, &connection).await.holders, []);
    assert_eq!(world.broker().alarms(), 1);
    let listed = client.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.connections.len(), 1);
    for preview in [true, false] {
        let results = client.revoke(v1::RevokeRequest { preview, ..revoke_all() }).await.unwrap().results;
        assert_eq!((results.len(), results[0].holders.len()), (1, 0), "preview: {preview}");
    }
    assert_eq!(look(&client, &connection).await.state(), State::Revoked);
}

fn holders_row(connection: &v1::Connection) -> RecordKey {
    let id: ConnectionId = connection.connection_id.parse().unwrap();
    RecordKey::new(RecordKind::Holders, id.as_bytes())
}

#[tokio::test]
async fn a_failure_silences_nothing_that_is_true() {
    let world = World::start().await;
    let client = world.client("alice");
    let connection = refreshed(&world, &client).await;
    assert!(report(&client, &connection, "late", 2, Outcome::Failed).await.unwrap());
    assert!(report(&client, &connection, "late", 1, Outcome::Applied).await.unwrap());
    assert!(report(&client, &connection, "gone", 1, Outcome::Applied).await.unwrap());
    assert!(report(&client, &connection, "gone", 2, Outcome::Failed).await.unwrap());
    assert!(report(&client, &connection, "gone", 1, Outcome::Removed).await.unwrap());
    let shown = look(&client, &connection).await;
    assert_eq!(held(&shown.holders), [("gone", 0, Outcome::Removed, 1), ("late", 1, Outcome::Applied, 1)]);
}

#[tokio::test]
async fn nobody_reports_for_somebody_else_or_what_was_never_given_out() {
    let world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let connection = world.connect(&alice, "alice").await;
    world.connect(&bob, "bob").await;
    let unknown = format!("crd_{}", "0".repeat(connection.credential_id.len() - 4));
    let unknown = v1::Connection { credential_id: unknown, ..connection.clone() };
    for (client, connection) in [(&bob, &connection), (&alice, &unknown)] {
        let refused = report(client, connection, "pod-1", 1, Outcome::Applied).await;
        assert_eq!(reason(refused), Reason::ConnectionNotFound);
    }
    let early = report(&alice, &connection, "pod-1", 2, Outcome::Applied).await;
    assert_eq!(reason(early), Reason::InvalidArgument);
    assert_eq!(look(&alice, &connection).await.holders, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_who_reports_at_the_same_time_is_recorded() {
    let world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    let names: Vec<String> = (0..MOST_HOLDERS).map(|number| format!("pod-{number:03}")).collect();
    let (of, what) = (&client, &connection);
    join_all(names.iter().map(|name| async move {
        // Somebody is first each time, so everybody is in the end.
        while let Err(refused) = report(of, what, name, 1, Outcome::Applied).await {
            assert_eq!(reason::<()>(Err(refused)), Reason::Conflict);
        }
    }))
    .await;
    let shown = look(&client, &connection).await;
    let mut told: Vec<&str> = shown.holders.iter().map(|holder| holder.holder.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, names);
    assert!(report(&client, &connection, "one more", 1, Outcome::Applied).await.is_err(), "a name has no spaces");
    assert!(report(&client, &connection, "one-more", 1, Outcome::Applied).await.unwrap());
    let shown = look(&client, &connection).await;
    assert_eq!((shown.holders.len(), shown.holders[0].holder.as_str()), (MOST_HOLDERS, "one-more"));
    assert_eq!(shown.holders_forgotten, 1);
    let revoked = client.revoke(revoke_all()).await.unwrap();
    assert_eq!(revoked.results[0].holders_forgotten, 1);
}

#[tokio::test]
async fn what_is_reported_is_no_news_on_the_stream() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    let mut observer = Observer::of(&client).await;
    report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap();
    client.revoke(revoke_all()).await.unwrap();
    assert_eq!(observer.next().await.kind(), Kind::Revoked);
    world.stop().await;
}

#[tokio::test]
async fn a_report_is_on_record_with_who_said_what_of_which_generation() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = refreshed(&world, &client).await;
    report(&client, &connection, "pod-1", 1, Outcome::Removed).await.unwrap();
    let reported = reports_on_record(&mut world).await;
    let [record] = &reported[..] else { panic!("{reported:?}") };
    assert_eq!(record.generation, Some(1));
    assert_eq!(record.connection.map(|id| id.to_string()), Some(connection.connection_id));
    let said = record.applied.as_ref().unwrap();
    let hex: String = said.holder_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    // printf pod-1 | sha256sum
    assert_eq!((hex.as_str(), said.outcome), (POD_1, ApplyOutcome::Removed));
}

#[tokio::test]
async fn what_was_overtaken_or_refused_is_on_record_with_what_it_was_about() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = refreshed(&world, &client).await;
    report(&client, &connection, "pod-1", 2, Outcome::Applied).await.unwrap();
    assert!(!report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap());
    report(&client, &connection, "pod-1", 3, Outcome::Applied).await.unwrap_err();
    let reported = reports_on_record(&mut world).await;
    let told: Vec<_> = reported.iter().map(|record| (record.result, record.generation)).collect();
    let (allowed, failed) = (AuditResult::Allowed, AuditResult::Failed);
    assert_eq!(told, [(allowed, Some(2)), (allowed, Some(1)), (failed, None)], "nothing is known of a third");
    for record in &reported {
        assert_eq!(record.connection.unwrap().to_string(), connection.connection_id);
        assert_eq!(record.provider.as_ref().unwrap().as_str(), "dev");
        assert_eq!(record.applied, reported[0].applied);
    }
}

#[tokio::test]
async fn who_held_what_is_erased_with_the_subject() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap();
    let id: ConnectionId = connection.connection_id.parse().unwrap();
    let key = holders_row(&connection);
    world.stop().await;
    let records = Records::open(&world).await;
    assert!(records.store.row(key.clone()).await.unwrap().is_some());
    let owner = records.vault.any_connection(id).await.unwrap().unwrap().into_value();
    records.close().await;
    world.run().await;
    world.broker().erase_subject(&call_of(Role::Operator), &owner.tenant, owner.subject).await.unwrap();
    let client = world.client("alice");
    let late = report(&client, &connection, "pod-1", 1, Outcome::Removed).await;
    assert_eq!(reason(late), Reason::ConnectionNotFound);
    world.stop().await;
    let records = Records::open(&world).await;
    assert!(records.store.row(key).await.unwrap().is_none());
    records.close().await;
}

/// Whichever comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_during_a_revocation_is_recorded_and_the_connection_revoked() {
    let world = World::start().await;
    for user in ["alice", "bob"] {
        let client = world.client(user);
        let connection = world.connect(&client, user).await;
        let (reported, revoked) =
            tokio::join!(report(&client, &connection, "pod-1", 1, Outcome::Applied), client.revoke(revoke_all()));
        assert!(reported.unwrap());
        assert_eq!(revoked.unwrap().results.len(), 1);
        let shown = look(&client, &connection).await;
        assert_eq!((shown.state(), held(&shown.holders)), (State::Revoked, vec![("pod-1", 1, Outcome::Applied, 1)]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_reported_during_an_erasure_outlives_it() {
    let mut world = World::start().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    let id: ConnectionId = connection.connection_id.parse().unwrap();
    world.stop().await;
    let records = Records::open(&world).await;
    let owner = records.vault.any_connection(id).await.unwrap().unwrap().into_value();
    records.close().await;
    world.run().await;

    let (client, operator) = (world.client("alice"), call_of(Role::Operator));
    let names: Vec<String> = (0..8).map(|number| format!("pod-{number}")).collect();
    let reports = names.iter().map(|name| report(&client, &connection, name, 1, Outcome::Applied));
    let erasing = world.broker().erase_subject(&operator, &owner.tenant, owner.subject);
    let (reported, erased) = tokio::join!(join_all(reports), erasing);
    erased.unwrap();
    for refused in reported.into_iter().filter(|answer| !matches!(answer, Ok(true))) {
        let reason = reason(refused);
        assert!([Reason::ConnectionNotFound, Reason::SubjectErased].contains(&reason), "{reason:?}");
    }
    let late = report(&client, &connection, "pod-0", 1, Outcome::Removed).await;
    assert_eq!(reason(late), Reason::ConnectionNotFound);
    world.stop().await;
    let records = Records::open(&world).await;
    assert!(records.store.row(holders_row(&connection)).await.unwrap().is_none());
    assert!(records.store.row(RecordKey::new(RecordKind::Connection, id.as_bytes())).await.unwrap().is_none());
    records.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_what_comes_back_with_a_backup() {
    let mut world = backing_up::world().await;
    let client = world.client("alice");
    let connection = world.connect(&client, "alice").await;
    report(&client, &connection, "pod-1", 1, Outcome::Applied).await.unwrap();
    let (archive, _) = backing_up::backup(&backing_up::operator(&world)).await;
    report(&client, &connection, "pod-1", 1, Outcome::Removed).await.unwrap();
    world.stop().await;
    backing_up::restore(&world, &archive, true).await.unwrap();
    world.run().await;
    let shown = look(&world.client("alice"), &connection).await;
    assert_eq!(held(&shown.holders), [("pod-1", 1, Outcome::Applied, 1)]);
}
