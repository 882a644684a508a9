//! Erasing a subject through the broker: the provider takes the tokens back, watchers are told, the rest is gone.

use claviger::{
    domain::{AuditAction, AuditTarget, Role, SubjectId, TenantId},
    proto::v1::{self, CredentialEventKind as Kind, ErrorReason},
};

use crate::{
    keys::{call_of, refused},
    observer::{Observer, in_time},
    support::records::Records,
    world::{PLUGIN, World, ask, reason, start},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_subjects_tokens_die_at_the_provider_and_nothing_is_found_or_stored_any_more() {
    let mut world = World::start().await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let connection = world.connect(&alice, "alice").await;
    world.connect(&bob, "bob").await;
    assert_eq!(world.live_refresh_tokens(), 2);
    let (tenant, subject) = who(&mut world).await;
    let (alice, bob) = (world.client("alice"), world.client("bob"));
    let mut observer = Observer::of(&alice).await;
    refused(&world.broker().erase_subject(&call_of(Role::User), &tenant, subject).await);

    let operator = call_of(Role::Operator);
    assert_eq!(world.broker().erasure_receipt(&operator, &tenant, subject).await.unwrap(), None);
    let receipt = world.broker().erase_subject(&operator, &tenant, subject).await.unwrap();
    assert_eq!((receipt.subject, receipt.erased_at), (subject, world.now()));
    assert_eq!(world.broker().erasure_receipt(&operator, &tenant, subject).await.unwrap(), Some(receipt));

    let get = v1::GetConnectionRequest { connection_id: connection.connection_id };
    assert_eq!(reason(alice.get_connection(get).await), ErrorReason::ConnectionNotFound);
    let listed = alice.list_connections(v1::ListConnectionsRequest::default()).await.unwrap();
    assert_eq!(listed.connections, []);
    assert_eq!(reason(alice.start_authorization(start(PLUGIN)).await), ErrorReason::SubjectErased);
    assert!(alice.get_plugin_token(ask(PLUGIN)).await.is_err());
    assert!(world.accepts(&bob.get_plugin_token(ask(PLUGIN)).await.unwrap()));
    in_time(async {
        while world.live_refresh_tokens() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(observer.until(Kind::Erased).await);
    world.stop().await;

    let records = Records::open(&world).await;
    let trail = records.vault.audit(0, 1_000).await.unwrap();
    let erasures: Vec<_> = trail.iter().filter(|(_, record)| record.action == AuditAction::SubjectErased).collect();
    // A refusal and the erasure, which tells whom it was about by their pseudonym.
    assert_eq!(erasures.len(), 2);
    assert_eq!(erasures[1].1.target, Some(AuditTarget::Subject(subject)));
    assert_eq!(records.vault.alarms(), 0);
    records.close().await;
}

/// The pseudonym of the first who is in the trail, by what a stopped broker has left.
async fn who(world: &mut World) -> (TenantId, SubjectId) {
    world.stop().await;
    let records = Records::open(world).await;
    let trail = records.vault.audit(0, 1_000).await.unwrap();
    let found = trail.into_iter().find_map(|(_, record)| Some((record.tenant, record.subject?)));
    records.close().await;
    world.run().await;
    found.unwrap()
}
