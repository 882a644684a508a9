//! Where things belong: the associated data of every sealed field, and every key by which rows are found.

use crate::{
    domain::{
        Attempt, Connection, ConnectionId, CredentialState, EntryId, Flow, FlowId, FlowSecret, Job, JobId, KeyId,
        ProviderId, SubjectId, TenantId, Timestamp,
    },
    sealing::{AssociatedData, InstallationKeys},
    store::{FieldTag, IndexEntry, IndexKind, RecordKey, RecordKind, change::NO_VALUE},
};

use super::flows::FlowIntent;

/// Kinds of sealed things that are no rows; beyond every [`RecordKind`]. Persisted: never renumber.
const EVENT: u8 = 128;
const AUDIT: u8 = 129;
const HELD: u8 = 130;

/// Names the one row of a kind that has only one.
const THE_ONE: [u8; 16] = [0; 16];

/// A field of a row.
pub(super) fn field(record: &RecordKey, tag: FieldTag, generation: u64) -> AssociatedData<'_> {
    AssociatedData { kind: record.kind() as u8, record: record.id(), field: tag as u8, generation }
}

pub(super) fn event(id: &EntryId) -> AssociatedData<'_> {
    AssociatedData { kind: EVENT, record: id.as_bytes(), field: FieldTag::Record as u8, generation: 0 }
}

pub(super) fn audit(id: &EntryId) -> AssociatedData<'_> {
    AssociatedData { kind: AUDIT, record: id.as_bytes(), field: FieldTag::Record as u8, generation: 0 }
}

/// Held tokens stand in files of their own; nothing tells one place from another.
pub(super) fn held() -> AssociatedData<'static> {
    AssociatedData { kind: HELD, record: &[], field: FieldTag::Record as u8, generation: 0 }
}

pub(super) fn installation_row() -> RecordKey {
    RecordKey::new(RecordKind::Installation, THE_ONE)
}

pub(super) fn root_keys_row() -> RecordKey {
    RecordKey::new(RecordKind::RootKeys, THE_ONE)
}

pub(super) fn configuration_row() -> RecordKey {
    RecordKey::new(RecordKind::Configuration, THE_ONE)
}

pub(super) fn suspension_row(keys: &InstallationKeys, provider: &ProviderId) -> RecordKey {
    let hash = keys.lookup().hash(&[b"suspension", provider.as_str().as_bytes()]);
    RecordKey::new(RecordKind::Suspension, hash)
}

pub(super) fn key_row(id: KeyId) -> RecordKey {
    RecordKey::new(RecordKind::Key, id.as_bytes())
}

pub(super) fn tenant_row(keys: &InstallationKeys, tenant: &TenantId) -> RecordKey {
    RecordKey::new(RecordKind::Tenant, keys.lookup().hash(&[b"tenant", tenant.as_str().as_bytes()]))
}

pub(super) fn subject_row(keys: &InstallationKeys, tenant: &TenantId, subject: SubjectId) -> RecordKey {
    let hash = keys.lookup().hash(&[b"subject", tenant.as_str().as_bytes(), subject.as_bytes()]);
    RecordKey::new(RecordKind::Subject, hash)
}

pub(super) fn connection_row(id: ConnectionId) -> RecordKey {
    RecordKey::new(RecordKind::Connection, id.as_bytes())
}

/// Prefix of the connections that are sealed under a key, among all that is.
pub(super) fn connections_under(key: KeyId) -> Vec<u8> {
    [key.as_bytes().as_slice(), &[RecordKind::Connection as u8]].concat()
}

pub(super) fn holders_row(id: ConnectionId) -> RecordKey {
    RecordKey::new(RecordKind::Holders, id.as_bytes())
}

pub(super) fn flow_row(id: FlowId) -> RecordKey {
    RecordKey::new(RecordKind::Flow, id.as_bytes())
}

pub(super) fn attempt_row(keys: &InstallationKeys, state: &FlowSecret) -> RecordKey {
    RecordKey::new(RecordKind::Attempt, keys.lookup().hash(&[b"attempt", state.expose().as_bytes()]))
}

pub(super) fn job_row(id: JobId) -> RecordKey {
    RecordKey::new(RecordKind::Job, id.as_bytes())
}

/// Prefix of a subject's connections; with a provider, of those to it. The provider's hash is the subject's own, so
/// that a dump does not show who shares a provider.
pub(super) fn connections_prefix(
    keys: &InstallationKeys,
    tenant: &TenantId,
    subject: SubjectId,
    provider: Option<&ProviderId>,
) -> Vec<u8> {
    let (tenant, subject) = (tenant.as_str().as_bytes(), subject.as_bytes());
    let mut prefix = keys.lookup().hash(&[b"connections", tenant, subject]).to_vec();
    if let Some(provider) = provider {
        let provider = provider.as_str().as_bytes();
        prefix.extend_from_slice(&keys.lookup().hash(&[b"connections to", tenant, subject, provider]));
    }
    prefix
}

pub(super) fn intent_prefix(keys: &InstallationKeys, tenant: &TenantId, intent: &FlowIntent<'_>) -> Vec<u8> {
    let scopes = intent.scopes.join(' ');
    let subject = intent.subject.as_bytes();
    let parts: [&[u8]; 10] = [
        b"intent",
        tenant.as_str().as_bytes(),
        subject,
        intent.provider.as_str().as_bytes(),
        scopes.as_bytes(),
        &optional(intent.agent.map(|agent| agent.as_str().as_bytes())),
        &optional(intent.plugin.map(|plugin| plugin.as_str().as_bytes())),
        &optional(intent.account.map(str::as_bytes)),
        &optional(intent.return_url.map(|url| url.as_str().as_bytes())),
        &optional(intent.renews.as_ref().map(|connection| connection.as_bytes().as_slice())),
    ];
    keys.lookup().hash(&parts).to_vec()
}

pub(super) fn flows_prefix(keys: &InstallationKeys, tenant: &TenantId, subject: SubjectId) -> Vec<u8> {
    keys.lookup().hash(&[b"flows", tenant.as_str().as_bytes(), subject.as_bytes()]).to_vec()
}

/// `version` is the witness by which a row that was put back alone is known.
pub(super) fn connection_index(
    keys: &InstallationKeys,
    connection: &Connection,
    next: Timestamp,
    version: u64,
) -> Vec<IndexEntry> {
    let Connection { id, tenant, subject, provider, credential, .. } = connection;
    let record = connection_row(*id);
    let mut entries = vec![IndexEntry::due(next, record.clone(), version)];
    // A revoked connection is kept for whoever knows its id, and no longer stands among those that can be used.
    if credential.state != CredentialState::Revoked {
        let owner = connections_prefix(keys, tenant, *subject, Some(provider));
        entries.push(plain(IndexKind::ConnectionsOfSubject, owner, id.as_bytes(), &record));
    }
    entries
}

pub(super) fn flow_index(keys: &InstallationKeys, flow: &Flow, version: u64) -> Vec<IndexEntry> {
    let record = flow_row(flow.id);
    let intent = intent_prefix(keys, &flow.tenant, &FlowIntent::of(flow));
    let owner = flows_prefix(keys, &flow.tenant, flow.subject);
    vec![
        plain(IndexKind::FlowsByIntent, intent, flow.id.as_bytes(), &record),
        plain(IndexKind::FlowsOfSubject, owner, flow.id.as_bytes(), &record),
        IndexEntry::due(flow.forgotten_at(), record, version),
    ]
}

pub(super) fn attempt_index(record: &RecordKey, attempt: &Attempt, version: u64) -> Vec<IndexEntry> {
    vec![IndexEntry::due(attempt.forgotten_at(), record.clone(), version)]
}

pub(super) fn job_index(job: &Job, at: Timestamp, version: u64) -> Vec<IndexEntry> {
    vec![IndexEntry::due(at, job_row(job.id), version)]
}

fn plain(index: IndexKind, mut prefix: Vec<u8>, id: &[u8], record: &RecordKey) -> IndexEntry {
    prefix.extend_from_slice(id);
    IndexEntry { index, key: prefix.into(), record: record.clone(), value: NO_VALUE }
}

/// Absent and empty must not hash alike.
fn optional(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(Vec::new, |value| [&[1], value].concat())
}
