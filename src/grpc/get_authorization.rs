use std::time::Duration;

use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField},
    service::{Rpcs, received, refused},
};
use crate::{
    broker::{LONGEST_WAIT, ShownConnection},
    domain::{Flow, FlowId, FlowState, Reason, Timestamp},
    proto::v1::{self, AuthorizationState},
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::GetAuthorizationRequest>,
) -> Result<Response<v1::GetAuthorizationResponse>, Status> {
    let (call, request) = received(request)?;
    let (id, wait) = parse(&request)?;
    let flow = rpcs.broker.get_authorization(&call, id, wait).await.map_err(refused(&call))?;
    let connection = match flow.state {
        FlowState::Completed { connection } => {
            Some(rpcs.broker.get_connection(&call, connection).await.map_err(refused(&call))?)
        }
        _ => None,
    };
    Ok(Response::new(encode(&flow, connection.as_ref(), rpcs.clock.now())))
}

fn parse(request: &v1::GetAuthorizationRequest) -> Result<(FlowId, Duration), InvalidField> {
    let wait = fields::duration("wait", request.wait)?.unwrap_or_default();
    Ok((fields::id("flow_id", &request.flow_id)?, wait.min(LONGEST_WAIT)))
}

/// A flow whose code is being exchanged has not expired, however long that takes.
fn encode(flow: &Flow, connection: Option<&ShownConnection>, now: Timestamp) -> v1::GetAuthorizationResponse {
    let (state, reason) = match flow.state {
        FlowState::Open if !flow.is_live(now) => (AuthorizationState::Expired, Some(Reason::FlowExpired)),
        FlowState::Open | FlowState::Exchanging | FlowState::Exchanged => (AuthorizationState::Pending, None),
        FlowState::Completed { .. } => (AuthorizationState::Completed, None),
        FlowState::Denied => (AuthorizationState::Denied, Some(Reason::FlowDenied)),
        FlowState::Failed { reason } => (AuthorizationState::Failed, Some(reason)),
    };
    v1::GetAuthorizationResponse {
        state: state.into(),
        reason: encode::optional_reason(reason).into(),
        connection: connection.map(encode::connection),
        expires_at: Some(encode::timestamp(flow.expires_at)),
    }
}
