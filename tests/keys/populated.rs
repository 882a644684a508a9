//! A store with one of everything for several subjects and tenants.

use std::sync::Arc;

use claviger::{
    audit::{Chain, check},
    domain::{
        AuditAction, AuditRecord, Configuration, ConfigurationDigest, Connection, ConnectionId, EntryId, EventKind,
        Flow, FlowId, InstallationId, Job, JobId, JobKind, KeyId, KeyKind, KeyState, KeyStatus, ProviderId, Reach,
        Revision, SubjectId, Suspension, TenantId, Timestamp, Told, installation_tenant,
    },
    sealing::{AuditKey, Random, RootKeys},
    store::{IndexKind, Store},
    vault::{ErasureList, Parked, Rotating, Vault, VaultError},
};
use tempfile::TempDir;

use crate::{
    memory_store::MemoryStore,
    specimens::{
        acme, alice, attempt, audit_record, bob, connection, event, flow, flow_tokens, holders, job, root, state,
        tokens, umbrella, verifier,
    },
};

pub(crate) const LATER: Timestamp = Timestamp::from_secs(2_000);

/// Who is in it, each with a number of their own.
pub(crate) fn people() -> [(u8, TenantId, SubjectId); 3] {
    [(1, acme(), alice()), (2, acme(), bob()), (3, umbrella(), alice())]
}

pub(crate) struct Populated {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Vault,
    audit_key: AuditKey,
    directory: TempDir,
}

impl Populated {
    /// In memory, under root key 1.
    pub(crate) async fn new() -> Self {
        let audit_key = AuditKey::default();
        let (installation, epoch) = (InstallationId::from_bytes([1; 16]), EntryId::from_bytes([2; 16]));
        let store: Arc<dyn Store> =
            Arc::new(MemoryStore::new(installation, epoch, Box::new(Chain::new(audit_key.clone()))));
        Self::over(store, audit_key).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>, audit_key: AuditKey) -> Self {
        let vault = Vault::open(store.clone(), root(1), Random::system(), &audit_key).await.unwrap();
        for (number, tenant, subject) in people() {
            write_one_of_each(&vault, number, &tenant, subject).await;
        }
        let mut change = vault.change(&installation_tenant(), None).await.unwrap();
        change.put_configuration(None, &configuration());
        change.put_suspension(None, &suspension(), Timestamp::NEVER);
        change.commit().await.unwrap();
        Self { store, vault, audit_key, directory: TempDir::with_prefix("claviger-test-").unwrap() }
    }

    /// Another process over the same store.
    pub(crate) async fn open_as(&self, store: Arc<dyn Store>, roots: RootKeys) -> Result<Vault, VaultError> {
        Vault::open(store, roots, Random::system(), &self.audit_key).await
    }

    pub(crate) async fn open(&self, roots: RootKeys) -> Result<Vault, VaultError> {
        self.open_as(self.store.clone(), roots).await
    }

    pub(crate) fn erasures(&self) -> ErasureList {
        ErasureList::new(self.directory.path().join("erasures"))
    }
}

/// The provider that refuses this installation.
pub(crate) fn refused() -> ProviderId {
    "refusing-canary".parse().unwrap()
}

fn suspension() -> Suspension {
    let told = Told { since: LATER, suspended: Reach::All, resumed: None };
    Suspension { tenant: installation_tenant(), provider: refused(), refusal: None, told: Some(told) }
}

/// Root keys `newest`, and those before it down to 1.
pub(crate) fn roots(newest: u8) -> RootKeys {
    RootKeys::new(root(newest), (1..newest).rev().map(root).collect())
}

pub(crate) fn said(action: AuditAction, at: Timestamp) -> AuditRecord {
    AuditRecord::by_broker(installation_tenant(), action, at)
}

/// Begins what was not begun, and goes on with everything until its end.
pub(crate) async fn rotate_everything(vault: &Vault, at: Timestamp) -> Result<(), VaultError> {
    let record = said(AuditAction::KeyRotated, at);
    match vault.begin_root_rotation(&record).await {
        // The earlier process began it and came to its end.
        Ok(_) | Err(VaultError::NoNewRootKey { .. }) => {}
        Err(error) => return Err(error),
    }
    for tenant in vault.tenants().await? {
        vault.begin_tenant_rotation(&tenant, &record).await?;
    }
    finish(vault).await
}

pub(crate) async fn finish(vault: &Vault) -> Result<(), VaultError> {
    for (what, _) in vault.rotations().await? {
        go_to_the_end(vault, &what).await?;
    }
    Ok(())
}

pub(crate) async fn go_to_the_end(vault: &Vault, what: &Rotating) -> Result<(), VaultError> {
    while vault.go_on_rotating(what).await? {}
    Ok(())
}

/// Every record of everybody opens and says what was written.
pub(crate) async fn assert_readable(vault: &Vault) {
    for (number, tenant, subject) in people() {
        assert_readable_of(vault, number, &tenant, subject).await;
    }
    assert_eq!(vault.configuration().await.unwrap().unwrap().value, configuration());
    assert_eq!(vault.suspension(&refused()).await.unwrap().unwrap().value, suspension());
    assert_logs_hold(vault).await;
    assert_eq!(vault.alarms(), 0);
}

pub(crate) async fn assert_readable_of(vault: &Vault, number: u8, tenant: &TenantId, subject: SubjectId) {
    let (connection, flow, waiting) = (connection_of(number), flow_of(number), tokens(10 + number));
    let stored = vault.connection(tenant, connection.id).await.unwrap().unwrap();
    assert_eq!(stored.value, connection);
    assert!(vault.connection_tokens(&stored).await.unwrap().unwrap().access == tokens(number).access);
    assert_eq!(vault.connections(tenant, subject, None).await.unwrap().len(), 1);
    assert_eq!(vault.holders(&connection).await.unwrap().unwrap().value, holders(&connection));
    let found = vault.connection_of_credential(tenant, subject, connection.credential.id).await.unwrap();
    assert_eq!(found.unwrap().value.id, connection.id);
    let stored = vault.flow(tenant, flow.id).await.unwrap().unwrap();
    assert_eq!(stored.value, flow);
    assert!(vault.flow_tokens(&stored).await.unwrap().unwrap().tokens.refresh == waiting.refresh);
    let stored = vault.attempt(&state(number)).await.unwrap().unwrap();
    assert!(vault.attempt_verifier(&stored).await.unwrap() == verifier());
    for (job, tokens) in [(job_of(number), tokens(20 + number)), (orphan_of(number), tokens(30 + number))] {
        let stored = vault.job(job.id).await.unwrap().unwrap();
        assert_eq!(stored.value, job);
        assert!(vault.job_tokens(&stored).await.unwrap().unwrap().refresh == tokens.refresh);
    }
    assert!(vault.subject(tenant, subject).await.unwrap().is_some());
}

/// All events and audit records open, and the chain holds.
pub(crate) async fn assert_logs_hold(vault: &Vault) {
    let head = vault.store().head();
    let audit = vault.audit(0, 10_000).await.unwrap();
    assert_eq!(audit.len() as u64, head.audit);
    let entries = vault.store().audit(0, 10_000).await.unwrap();
    let end = check(vault.keys().audit(), None, entries.iter().map(|entry| &*entry.linked)).unwrap();
    assert_eq!(end.unwrap().sequence, head.audit);
    let events = vault.events(Revision::default(), 10_000).await.unwrap();
    assert!(events.iter().all(|(_, events)| !events.is_empty()));
    let connected = events.iter().flat_map(|(_, events)| events).filter(|event| event.kind == EventKind::Connected);
    assert_eq!(connected.count(), people().len());
}

/// The rows that are sealed under a key, as the index has them.
pub(crate) async fn live_rows(store: &dyn Store, key: KeyId) -> usize {
    let prefix = bytes::Bytes::copy_from_slice(key.as_bytes());
    store.index(IndexKind::SealedUnder, prefix, None, usize::MAX).await.unwrap().len()
}

pub(crate) async fn keys_in_state(vault: &Vault, kind: KeyKind, state: KeyState) -> Vec<KeyStatus> {
    let mut keys = vault.list_keys().await.unwrap();
    keys.retain(|key| (key.kind, key.state) == (kind, state));
    keys
}

async fn write_one_of_each(vault: &Vault, number: u8, tenant: &TenantId, subject: SubjectId) {
    let (connection, flow) = (connection_of(number), flow_of(number));
    let mut change = vault.change(tenant, Some(subject)).await.unwrap();
    change.insert_connection(&connection, &tokens(number), LATER);
    change.put_holders(None, &holders(&connection));
    change.insert_flow(&flow);
    change.insert_attempt(&attempt(&flow), &state(number), &verifier(), None);
    change.insert_job(&job_of(number), Some(&tokens(20 + number)), LATER);
    change.insert_job(&orphan_of(number), Some(&tokens(30 + number)), LATER);
    change.event(&event(&connection, EventKind::Connected));
    change.audit(&AuditRecord { tenant: tenant.clone(), subject: Some(subject), ..audit_record() });
    change.commit().await.unwrap();
    let stored = vault.flow(tenant, flow.id).await.unwrap().unwrap();
    let mut change = vault.change(tenant, Some(subject)).await.unwrap();
    change.update_flow(&stored, &flow, Parked::Replace(&flow_tokens(10 + number)));
    change.commit().await.unwrap();
}

fn configuration() -> Configuration {
    let digest = ConfigurationDigest([7; 32]);
    Configuration { tenant: installation_tenant(), version: 1, digest, since: LATER }
}

fn person(number: u8) -> (TenantId, SubjectId) {
    let (_, tenant, subject) = people().into_iter().find(|(known, ..)| *known == number).unwrap();
    (tenant, subject)
}

pub(crate) fn connection_of(number: u8) -> Connection {
    let (tenant, subject) = person(number);
    Connection { id: ConnectionId::from_bytes([number; 16]), tenant, subject, ..connection(number) }
}

pub(crate) fn flow_of(number: u8) -> Flow {
    let (tenant, subject) = person(number);
    Flow { id: FlowId::from_bytes([number; 16]), tenant, subject, ..flow(u16::from(number)) }
}

/// Under the subject's key.
pub(crate) fn job_of(number: u8) -> Job {
    let (tenant, subject) = person(number);
    let kind = JobKind::RevokeTokens { provider: "github-canary".parse().unwrap(), connection: None };
    Job { id: JobId::from_bytes([number; 16]), tenant, subject, ..job(number, kind) }
}

/// Under the tenant's key.
pub(crate) fn orphan_of(number: u8) -> Job {
    let (tenant, subject) = person(number);
    let kind = JobKind::RevokeErased { provider: "github-canary".parse().unwrap() };
    Job { id: JobId::from_bytes([100 + number; 16]), tenant, subject, ..job(number, kind) }
}
