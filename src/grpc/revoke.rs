use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField, invalid},
    service::{Rpcs, received, refused},
};
use crate::{
    broker::{Revoke, RevokeTarget, RevokedConnection},
    domain::RemoteRevocation,
    proto::v1::{self, revoke_request::Target},
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::RevokeRequest>,
) -> Result<Response<v1::RevokeResponse>, Status> {
    let (call, request) = received(request)?;
    let preview = request.preview;
    let revoked = rpcs.broker.revoke(&call, parse(&request)?).await.map_err(refused(&call))?;
    Ok(Response::new(v1::RevokeResponse {
        results: revoked.into_iter().map(|revoked| result(revoked, preview)).collect(),
    }))
}

fn parse(request: &v1::RevokeRequest) -> Result<Revoke, InvalidField> {
    let target = match &request.target {
        None => return invalid("target", "is required"),
        Some(Target::ConnectionId(connection)) => RevokeTarget::Connection(fields::id("connection_id", connection)?),
        Some(Target::Plugin(plugin)) => RevokeTarget::Plugin(fields::name("plugin", plugin)?),
        Some(Target::AllMine(true)) => RevokeTarget::AllMine,
        Some(Target::AllMine(false)) => return invalid("all_mine", "must be true when given"),
    };
    Ok(Revoke { target, preview: request.preview })
}

/// A preview says what would be stopped.
fn result(revoked: RevokedConnection, preview: bool) -> v1::RevokeResult {
    let RevokedConnection { connection, stopped, remote, side_effects, holders } = revoked;
    let stopped = if preview { !connection.credential.state.is_stopped() } else { stopped };
    v1::RevokeResult {
        connection_id: connection.id.to_string(),
        provider: connection.provider.to_string(),
        account: connection.account.unwrap_or_default(),
        local_outcome: if stopped { v1::LocalOutcome::Stopped } else { v1::LocalOutcome::AlreadyStopped }.into(),
        remote_outcome: match remote {
            RemoteRevocation::Confirmed => v1::RemoteOutcome::Confirmed,
            RemoteRevocation::Pending => v1::RemoteOutcome::Pending,
            RemoteRevocation::Unsupported => v1::RemoteOutcome::Unsupported,
            RemoteRevocation::Failed => v1::RemoteOutcome::Failed,
        }
        .into(),
        side_effects,
        holders: holders.list().iter().map(encode::holder).collect(),
        holders_forgotten: holders.forgotten(),
    }
}
