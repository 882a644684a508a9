use tonic::{Request, Response, Status};

use super::{
    encode, fields,
    service::{Rpcs, received, refused},
};
use crate::proto::v1;

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::GetConnectionRequest>,
) -> Result<Response<v1::GetConnectionResponse>, Status> {
    let (call, request) = received(request)?;
    let id = fields::id("connection_id", &request.connection_id)?;
    let connection = rpcs.broker.get_connection(&call, id).await.map_err(refused(&call))?;
    Ok(Response::new(v1::GetConnectionResponse { connection: Some(encode::connection(&connection)) }))
}
