//! Several requests in one call, each with a result of its own.

use tonic::{Request, Response, Status};

use super::{
    fields, get_plugin_token,
    service::{Rpcs, received, refused},
    status,
};
use crate::{
    broker::{GetPluginToken, MOST_TOKENS},
    domain::Call,
    proto::v1::{self, plugin_token_result::Result as Outcome},
};

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::GetPluginTokensRequest>,
) -> Result<Response<v1::GetPluginTokensResponse>, Status> {
    let (call, v1::GetPluginTokensRequest { requests }) = received(request)?;
    if !(1..=MOST_TOKENS).contains(&requests.len()) {
        return Ok(fields::invalid("requests", "must be 1 to 32")?);
    }
    let mut results = vec![v1::PluginTokenResult::default(); requests.len()];
    let (mut asked, mut places) = (Vec::new(), Vec::new());
    for (place, request) in requests.into_iter().enumerate() {
        match admit(rpcs, &call, place, request) {
            Ok(request) => {
                asked.push(request);
                places.push(place);
            }
            Err(refusal) => results[place] = error(&refusal),
        }
    }
    let tokens = rpcs.broker.get_plugin_tokens(asked).await;
    let now = rpcs.clock.now();
    for (place, token) in places.into_iter().zip(tokens) {
        results[place] = match token {
            Ok(token) => of(Outcome::Token(get_plugin_token::encode(token, now))),
            Err(refusal) => error(&refused(&call)(refusal)),
        };
    }
    Ok(Response::new(v1::GetPluginTokensResponse { results }))
}

/// What one request asks for, as a call of its own.
fn admit(
    rpcs: &Rpcs,
    call: &Call,
    place: usize,
    request: v1::GetPluginTokenRequest,
) -> Result<(Call, GetPluginToken), Status> {
    // The call has paid for the first. Were the others free, the limit would be 32 times what it says.
    if place > 0
        && let Some(limit) = &rpcs.rate_limit
    {
        limit.check(call).map_err(status::rate_limited)?;
    }
    Ok(get_plugin_token::parse(call, request)?)
}

fn error(refusal: &Status) -> v1::PluginTokenResult {
    of(Outcome::Error(status::as_message(refusal)))
}

fn of(outcome: Outcome) -> v1::PluginTokenResult {
    v1::PluginTokenResult { result: Some(outcome) }
}
