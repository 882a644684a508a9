use tonic::{Request, Response, Status};

use super::{
    create_backup, encode, rotate_key,
    service::{Rpcs, received, refused},
};
use crate::{
    broker,
    domain::{ProviderId, Refusal},
    proto::v1,
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::GetStatusRequest>,
) -> Result<Response<v1::GetStatusResponse>, Status> {
    let (call, _) = received(request)?;
    let status = rpcs.broker.get_status(&call).await.map_err(refused(&call))?;
    Ok(Response::new(response(status)))
}

fn response(status: broker::Status) -> v1::GetStatusResponse {
    let broker::Status {
        version,
        started_at,
        uptime,
        ready,
        head,
        backup_running,
        last_backup,
        root_key,
        rotation,
        alarms,
        refused,
    } = status;
    v1::GetStatusResponse {
        version: version.to_owned(),
        started_at: Some(encode::timestamp(started_at)),
        uptime: Some(encode::duration(uptime)),
        ready,
        store: Some(v1::StoreStatus {
            available: head.available,
            installation_id: head.installation.to_string(),
            epoch: head.epoch.to_string(),
            revision: head.revision.0,
            compacted_revision: head.compacted.0,
            audit_record: head.audit,
            audit_purged: head.audit_purged,
        }),
        backup_running,
        last_backup: last_backup.map(create_backup::summary),
        root_key_id: root_key.map(|key| key.to_string()).unwrap_or_default(),
        rotation: rotation.map(rotate_key::rotation),
        alarms,
        suspended_providers: refused.iter().map(suspended).collect(),
    }
}

fn suspended((provider, refusal): &(ProviderId, Refusal)) -> v1::SuspendedProvider {
    v1::SuspendedProvider {
        provider: provider.to_string(),
        since: Some(encode::timestamp(refusal.since)),
        next_attempt_at: Some(encode::timestamp(refusal.next_attempt_at)),
    }
}
