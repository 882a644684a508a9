use futures_util::StreamExt;
use tonic::{Request, Response, Status};

use super::{
    encode,
    fields::{self, InvalidField, invalid},
    service::{Rpcs, WatchStream, received, refused},
};
use crate::{
    broker::{Delivery, DrainReason, OnLost, ResyncReason, Start, Watch, WatchFilter, WatchMessage},
    domain::{CredentialEvent, CredentialStatus, EventKind, Reason},
    proto::v1::{
        self, CredentialEventKind, DrainCause, watch_credential_status_request as request,
        watch_credential_status_response::Body, watch_scope::Target,
    },
};

const MOST_SCOPES: usize = 256;
const MOST_KINDS: usize = 64;
const LONGEST_RESUME_TOKEN: usize = 1024;

pub(super) async fn answer(
    rpcs: &Rpcs,
    request: Request<v1::WatchCredentialStatusRequest>,
) -> Result<Response<WatchStream>, Status> {
    let connection = request.remote_addr();
    let (call, request) = received(request)?;
    let watch = Watch { connection, ..parse(request)? };
    let mut progress = Progress { delivery: watch.delivery, on_lost: watch.on_lost, revision: 0 };
    let messages = rpcs.broker.watch(&call, watch).await.map_err(refused(&call))?;
    let answers = messages.map(move |message| message.map(|message| progress.encode(message)).map_err(refused(&call)));
    Ok(Response::new(Box::pin(answers)))
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
    }
}

const fn encode_kind(kind: EventKind) -> CredentialEventKind {
    match kind {
        EventKind::Connected => CredentialEventKind::Connected,
        EventKind::Refreshed => CredentialEventKind::Refreshed,
        EventKind::Expiring => CredentialEventKind::Expiring,
        EventKind::Expired => CredentialEventKind::Expired,
        EventKind::RefreshFailing => CredentialEventKind::RefreshFailing,
        EventKind::Recovered => CredentialEventKind::Recovered,
        EventKind::ReauthorizationRequired => CredentialEventKind::ReauthorizationRequired,
        EventKind::Suspended => CredentialEventKind::Suspended,
        EventKind::Resumed => CredentialEventKind::Resumed,
        EventKind::Forecast => CredentialEventKind::Forecast,
        EventKind::Revoked => CredentialEventKind::Revoked,
        EventKind::Erased => CredentialEventKind::Erased,
    }
}

/// What the encoding of one message needs to know of the stream.
struct Progress {
    delivery: Delivery,
    on_lost: OnLost,
    /// Where the stream stands: messages that have no revision of their own repeat it.
    revision: u64,
}

impl Progress {
    fn encode(&mut self, message: WatchMessage) -> v1::WatchCredentialStatusResponse {
        let (body, revision, token) = match message {
            WatchMessage::Opened { head, progress_interval, max_age: _, token } => {
                let opened = v1::WatchOpened {
                    head_revision: head.0,
                    progress_interval: Some(encode::duration(progress_interval)),
                    delivery: encode_delivery(self.delivery).into(),
                    on_lost: encode_on_lost(self.on_lost).into(),
                };
                (Body::Opened(opened), None, token)
            }
            WatchMessage::Resync { reason } => {
                let reason = match reason {
                    ResyncReason::Compacted | ResyncReason::EpochChanged => Reason::RevisionCompacted,
                    ResyncReason::AheadOfLog => Reason::AheadOfLog,
                };
                (Body::Resync(v1::WatchResync { reason: encode::reason(reason).into() }), None, Vec::new())
            }
            WatchMessage::Snapshot { revision, statuses } => {
                let statuses = statuses.into_iter().map(encode_status).collect();
                (Body::Snapshot(v1::WatchSnapshot { statuses }), Some(revision), Vec::new())
            }
            WatchMessage::SnapshotEnd { revision, token } => {
                (Body::SnapshotEnd(v1::WatchSnapshotEnd {}), Some(revision), token)
            }
            WatchMessage::Batch { revision, events, token } => {
                let events = events.into_iter().map(encode_event).collect();
                let batch = v1::WatchBatch { events, more_follows: token.is_none() };
                (Body::Batch(batch), Some(revision), token.unwrap_or_default())
            }
            WatchMessage::Progress { revision, token } => (Body::Progress(v1::WatchProgress {}), Some(revision), token),
            WatchMessage::Drain { reason, reconnect_after, token } => {
                let reconnect_after = Some(encode::duration(reconnect_after));
                (Body::Drain(v1::WatchDrain { cause: encode_cause(reason).into(), reconnect_after }), None, token)
            }
        };
        self.revision = revision.map_or(self.revision, |revision| revision.0);
        v1::WatchCredentialStatusResponse { resume_token: token, revision: self.revision, body: Some(body) }
    }
}

fn encode_event(event: CredentialEvent) -> v1::CredentialEvent {
    v1::CredentialEvent {
        kind: encode_kind(event.kind).into(),
        occurred_at: Some(encode::timestamp(event.occurred_at)),
        status: Some(encode_status(event.status)),
    }
}

fn encode_status(status: CredentialStatus) -> v1::CredentialStatus {
    let CredentialStatus {
        credential,
        connection,
        subject,
        agent,
        provider,
        state,
        generation,
        scopes,
        expires_at,
        reason,
        authorization_ends_at,
    } = status;
    v1::CredentialStatus {
        credential_id: credential.to_string(),
        connection_id: connection.to_string(),
        subject: subject.to_string(),
        agent: agent.map(|agent| agent.to_string()).unwrap_or_default(),
        provider: provider.to_string(),
        state: encode::state(state).into(),
        generation,
        scopes: encode::scopes(&scopes),
        expires_at: expires_at.map(encode::timestamp),
        reason: encode::optional_reason(reason).into(),
        authorization_ends_at: authorization_ends_at.map(encode::timestamp),
    }
}

const fn encode_delivery(delivery: Delivery) -> v1::Delivery {
    match delivery {
        Delivery::EveryEvent => v1::Delivery::EveryEvent,
        Delivery::LatestPerCredential => v1::Delivery::LatestPerCredential,
    }
}

const fn encode_on_lost(on_lost: OnLost) -> v1::OnLost {
    match on_lost {
        OnLost::Fail => v1::OnLost::Fail,
        OnLost::Resync => v1::OnLost::Resync,
    }
}

const fn encode_cause(reason: DrainReason) -> DrainCause {
    match reason {
        DrainReason::MaxAge => DrainCause::MaxAge,
        DrainReason::Shutdown => DrainCause::Shutdown,
        DrainReason::Authorization => DrainCause::Authorization,
    }
}
