use tonic::{Request, Response, Status};

use super::{
    encode,
    service::{Rpcs, received, refused},
};
use crate::{
    broker::Validation,
    domain::{Caller, PresentedToken, Role},
    proto::v1,
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::ValidatePlatformTokenRequest>,
) -> Result<Response<v1::ValidatePlatformTokenResponse>, Status> {
    let (call, request) = received(request)?;
    let unverified = (!request.token.is_empty()).then(|| PresentedToken::new(request.token));
    let validation = rpcs.broker.validate_platform_token(&call, unverified).await.map_err(refused(&call))?;
    Ok(Response::new(match validation {
        Validation::Valid(caller) => encode(&caller),
        Validation::Invalid(reason) => {
            v1::ValidatePlatformTokenResponse { reason: encode::reason(reason).into(), ..Default::default() }
        }
    }))
}

fn encode(caller: &Caller) -> v1::ValidatePlatformTokenResponse {
    let Caller { tenant, subject, external_id, agent, audience, scopes, roles, expires_at, .. } = caller;
    let role = |role: &Role| match role {
        Role::User => v1::Role::User.into(),
        Role::Operator => v1::Role::Operator.into(),
    };
    v1::ValidatePlatformTokenResponse {
        valid: true,
        reason: v1::ErrorReason::Unspecified.into(),
        tenant: tenant.to_string(),
        subject: subject.to_string(),
        external_id: external_id.clone(),
        agent: agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        audience: audience.clone(),
        scopes: encode::scopes(scopes),
        roles: roles.iter().map(role).collect(),
        expires_at: Some(encode::timestamp(*expires_at)),
    }
}
