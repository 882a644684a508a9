use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField},
    service::{Rpcs, received, refused},
};
use crate::{
    broker::{GetPluginToken, PluginToken, ScopeEnforcement},
    domain::{Call, Timestamp},
    proto::v1,
};

/// The only type that the broker asks providers for (RFC 6750).
const TOKEN_TYPE: &str = "Bearer";

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::GetPluginTokenRequest>,
) -> Result<Response<v1::GetPluginTokenResponse>, Status> {
    let (call, request) = received(request)?;
    let (call, request) = parse(&call, request)?;
    let token = rpcs.broker.get_plugin_token(&call, request).await.map_err(refused(&call))?;
    Ok(Response::new(encode(token, rpcs.clock.now())))
}

/// The request, and the call with what the request says about it.
pub(super) fn parse(call: &Call, request: v1::GetPluginTokenRequest) -> Result<(Call, GetPluginToken), InvalidField> {
    let context = fields::context(&request.session_id, &request.task_id, &request.platform_request_id)?;
    let scopes = fields::scopes("scopes", &request.scopes)?;
    let request = GetPluginToken {
        plugin: fields::name("plugin", &request.plugin)?,
        account: fields::account("account", request.account)?,
        scopes: (!scopes.is_empty()).then_some(scopes),
        min_remaining: fields::duration("min_remaining", request.min_remaining)?,
        min_generation: (request.min_generation > 0).then_some(request.min_generation),
        rejected_token_sha256: fields::sha256("rejected_token_sha256", &request.rejected_token_sha256)?,
        return_url: fields::optional_url("return_url", &request.return_url)?,
    };
    Ok((Call { context, ..call.clone() }, request))
}

pub(super) fn encode(token: PluginToken, now: Timestamp) -> v1::GetPluginTokenResponse {
    let PluginToken { access_token, connection, usage, enforcement } = token;
    let connection = &connection.value;
    let credential = &connection.credential;
    v1::GetPluginTokenResponse {
        access_token: access_token.into_exposed(),
        token_type: TOKEN_TYPE.to_owned(),
        expires_at: credential.expires_at.map(encode::timestamp),
        expires_in: credential.expires_at.map(|expires_at| encode::duration(expires_at - now)),
        scopes: encode::scopes(&credential.scopes),
        connection_id: connection.id.to_string(),
        credential_id: credential.id.to_string(),
        account: connection.account.clone().unwrap_or_default(),
        generation: credential.generation,
        usage: Some(v1::TokenUsage {
            header: usage.header,
            scheme: usage.scheme,
            base_url: usage.base_url.map(String::from).unwrap_or_default(),
        }),
        scope_enforcement: match enforcement {
            ScopeEnforcement::Exact => v1::ScopeEnforcement::Exact,
            ScopeEnforcement::Advisory => v1::ScopeEnforcement::Advisory,
        }
        .into(),
    }
}
