//! The event log of a broker that is gone, as the wire says it: what watchers' histories are held against.

use claviger::{
    domain::{self, Revision},
    proto::v1::{self, CredentialEventKind as Kind, CredentialState, ErrorReason},
    vault::Vault,
};

use crate::watch_validator::Log;

/// All events, whoever's.
pub(crate) async fn read(vault: &Vault) -> Log {
    let compacted = vault.store().head().compacted.0;
    let revisions = vault.events(Revision(0), usize::MAX).await.unwrap();
    let revisions = revisions.into_iter().map(|(revision, events)| (revision.0, events.iter().map(sent).collect()));
    Log { compacted, revisions: revisions.collect() }
}

fn sent(event: &domain::CredentialEvent) -> v1::CredentialEvent {
    let time = |at: domain::Timestamp| std::time::SystemTime::UNIX_EPOCH + (at - domain::Timestamp::EPOCH);
    let time = |at: domain::Timestamp| prost_types::Timestamp::from(time(at));
    let status = &event.status;
    let kind = Kind::from_str_name(&format!("CREDENTIAL_EVENT_KIND_{}", name(&event.kind)));
    let state = CredentialState::from_str_name(&format!("CREDENTIAL_STATE_{}", name(&status.state)));
    let reason = status.reason.map(|reason| ErrorReason::from_str_name(&format!("ERROR_REASON_{reason}")).unwrap());
    let ids = v1::CredentialStatus {
        credential_id: status.credential.to_string(),
        connection_id: status.connection.to_string(),
        subject: status.subject.to_string(),
        ..Default::default()
    };
    if event.kind == domain::EventKind::AccessLost {
        let (kind, occurred_at) = (kind.unwrap().into(), Some(time(event.occurred_at)));
        return v1::CredentialEvent { kind, occurred_at, status: Some(ids) };
    }
    v1::CredentialEvent {
        kind: kind.unwrap().into(),
        occurred_at: Some(time(event.occurred_at)),
        status: Some(v1::CredentialStatus {
            agent: status.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
            provider: status.provider.to_string(),
            state: state.unwrap().into(),
            generation: status.generation,
            scopes: status.scopes.iter().map(ToString::to_string).collect(),
            expires_at: status.expires_at.map(time),
            reason: reason.unwrap_or_default().into(),
            authorization_ends_at: status.authorization_ends_at.map(time),
            ..ids
        }),
    }
}

/// As the contract writes it.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_uppercase()
}
