//! An operator supersedes keys while agents go on getting tokens.

use std::{collections::BTreeSet, sync::Arc};

use claviger::{
    broker::BrokerError,
    domain::{
        AuditAction, Call, CallContext, Caller, KeyId, KeyKind, KeyState, Link, Reason, Role, RotateKey, SubjectId,
    },
    sealing::{Random, root_key},
};
use futures_util::future::join_all;

use crate::{
    observer::in_time,
    support::records::Records,
    world::{MINUTE, PLUGIN, World, ask},
};

pub(crate) fn call_of(role: Role) -> Call {
    let caller = Caller {
        tenant: "acme".parse().unwrap(),
        subject: SubjectId::from_bytes([0xAD; 32]),
        family: "platform".parse().unwrap(),
        external_id: "operator".to_owned(),
        agent: None,
        audience: Vec::new(),
        scopes: claviger::domain::ScopeSet::default(),
        roles: BTreeSet::from([role]),
        issued_at: claviger::domain::Timestamp::EPOCH,
        expires_at: claviger::domain::Timestamp::NEVER,
    };
    Call {
        caller: Arc::new(caller),
        request_id: "req-operator".parse().unwrap(),
        peer: None,
        user_agent: None,
        context: CallContext::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_all_keys_fails_no_call_and_the_old_root_key_can_be_destroyed() {
    let mut world = World::start().await;
    let users = ["alice", "bob"];
    for user in users {
        world.connect(&world.client(user), user).await;
    }
    let newer = world.directory().join("other.key");
    let new_root = root_key::file::create(&newer, &Random::system()).unwrap().id();
    let first = newer.clone();
    world.reconfigure(move |config| config.sealing.root_keys.insert(0, first.clone())).await;
    let operator = call_of(Role::Operator);
    let old_root = keys(&world, KeyKind::Root, KeyState::Present).await[0];
    assert_ne!(old_root, new_root);

    for round in 0..8 {
        world.clock.advance(11 * MINUTE);
        let clients: Vec<_> = users.iter().flat_map(|user| [world.client(user), world.client(user)]).collect();
        let tokens = join_all(clients.iter().map(|client| client.get_plugin_token(ask(PLUGIN))));
        let what = if round == 0 { RotateKey::Root } else { RotateKey::Tenants(None) };
        let (tokens, rotation) = tokio::join!(tokens, world.broker().rotate_key(&operator, what));
        rotation.unwrap();
        for token in tokens {
            assert!(world.accepts(&token.unwrap()));
        }
    }
    until_rotated(&world).await;
    assert_eq!(world.refreshes(), 2 * 8, "one refresh a credential and round");

    assert_eq!(keys(&world, KeyKind::Root, KeyState::Readable).await, [old_root]);
    world.broker().retire_key(&operator, old_root).await.unwrap();
    world.reconfigure(move |config| config.sealing.root_keys = vec![newer.clone()]).await;
    assert_eq!(keys(&world, KeyKind::Root, KeyState::Retired).await, [old_root]);
    for user in users {
        let token = world.client(user).get_plugin_token(ask(PLUGIN)).await.unwrap();
        assert!(world.accepts(&token));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_for_operators_and_what_they_do_is_on_record() {
    let mut world = World::start().await;
    world.connect(&world.client("alice"), "alice").await;
    let (user, operator) = (call_of(Role::User), call_of(Role::Operator));
    let present = keys(&world, KeyKind::Root, KeyState::Present).await[0];
    let unknown = KeyId::from_bytes([9; 16]);
    let tenants = RotateKey::Tenants(Some("acme".parse().unwrap()));
    let broker = world.broker();
    refused(&broker.rotate_key(&user, tenants.clone()).await);
    refused(&broker.list_keys(&user).await);
    refused(&broker.retire_key(&user, present).await);
    refused(&broker.key_rotation(&user).await);

    assert!(matches!(broker.rotate_key(&operator, RotateKey::Root).await, Err(BrokerError::NoNewRootKey)));
    assert!(matches!(broker.retire_key(&operator, unknown).await, Err(BrokerError::KeyUnknown)));
    let in_use = broker.retire_key(&operator, present).await;
    assert!(matches!(in_use, Err(BrokerError::KeyInUse { live_rows }) if live_rows > 2));
    let rotation = broker.rotate_key(&operator, tenants).await.unwrap();
    assert!(rotation.begun > 0 && rotation.started_at == world.now());
    until_rotated(&world).await;
    world.stop().await;

    let records = Records::open(&world).await;
    let trail = records.vault.audit(0, 1_000).await.unwrap();
    let of =
        |action, reason| trail.iter().filter(|(_, record)| (record.action, record.reason) == (action, reason)).count();
    assert_eq!(of(AuditAction::KeyRotated, None), 1);
    for action in [AuditAction::KeyRotated, AuditAction::KeyRetired, AuditAction::KeysListed] {
        assert_eq!(of(action, Some(Reason::RoleMissing)), 1, "{action:?}");
    }
    records.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_goes_on_after_a_restart() {
    let mut world = World::start().await;
    world.connect(&world.client("alice"), "alice").await;
    world.stop().await;
    let records = Records::open(&world).await;
    let record = claviger::domain::AuditRecord::by_broker(
        claviger::domain::installation_tenant(),
        AuditAction::KeyRotated,
        world.now(),
    );
    let begun = records.vault.begin_tenant_rotation(&"acme".parse().unwrap(), &record).await.unwrap().unwrap();
    assert!(begun.left > 0);
    records.close().await;
    world.run().await;
    until_rotated(&world).await;
    assert!(world.accepts(&world.client("alice").get_plugin_token(ask(PLUGIN)).await.unwrap()));
}

async fn keys(world: &World, kind: KeyKind, state: KeyState) -> Vec<KeyId> {
    let keys = world.broker().list_keys(&call_of(Role::Operator)).await.unwrap();
    keys.into_iter().filter(|key| (key.kind, key.state) == (kind, state)).map(|key| key.id).collect()
}

async fn until_rotated(world: &World) {
    in_time(async {
        while world.broker().key_rotation(&call_of(Role::Operator)).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) fn refused<T>(result: &Result<T, BrokerError>) {
    let Err(BrokerError::Refused { link, reason }) = result else { panic!("it is not for this caller") };
    assert_eq!((*link, *reason), (Link::Session, Reason::RoleMissing));
}
