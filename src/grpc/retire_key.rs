use tonic::{Request, Response, Status};

use super::{
    fields,
    service::{Rpcs, received, refused},
};
use crate::proto::v1;

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::RetireKeyRequest>,
) -> Result<Response<v1::RetireKeyResponse>, Status> {
    let (call, request) = received(request)?;
    let key = fields::id("key_id", &request.key_id)?;
    rpcs.broker.retire_key(&call, key).await.map_err(refused(&call))?;
    Ok(Response::new(v1::RetireKeyResponse {}))
}
