use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField, invalid},
    service::{Rpcs, received, refused},
};
use crate::{
    domain::{KeyRotation, RotateKey},
    proto::v1::{self, rotate_key_request::Target},
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::RotateKeyRequest>,
) -> Result<Response<v1::RotateKeyResponse>, Status> {
    let (call, request) = received(request)?;
    let rotated = rpcs.broker.rotate_key(&call, parse(&request)?).await.map_err(refused(&call))?;
    Ok(Response::new(v1::RotateKeyResponse { rotation: Some(rotation(rotated)) }))
}

fn parse(request: &v1::RotateKeyRequest) -> Result<RotateKey, InvalidField> {
    match &request.target {
        None => invalid("target", "is required"),
        Some(Target::Root(true)) => Ok(RotateKey::Root),
        Some(Target::Root(false)) => invalid("root", "must be true when given"),
        Some(Target::Tenant(tenant)) => Ok(RotateKey::Tenants(Some(fields::name("tenant", tenant)?))),
        Some(Target::AllTenants(true)) => Ok(RotateKey::Tenants(None)),
        Some(Target::AllTenants(false)) => invalid("all_tenants", "must be true when given"),
    }
}

pub(super) fn rotation(rotation: KeyRotation) -> v1::KeyRotation {
    let KeyRotation { begun, left, started_at } = rotation;
    v1::KeyRotation { begun_rows: begun, left_rows: left, started_at: Some(encode::timestamp(started_at)) }
}
