use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField, invalid},
    service::{Rpcs, received, refused},
};
use crate::{
    broker::{OwnFlow, StoreAuthCode, Target},
    domain::{AuthorizationCode, CodeVerifier, FlowSecret},
    proto::v1::{self, own_code, store_auth_code_request::Flow},
};

const LONGEST_CODE: usize = 4096;
const LONGEST_STATE: usize = 512;
const LONGEST_ISSUER: usize = 2048;

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::StoreAuthCodeRequest>,
) -> Result<Response<v1::StoreAuthCodeResponse>, Status> {
    let (call, request) = received(request)?;
    let connection = rpcs.broker.store_auth_code(&call, parse(request)?).await.map_err(refused(&call))?;
    Ok(Response::new(v1::StoreAuthCodeResponse { connection: Some(encode::connection(&connection)) }))
}

fn parse(request: v1::StoreAuthCodeRequest) -> Result<StoreAuthCode, InvalidField> {
    match request.flow {
        None => invalid("flow", "is required"),
        Some(Flow::FlowCode(v1::FlowCode { state, code, iss })) => Ok(StoreAuthCode::Flow {
            state: FlowSecret::new(fields::opaque("flow_code.state", state, LONGEST_STATE)?),
            code: AuthorizationCode::new(fields::opaque("flow_code.code", code, LONGEST_CODE)?),
            iss: match iss {
                none if none.is_empty() => None,
                iss => Some(fields::opaque("flow_code.iss", iss, LONGEST_ISSUER)?),
            },
        }),
        Some(Flow::OwnCode(own)) => Ok(StoreAuthCode::Own(OwnFlow {
            target: match own.target {
                None => return invalid("own_code.target", "is required"),
                Some(own_code::Target::Plugin(plugin)) => Target::Plugin(fields::name("own_code.plugin", &plugin)?),
                Some(own_code::Target::Provider(provider)) => {
                    Target::Provider(fields::name("own_code.provider", &provider)?)
                }
            },
            code: AuthorizationCode::new(fields::opaque("own_code.code", own.code, LONGEST_CODE)?),
            redirect_uri: fields::url("own_code.redirect_uri", &own.redirect_uri)?,
            verifier: verifier(own.code_verifier)?,
            scopes: fields::scopes("own_code.scopes", &own.scopes)?,
        })),
    }
}

/// RFC 7636 §4.1.
fn verifier(unverified: String) -> Result<CodeVerifier, InvalidField> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !(43..=128).contains(&unverified.len()) || !unverified.bytes().all(legal) {
        return invalid("own_code.code_verifier", "must be 43 to 128 of A-Z, a-z, 0-9, '-', '.', '_' and '~'");
    }
    Ok(CodeVerifier::new(unverified))
}
