use tonic::{Request, Response, Status};

use super::{
    encode, rotate_key,
    service::{Rpcs, received, refused},
};
use crate::{
    domain::{KeyKind, KeyState, KeyStatus},
    proto::v1::{self, SealingKeyKind, SealingKeyState},
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::ListKeysRequest>,
) -> Result<Response<v1::ListKeysResponse>, Status> {
    let (call, _) = received(request)?;
    let keys = rpcs.broker.list_keys(&call).await.map_err(refused(&call))?;
    let rotation = rpcs.broker.key_rotation(&call).await.map_err(refused(&call))?;
    Ok(Response::new(v1::ListKeysResponse {
        keys: keys.into_iter().map(sealing_key).collect(),
        rotation: rotation.map(rotate_key::rotation),
    }))
}

fn sealing_key(key: KeyStatus) -> v1::SealingKey {
    let KeyStatus { id, kind, tenant, state, live_rows, made_at } = key;
    v1::SealingKey {
        key_id: id.to_string(),
        kind: match kind {
            KeyKind::Root => SealingKeyKind::Root,
            KeyKind::Tenant => SealingKeyKind::Tenant,
            KeyKind::Log => SealingKeyKind::Log,
        }
        .into(),
        tenant: tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
        state: match state {
            KeyState::Present => SealingKeyState::Present,
            KeyState::Readable => SealingKeyState::Readable,
            KeyState::Rotating => SealingKeyState::Rotating,
            KeyState::Retired => SealingKeyState::Retired,
        }
        .into(),
        live_rows,
        made_at: made_at.map(encode::timestamp),
    }
}
