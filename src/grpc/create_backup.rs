use futures_util::StreamExt;
use tonic::{Request, Response, Status};

use super::{
    encode,
    service::{BackupStream, Rpcs, received, refused},
};
use crate::{
    broker::{BackupPart, BackupSummary},
    proto::v1,
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::CreateBackupRequest>,
) -> Result<Response<BackupStream>, Status> {
    let (call, _) = received(request)?;
    let parts = rpcs.broker.create_backup(&call).await.map_err(refused(&call))?;
    Ok(Response::new(Box::pin(parts.map(move |part| part.map(response).map_err(refused(&call))))))
}

fn response(part: BackupPart) -> v1::CreateBackupResponse {
    let BackupPart { archive, rows, end } = part;
    v1::CreateBackupResponse { archive: archive.into(), rows, end: end.map(summary) }
}

pub(super) fn summary(summary: BackupSummary) -> v1::BackupSummary {
    let BackupSummary { finished_at, revision, rows, bytes } = summary;
    v1::BackupSummary { finished_at: Some(encode::timestamp(finished_at)), revision: revision.0, rows, bytes }
}
