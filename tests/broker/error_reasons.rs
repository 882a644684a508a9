//! Every reason that the contract names is reached by a call, or stands below with why it cannot be.

use std::{collections::BTreeSet, time::Duration};

use claviger::{
    client::ClientError,
    config::Config,
    dev::{Answer, Endpoint, Fault, PlatformClaims, Signer, visitor::Decision},
    domain::{ConnectionId, Role, Sealed},
    identity::{RoleRule, TenantRule},
    proto::v1::{self, ErrorReason, watch_credential_status_request::Start, watch_credential_status_response::Body},
    store::{ChangeSet, Expect, FieldTag, RecordKey, RecordKind, Write},
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    backing_up,
    connecting::SOON,
    heard::Client,
    support::records::Records,
    world::{MINUTE, PLUGIN, Settings, World, ask, claims, reason, start},
};

/// Reasons that no call can reach yet.
const UNREACHED: &[(ErrorReason, &str)] = &[
    (ErrorReason::FlowDenied, "binding BROWSER alone hears of it, and tells it as a flow's outcome: see tests/browser"),
    (ErrorReason::StoreUnavailable, "needs a disk that fails; the store's own tests let it fail"),
    (ErrorReason::RevisionCompacted, "nothing compacts the event log yet"),
    (ErrorReason::BackupOutrun, "needs more writes than a test has time for; the store's own tests outrun a copy"),
    (ErrorReason::SubjectErased, "no call erases anybody yet; tests/broker/erasing.rs asks the use cases"),
    (ErrorReason::Conflict, "every use case tries again by itself; it is left for a race that is lost over and over"),
];

#[derive(Default)]
struct Reached(BTreeSet<i32>);

impl Reached {
    #[track_caller]
    fn by<T>(&mut self, expected: ErrorReason, result: Result<T, ClientError>) {
        assert_eq!(reason(result), expected);
        self.0.insert(expected.into());
    }

    fn is_told(&mut self, expected: ErrorReason, told: ErrorReason) {
        assert_eq!(told, expected);
        self.0.insert(expected.into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_is_reached_or_accounted_for() {
    let mut reached = Reached::default();
    callers(&mut reached).await;
    chain(&mut reached).await;
    flows(&mut reached).await;
    connections(&mut reached).await;
    providers(&mut reached).await;
    streams(&mut reached).await;
    operators(&mut reached).await;
    broken_row(&mut reached).await;

    let all = (1..1000).filter(|number| ErrorReason::try_from(*number).is_ok());
    let unreached: BTreeSet<i32> = UNREACHED.iter().map(|(reason, _)| i32::from(*reason)).collect();
    assert!(reached.0.is_disjoint(&unreached), "what is reached needs no excuse");
    let missing: Vec<_> = all
        .filter(|number| !reached.0.contains(number) && !unreached.contains(number))
        .map(|number| ErrorReason::try_from(number).unwrap())
        .collect();
    assert_eq!(missing, []);
}

async fn list(client: &Client) -> Result<v1::ListConnectionsResponse, ClientError> {
    client.list_connections(v1::ListConnectionsRequest::default()).await
}

async fn callers(reached: &mut Reached) {
    use ErrorReason as R;
    let mut world = World::start().await;
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{}", world.grpc())).unwrap();
    let mut bare = v1::token_broker_service_client::TokenBrokerServiceClient::new(endpoint.connect_lazy());
    reached.by(R::TokenMissing, bare.get_plugin_token(ask(PLUGIN)).await.map_err(ClientError::from));
    let client = |world: &World, edit: &dyn Fn(&mut PlatformClaims)| {
        let mut claims = claims();
        edit(&mut claims);
        world.client_with(&world.token("alice", &claims))
    };
    let claim = |world: &World, name: &str, value: Value| {
        client(world, &|claims| drop(claims.claim_overrides.insert(name.to_owned(), value.clone())))
    };
    let now = world.now().as_secs();
    reached.by(R::TokenInvalid, list(&client(&world, &|claims| claims.signer = Signer::Forger)).await);
    reached.by(R::TokenExpired, list(&claim(&world, "exp", json!(now - 100))).await);
    reached.by(R::TokenNotYetValid, list(&claim(&world, "nbf", json!(now + 100))).await);
    reached.by(R::AudienceMismatch, list(&claim(&world, "aud", json!("another"))).await);
    reached.by(R::IssuerUnknown, list(&claim(&world, "iss", json!("https://evil.example"))).await);
    reached.by(R::SubjectMissing, list(&claim(&world, "sub", Value::Null)).await);
    // Each unknown key takes a fetch from the issuer's small budget.
    for number in 0..3 {
        let unknown = |claims: &mut PlatformClaims| {
            drop(claims.header_overrides.insert("kid".into(), json!(format!("key-{number}"))))
        };
        assert_eq!(reason(list(&client(&world, &unknown)).await), R::TokenInvalid);
    }
    let unknown = |claims: &mut PlatformClaims| drop(claims.header_overrides.insert("kid".into(), json!("one more")));
    reached.by(R::JwksUnavailable, list(&client(&world, &unknown)).await);

    world
        .reconfigure(|config: &mut Config| {
            let issuer = &mut config.identity[0].issuers[0];
            let allow = [("t-1".to_owned(), "acme".parse().unwrap())].into();
            issuer.tenant = TenantRule::Claim { name: "tid".to_owned(), allow };
            issuer.roles =
                vec![RoleRule { role: Role::User, claim: "roles".into(), values: ["user".to_owned()].into() }];
        })
        .await;
    reached.by(R::TenantUnknown, list(&claim(&world, "tid", json!("t-2"))).await);
    reached.by(R::RoleMissing, list(&claim(&world, "tid", json!("t-1"))).await);
}

async fn chain(reached: &mut Reached) {
    use ErrorReason as R;
    let mut world = World::start().await;
    let alice = world.client("alice");
    reached.by(R::PluginUnknown, alice.get_plugin_token(ask("nowhere")).await);
    let wider = v1::GetPluginTokenRequest { scopes: vec!["notes.read".to_owned()], ..ask(PLUGIN) };
    reached.by(R::ScopeExceeded, alice.get_plugin_token(wider).await);
    reached.by(R::InvalidArgument, alice.get_plugin_token(ask("")).await);
    world.reconfigure(|config| config.plugins[0].enabled = false).await;
    reached.by(R::PluginDenied, world.client("alice").get_plugin_token(ask(PLUGIN)).await);
}

async fn flows(reached: &mut Reached) {
    use ErrorReason as R;
    let world = World::start().await;
    let alice = world.client("alice");
    reached.by(R::ConsentRequired, alice.get_plugin_token(ask(PLUGIN)).await);
    let browser = v1::StartAuthorizationRequest { binding: 0, redirect_uri: String::new(), ..start(PLUGIN) };
    reached.by(R::SignInNotConfigured, alice.start_authorization(browser).await);
    let answer = world.authorize(&alice, "alice").await;
    reached.by(R::FlowNotFound, world.store(&world.client("bob"), &answer).await);
    let with = |name: &str, value: &str| {
        let mut edited = answer.clone();
        let pairs: Vec<_> = answer.query_pairs().into_owned().filter(|(key, _)| key != name).collect();
        edited.query_pairs_mut().clear().extend_pairs(pairs).append_pair(name, value);
        edited
    };
    reached.by(R::IssuerMismatch, world.store(&alice, &with("iss", "https://evil.example")).await);
    reached.by(R::ExchangeRefused, world.store(&alice, &with("code", "another")).await);
    reached.by(R::FlowConsumed, world.store(&alice, &answer).await);
    for (fault, expected) in [
        (Fault::CommitThenDrop, R::ExchangeInterrupted),
        (Fault::Answer(Answer::new(StatusCode::FORBIDDEN, "<html>")), R::ProviderReplyInvalid),
        (oauth_error(StatusCode::UNAUTHORIZED, "invalid_client"), R::ProviderSuspended),
    ] {
        let answer = world.authorize(&alice, "alice").await;
        world.provider.faults().arm(Endpoint::Token, fault, 1);
        reached.by(expected, world.store(&alice, &answer).await);
    }
    let answer = world.authorize(&alice, "alice").await;
    for number in 0.. {
        let another = v1::StartAuthorizationRequest { account: format!("account-{number}"), ..start(PLUGIN) };
        if let Err(error) = alice.start_authorization(another).await {
            reached.by(R::FlowQuota, Err::<(), _>(error));
            break;
        }
    }
    world.clock.advance(10 * MINUTE);
    reached.by(R::FlowExpired, world.store(&alice, &answer).await);
}

async fn connections(reached: &mut Reached) {
    use ErrorReason as R;
    let world = World::start().await;
    let alice = world.client("alice");
    let connection = world.connect(&alice, "alice").await;
    let get = || v1::GetConnectionRequest { connection_id: connection.connection_id.clone() };
    reached.by(R::ConnectionNotFound, world.client("bob").get_connection(get()).await);
    reached.by(R::ScopesMissing, alice.get_plugin_token(ask("notes")).await);
    let token = alice.get_plugin_token(ask(PLUGIN)).await.unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.access_token.as_bytes());
    let rejected = v1::GetPluginTokenRequest { rejected_token_sha256: digest.as_ref().to_vec(), ..ask(PLUGIN) };
    reached.by(R::RateLimited, alice.get_plugin_token(rejected).await);
    let named = v1::StartAuthorizationRequest { account: "alice".to_owned(), ..start(PLUGIN) };
    let started = alice.start_authorization(named).await.unwrap();
    let answer = world.visit(&started.authorization_url, "bob", Decision::Approve).await;
    reached.by(R::AccountMismatch, world.store(&alice, &answer).await);
    world.connect(&alice, "bob").await;
    reached.by(R::AccountAmbiguous, alice.get_plugin_token(ask(PLUGIN)).await);

    // A refresh whose answer is lost, and whose second try shows that the first one counted.
    let world = World::start().await;
    let alice = world.client("alice");
    let connection = world.connect(&alice, "alice").await;
    world.provider.faults().arm(Endpoint::Token, Fault::CommitThenDrop, 1);
    world.clock.advance(11 * MINUTE);
    assert_eq!(reason(alice.get_plugin_token(ask(PLUGIN)).await), R::ProviderUnreachable, "the one retry waits");
    world.clock.advance(10 * MINUTE);
    reached.by(R::ReauthorizationRequired, alice.get_plugin_token(ask(PLUGIN)).await);
    let get = v1::GetConnectionRequest { connection_id: connection.connection_id };
    let lost = alice.get_connection(get).await.unwrap().connection.unwrap();
    reached.is_told(R::RotationLost, lost.reason());
}

async fn providers(reached: &mut Reached) {
    use ErrorReason as R;
    let world = World::start().await;
    let alice = world.client("alice");
    world.provider.faults().arm(Endpoint::Metadata, Fault::Drop, 8);
    reached.by(R::ProviderUnreachable, alice.start_authorization(start(PLUGIN)).await);
    world.provider.faults().clear();
    // Discovery that failed is not asked for again at once.
    world.clock.advance(10 * MINUTE);
    world.connect(&alice, "alice").await;
    world.provider.faults().arm(Endpoint::Token, Fault::Answer(Answer::new(StatusCode::TOO_MANY_REQUESTS, "")), 8);
    world.clock.advance(11 * MINUTE);
    reached.by(R::ProviderRateLimited, alice.get_plugin_token(ask(PLUGIN)).await);
}

async fn streams(reached: &mut Reached) {
    use ErrorReason as R;
    let mut world = World::start_with(Settings::default()).await;
    let alice = world.client("alice");
    world.stop().await;
    let copy = world.copy_store();
    world.run().await;
    let (old, alice) = (alice, world.client("alice"));
    drop(old);
    world.connect(&alice, "alice").await;
    let watch = v1::WatchCredentialStatusRequest::default;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(alice.watch_credential_status(watch()).await.unwrap());
    }
    reached.by(R::StreamQuota, alice.watch_credential_status(watch()).await);
    let mut stream = open.swap_remove(0);
    drop(open);
    let mut token = Vec::new();
    while token.is_empty() {
        token = stream.message().await.unwrap().unwrap().resume_token;
    }
    let goodbye = tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(message)) => assert!(!matches!(message.body, Some(Body::Opened(_)))),
                Ok(None) => panic!("it ends with a reason"),
                Err(status) => return ClientError::from(status),
            }
        }
    });
    world.stop().await;
    reached.by(R::ShuttingDown, Err::<(), _>(goodbye.await.unwrap()));

    world.put_store_back(&copy);
    world.run().await;
    let alice = world.client("alice");
    let ahead = tokio::spawn(async move {
        let request = v1::WatchCredentialStatusRequest { start: Some(Start::ResumeToken(token)), ..Default::default() };
        alice.watch_credential_status(request).await.map(drop)
    });
    world.clock.someone_sleeps_until(world.now().plus(Duration::from_secs(3))).await;
    world.clock.advance(Duration::from_secs(3));
    reached.by(R::AheadOfLog, timeout(SOON, ahead).await.unwrap().unwrap());
}

async fn operators(reached: &mut Reached) {
    use ErrorReason as R;
    let mut world = backing_up::world().await;
    backing_up::fill(&mut world).await;
    let operator = backing_up::operator(&world);
    let first = backing_up::begin(&operator).await.unwrap();
    reached.by(R::BackupRunning, backing_up::begin(&operator).await);
    drop(first);
    let root = v1::RotateKeyRequest { target: Some(v1::rotate_key_request::Target::Root(true)) };
    reached.by(R::NoNewRootKey, operator.rotate_key(root).await);
    let present = operator.list_keys(v1::ListKeysRequest {}).await.unwrap().keys.swap_remove(0).key_id;
    let unknown = format!("key_{}", "0".repeat(present.len() - 4));
    let retire = async |key_id| operator.retire_key(v1::RetireKeyRequest { key_id }).await;
    reached.by(R::KeyInUse, retire(present).await);
    reached.by(R::KeyUnknown, retire(unknown).await);
}

/// Somebody has edited the store's files: the row is whole, and does not open.
async fn broken_row(reached: &mut Reached) {
    let mut world = World::start().await;
    let connection_id = world.connect(&world.client("alice"), "alice").await.connection_id;
    world.stop().await;
    let records = Records::open(&world).await;
    let key = RecordKey::new(RecordKind::Connection, connection_id.parse::<ConnectionId>().unwrap().as_bytes());
    let store = records.vault.store();
    let row = store.row(key.clone()).await.unwrap().unwrap();
    let edited = |(tag, sealed): &(FieldTag, Sealed)| {
        let mut bytes = sealed.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        (*tag, Sealed::from_bytes(bytes.into()))
    };
    let fields = row.fields.iter().map(edited).collect();
    let write = Write::put(key, Expect::Version(row.version), fields, row.index.clone());
    store.commit(ChangeSet { writes: vec![write], ..ChangeSet::default() }).await.unwrap();
    records.close().await;
    world.run().await;
    let get = v1::GetConnectionRequest { connection_id };
    let broken = world.client("alice").get_connection(get).await.expect_err("it does not open");
    assert!(broken.request_id.is_some(), "the operator finds the cause by it");
    assert!(!broken.message.contains("seal"), "and nobody else does: {}", broken.message);
    reached.by(ErrorReason::Internal, Err::<(), _>(broken));
}

fn oauth_error(status: StatusCode, error: &str) -> Fault {
    Fault::Answer(Answer::json(status, &json!({ "error": error })))
}
