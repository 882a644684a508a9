//! The whole broker behind its gRPC server, and whoever changes what it serves: events are committed as the broker commits
//! them, and each says in its generation when that began.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use claviger::{
    app::SystemClock,
    audit::Chain,
    broker::{self, Broker, Catalog, Retention, Tenant, WatchQuotas},
    domain::{
        AccessToken, Clock, Connection, ConnectionId, Consent, Credential, CredentialEvent, CredentialId,
        CredentialState, CredentialStatus, EntryId, EventKind, Granted, InstallationId, Plugin, Provider, ScopeSet,
        SubjectId, TenantId, TokenUsage,
    },
    events::Hub,
    grpc::{self, RequestIds, Server, WIRE},
    identity::Authenticator,
    oauth::{AuthorizationServers, definitions},
    outbound::{Outbound, Policy},
    proto::v1,
    sealing::{AuditKey, Random, RootKey},
    store::{
        Store,
        sled::{SledOptions, SledStore},
    },
    vault::{ErasureList, TokenSet, Vault},
};
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::children::obey;

pub(super) const PLUGIN: &str = "notes";
/// Has a connection, whose token is read.
pub(super) const READER: &str = "reader";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// In the runtime that the binary's `main` has. `issuer`: of the callers' tokens.
#[tokio::main]
pub(super) async fn serve(directory: &Path, issuer: &str) {
    fs::create_dir_all(directory).unwrap();
    let (broker, vault, authenticator) = start(directory, issuer).await;
    connect(&vault).await;
    let settings = grpc::Settings { rate: None, ..grpc::Settings::default() };
    let (clock, request_ids) = (Arc::new(SystemClock), RequestIds::new([1; 8]));
    let server = Server::new(grpc::Parts { broker, authenticator, clock, request_ids, settings });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener, std::future::pending()));
    obey(address, |line| {
        let vault = vault.clone();
        async move {
            match line.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["event", user] => commit(vault, user.to_owned()).await,
                ["flow", users, rate, seconds] => {
                    flow(&vault, users.parse().unwrap(), rate.parse().unwrap(), seconds.parse().unwrap()).await;
                }
                _ => panic!("{line:?} is no order"),
            }
        }
    })
    .await;
}

/// So many events a second, to one user after the other, each when it is time for it.
async fn flow(vault: &Vault, users: u32, rate: u32, seconds: u32) {
    let mut commits = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for number in 0..rate * seconds {
        ticks.tick().await;
        commits.spawn(commit(vault.clone(), flow_user(number % users)));
    }
    while let Some(committed) = commits.join_next().await {
        committed.unwrap();
    }
}

pub(super) fn flow_user(number: u32) -> String {
    format!("user-{number}")
}

async fn commit(vault: Vault, user: String) {
    let event = happened(&user, now());
    let mut change = vault.change(&tenant(), Some(event.status.subject)).await.unwrap();
    change.event(&event);
    change.commit().await.unwrap();
}

/// The same as bytes of a batch, for whoever has no broker.
pub(super) fn event(user: &str, at: u64) -> v1::WatchBatch {
    let event = v1::CredentialEvent::decode(&*(WIRE.event)(&happened(user, at))).unwrap();
    v1::WatchBatch { events: vec![event], more_follows: false }
}

/// Microseconds since the Unix epoch, the same in every process of this machine.
pub(super) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn happened(user: &str, at: u64) -> CredentialEvent {
    let connection = connection(user);
    CredentialEvent {
        kind: EventKind::Refreshed,
        tenant: tenant(),
        occurred_at: SystemClock.now(),
        status: CredentialStatus {
            credential: connection.credential.id,
            connection: connection.id,
            subject: connection.subject,
            agent: None,
            provider: connection.provider,
            state: CredentialState::Connected,
            generation: at,
            scopes: connection.credential.scopes,
            expires_at: connection.credential.expires_at,
            reason: None,
            authorization_ends_at: None,
        },
    }
}

async fn connect(vault: &Vault) {
    let connection = connection(READER);
    let due = connection.credential.expires_at.unwrap();
    let access = AccessToken::new("a".repeat(1400));
    let mut change = vault.change(&tenant(), Some(connection.subject)).await.unwrap();
    change.insert_connection(&connection, &TokenSet { access, refresh: None, id_token: None }, due);
    change.commit().await.unwrap();
}

fn connection(user: &str) -> Connection {
    let (now, subject) = (SystemClock.now(), subject(user));
    let id: [u8; 16] = subject.as_bytes()[..16].try_into().unwrap();
    let granted =
        Granted { scopes: scopes(), expires_at: Some(now.plus(DAY)), refreshable: false, refresh_token_end: None };
    Connection {
        id: ConnectionId::from_bytes(id),
        tenant: tenant(),
        subject,
        provider: PLUGIN.parse().unwrap(),
        account: Some("someone@example.com".to_owned()),
        created_at: now,
        consent: Consent { subject, agent: None, scopes: scopes(), at: now },
        credential: Credential::pending(CredentialId::from_bytes(id), now).authorized(granted, now).unwrap().credential,
        remote_revocation: None,
        withheld: false,
    }
}

/// Of the caller whose token has this `sub`.
fn subject(user: &str) -> SubjectId {
    let mut bytes = [0; 32];
    bytes[..user.len()].copy_from_slice(user.as_bytes());
    SubjectId::from_bytes(bytes)
}

fn tenant() -> TenantId {
    "acme".parse().unwrap()
}

fn scopes() -> ScopeSet {
    ["notes.read", "notes.write"].into_iter().map(|scope| scope.parse().unwrap()).collect()
}

async fn start(directory: &Path, issuer: &str) -> (Broker, Vault, Arc<Authenticator>) {
    let (key, random) = (AuditKey::default(), Random::system());
    let options = SledOptions {
        directory: directory.join("store"),
        page_cache: 64 << 20,
        row_cache: 16 << 20,
        installation: InstallationId::from_bytes([1; 16]),
        epoch: EntryId::from_bytes([2; 16]),
    };
    let store: Arc<dyn Store> = Arc::new(SledStore::open(options, Box::new(Chain::new(key.clone()))).await.unwrap());
    let root = RootKey::from_secret(&random.secret().unwrap());
    let vault = Vault::open(store, root, random.clone(), &key).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let outbound = Outbound::new(&Policy { allow_http_loopback: true, ..Policy::default() }).unwrap();
    let issuers = format!(
        "id = \"platform\"\n[[issuers]]\nissuer = \"{issuer}\"\naudiences = [\"claviger\"]\ntenant = {{ fixed = \"acme\" }}"
    );
    let known = Box::new(|_: &_, _: &str, claims: &[&str]| subject(claims[0]));
    let (families, secret) = (vec![toml::from_str(&issuers).unwrap()], random.secret().unwrap());
    let authenticator = Authenticator::new(families, &outbound, Arc::clone(&clock), known, &secret).unwrap();
    let (authenticator, hub) = (Arc::new(authenticator), Hub::new(vault.clone(), WIRE, Arc::clone(&clock)));
    tokio::spawn(hub.clone().run(CancellationToken::new()));
    let parts = broker::Parts {
        servers: AuthorizationServers::new(outbound, Arc::clone(&clock)),
        authenticator: Arc::clone(&authenticator),
        catalog: Arc::new(catalog()),
        hub,
        vault: vault.clone(),
        clock,
        settings: broker::Settings {
            provider_timeout: Duration::from_secs(10),
            audit_window: Duration::from_secs(10),
            retention: Retention::default(),
            watch: WatchQuotas { per_principal: u32::MAX, ..WatchQuotas::default() },
            held_directory: None,
            erasures: ErasureList::new(directory.join("erasures")),
            public_url: None,
        },
    };
    (Broker::start(parts).await.unwrap(), vault, authenticator)
}

fn catalog() -> Catalog {
    let mut definition = definitions::shipped("oidc").unwrap();
    definition.issuer = Some("https://notes.example".parse().unwrap());
    let provider = Provider {
        id: PLUGIN.parse().unwrap(),
        definition,
        client_id: "bench".to_owned(),
        client_secret: None,
        refreshes_per_second: Provider::REFRESHES_PER_SECOND,
    };
    let plugin = Plugin {
        id: PLUGIN.parse().unwrap(),
        display_name: "Notes".to_owned(),
        provider: provider.id.clone(),
        scopes: scopes(),
        usage: TokenUsage::default(),
        enabled: true,
    };
    Catalog {
        tenants: HashMap::from([(tenant(), Tenant { return_urls: Vec::new(), redirect_uris: Vec::new() })]),
        plugins: HashMap::from([(plugin.id.clone(), plugin)]),
        providers: HashMap::from([(provider.id.clone(), Arc::new(provider))]),
    }
}
