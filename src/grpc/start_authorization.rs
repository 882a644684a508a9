use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField, invalid},
    service::{Rpcs, received, refused},
};
use crate::{
    broker::{Binding, StartAuthorization, Target},
    proto::v1::{self, AuthorizationBinding, start_authorization_request},
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::StartAuthorizationRequest>,
) -> Result<Response<v1::StartAuthorizationResponse>, Status> {
    let (call, request) = received(request)?;
    let started = rpcs.broker.start_authorization(&call, parse(request)?).await.map_err(refused(&call))?;
    Ok(Response::new(v1::StartAuthorizationResponse {
        authorization_url: started.authorization_url.into(),
        flow_id: started.flow.id.to_string(),
        expires_at: Some(encode::timestamp(started.flow.expires_at)),
    }))
}

fn parse(request: v1::StartAuthorizationRequest) -> Result<StartAuthorization, InvalidField> {
    let scopes = fields::scopes("scopes", &request.scopes)?;
    let target = match &request.target {
        None => return invalid("target", "is required"),
        Some(start_authorization_request::Target::Plugin(plugin)) => Target::Plugin(fields::name("plugin", plugin)?),
        Some(start_authorization_request::Target::Provider(provider)) => {
            if scopes.is_empty() {
                return invalid("scopes", "is required with a provider");
            }
            Target::Provider(fields::name("provider", provider)?)
        }
    };
    let binding = match fields::enumeration("binding", request.binding)? {
        AuthorizationBinding::Caller => {
            Binding::Caller { redirect_uri: fields::url("redirect_uri", &request.redirect_uri)? }
        }
        AuthorizationBinding::Unspecified | AuthorizationBinding::Browser => {
            if !request.redirect_uri.is_empty() {
                return invalid("redirect_uri", "must be empty with binding BROWSER");
            }
            Binding::Browser
        }
    };
    Ok(StartAuthorization {
        target,
        scopes,
        account: fields::account("account", request.account)?,
        binding,
        return_url: fields::optional_url("return_url", &request.return_url)?,
    })
}
