use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField},
    service::{Rpcs, received, refused},
};
use crate::{domain::ProviderId, proto::v1};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::ListConnectionsRequest>,
) -> Result<Response<v1::ListConnectionsResponse>, Status> {
    let (call, request) = received(request)?;
    let provider = parse(&request)?;
    let connections = rpcs.broker.list_connections(&call, provider.as_ref()).await.map_err(refused(&call))?;
    Ok(Response::new(v1::ListConnectionsResponse { connections: connections.iter().map(encode::connection).collect() }))
}

fn parse(request: &v1::ListConnectionsRequest) -> Result<Option<ProviderId>, InvalidField> {
    match request.provider.as_str() {
        "" => Ok(None),
        provider => fields::name("provider", provider).map(Some),
    }
}
