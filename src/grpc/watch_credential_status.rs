use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::{
    fields::{self, InvalidField, invalid},
    service::{Rpcs, received, refused},
    status,
    watch_wire::{Outgoing, Progress},
};
use crate::{
    broker::{Delivery, OnLost, Start, Watch, WatchFilter},
    domain::EventKind,
    proto::v1::{self, CredentialEventKind, watch_credential_status_request as request, watch_scope::Target},
};

const MOST_SCOPES: usize = 256;
const MOST_KINDS: usize = 64;
const LONGEST_RESUME_TOKEN: usize = 1024;

pub(super) async fn answer(
    rpcs: Rpcs,
    request: Request<v1::WatchCredentialStatusRequest>,
) -> Result<Response<impl Stream<Item = Result<Outgoing, Status>> + use<>>, Status> {
    let connection = request.remote_addr();
    let (call, request) = received(request)?;
    let watch = Watch { connection, ..parse(request)? };
    let mut progress = Progress { delivery: watch.delivery, on_lost: watch.on_lost, revision: 0 };
    let messages = rpcs.broker.watch(&call, watch).await.map_err(refused(&call))?;
    // Of the call only what is needed until the stream ends.
    let request_id = call.request_id;
    Ok(Response::new(messages.map(move |message| match message {
        Ok(message) => Ok(progress.prepare(message)),
        Err(error) => Err(status::of_broker(&error, &request_id)),
    })))
}

fn parse(request: v1::WatchCredentialStatusRequest) -> Result<Watch, InvalidField> {
    Ok(Watch {
        filter: filter(&request.scopes, &request.kinds)?,
        start: match request.start {
            None | Some(request::Start::Snapshot(true)) => Start::Snapshot,
            Some(request::Start::Snapshot(false)) => return invalid("snapshot", "must be true when given"),
            Some(request::Start::Now(true)) => Start::Now,
            Some(request::Start::Now(false)) => return invalid("now", "must be true when given"),
            Some(request::Start::ResumeToken(token)) => match token.len() {
                0 => return invalid("resume_token", "must not be empty when given"),
                1..=LONGEST_RESUME_TOKEN => Start::Resume(token),
                _ => return invalid("resume_token", "is not a token of this installation"),
            },
        },
        on_lost: match fields::enumeration("on_lost", request.on_lost)? {
            v1::OnLost::Unspecified | v1::OnLost::Fail => OnLost::Fail,
            v1::OnLost::Resync => OnLost::Resync,
        },
        delivery: match fields::enumeration("delivery", request.delivery)? {
            v1::Delivery::Unspecified | v1::Delivery::EveryEvent => Delivery::EveryEvent,
            v1::Delivery::LatestPerCredential => Delivery::LatestPerCredential,
        },
        progress_interval: fields::duration("progress_interval", request.progress_interval)?,
        connection: None,
    })
}

/// The union of the scopes; with `own` among them that is everything.
fn filter(scopes: &[v1::WatchScope], kinds: &[i32]) -> Result<WatchFilter, InvalidField> {
    if scopes.len() > MOST_SCOPES {
        return invalid("scopes", "must be at most 256");
    }
    let mut filter = WatchFilter::default();
    let mut own = false;
    for scope in scopes {
        match &scope.target {
            None => return invalid("scopes.target", "is required"),
            Some(Target::ConnectionId(id)) => {
                filter.connections.insert(fields::id("scopes.connection_id", id)?);
            }
            Some(Target::CredentialId(id)) => {
                filter.credentials.insert(fields::id("scopes.credential_id", id)?);
            }
            Some(Target::Agent(_)) => return invalid("scopes.agent", "is not served yet"),
            Some(Target::Own(true)) => own = true,
            Some(Target::Own(false)) => return invalid("scopes.own", "must be true when given"),
        }
    }
    if own {
        filter.connections.clear();
        filter.credentials.clear();
    }
    if kinds.len() > MOST_KINDS {
        return invalid("kinds", "must be at most 64");
    }
    filter.kinds = kinds.iter().map(|kind| parse_kind(*kind)).collect::<Result<_, _>>()?;
    Ok(filter)
}

fn parse_kind(unverified: i32) -> Result<EventKind, InvalidField> {
    match fields::enumeration("kinds", unverified)? {
        CredentialEventKind::Unspecified => invalid("kinds", "is not one of its values"),
        CredentialEventKind::Connected => Ok(EventKind::Connected),
        CredentialEventKind::Refreshed => Ok(EventKind::Refreshed),
        CredentialEventKind::Expiring => Ok(EventKind::Expiring),
        CredentialEventKind::Expired => Ok(EventKind::Expired),
        CredentialEventKind::RefreshFailing => Ok(EventKind::RefreshFailing),
        CredentialEventKind::Recovered => Ok(EventKind::Recovered),
        CredentialEventKind::ReauthorizationRequired => Ok(EventKind::ReauthorizationRequired),
        CredentialEventKind::Suspended => Ok(EventKind::Suspended),
        CredentialEventKind::Resumed => Ok(EventKind::Resumed),
        CredentialEventKind::Forecast => Ok(EventKind::Forecast),
        CredentialEventKind::Revoked => Ok(EventKind::Revoked),
        CredentialEventKind::Erased => Ok(EventKind::Erased),
        CredentialEventKind::AccessLost => Ok(EventKind::AccessLost),
        CredentialEventKind::AccessGained => Ok(EventKind::AccessGained),
    }
}
