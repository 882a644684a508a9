//! `claviger watch`: one line an event, until it is interrupted.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::{Value, json};
use tonic::Code;

use super::{
    ClientOptions, Failure, Session, options,
    output::{bare, harmless, or_dash, reason, time},
};
use crate::{
    client::{self, ClientError},
    domain::PresentedToken,
    proto::v1::{
        CredentialStatus, Delivery, OnLost, WatchCredentialStatusRequest, WatchCredentialStatusResponse, WatchScope,
        watch_credential_status_request::Start, watch_credential_status_response::Body, watch_scope::Target,
    },
};

#[derive(Debug, Args)]
pub struct Watch {
    /// Only this connection; may be repeated [default: all of yours]
    #[arg(long = "connection", value_name = "ID")]
    connections: Vec<String>,
    /// Leave out what is there already
    #[arg(long, conflicts_with = "resume")]
    now: bool,
    /// Go on after the message with this token, as --output json prints it
    #[arg(long, value_name = "TOKEN", value_parser = resume_token)]
    resume: Option<ResumeToken>,
    /// Only the newest state of each credential
    #[arg(long)]
    latest: bool,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

/// No secret: it is bound to its caller.
#[derive(Clone, Debug)]
struct ResumeToken(Vec<u8>);

impl Watch {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let client = session.client.clone();
        let mut watch = client::Watch::new(client, self.request(), session.clock.clone(), options::jitter());
        let mut token = self.options.token()?;
        // Listening once: a signal between two listeners would be lost.
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            tokio::select! {
                message = watch.next() => match message {
                    Ok(message) => print(session, &message)?,
                    Err(error) => token = self.renewed(session, &token, error)?,
                },
                _ = &mut interrupted => return Ok(()),
            }
        }
    }

    fn request(&self) -> WatchCredentialStatusRequest {
        let scope = |id: &String| WatchScope { target: Some(Target::ConnectionId(id.clone())) };
        let start = match &self.resume {
            Some(token) => Start::ResumeToken(token.0.clone()),
            None if self.now => Start::Now(true),
            None => Start::Snapshot(true),
        };
        let delivery = if self.latest { Delivery::LatestPerCredential } else { Delivery::EveryEvent };
        WatchCredentialStatusRequest {
            scopes: self.connections.iter().map(scope).collect(),
            start: Some(start),
            on_lost: OnLost::Resync.into(),
            delivery: delivery.into(),
            ..Default::default()
        }
    }

    /// The stream ends with the token that opened it; a newer one in its place goes on where it ended.
    fn renewed(
        &self,
        session: &Session,
        token: &PresentedToken,
        ended: ClientError,
    ) -> Result<PresentedToken, Failure> {
        let newer = self.options.token()?;
        if ended.code != Code::Unauthenticated || newer == *token {
            return Err(ended.into());
        }
        session.client.replace_token(&newer)?;
        Ok(newer)
    }
}

fn print(session: &Session, message: &WatchCredentialStatusResponse) -> Result<(), Failure> {
    let seen = statuses(message);
    let last = seen.len().saturating_sub(1);
    for (index, (kind, status, at)) in seen.into_iter().enumerate() {
        if session.printer.is_json() {
            let mut document = document(&status);
            document["kind"] = kind.into();
            document["occurred_at"] = at.into();
            document["revision"] = message.revision.into();
            // On the last line of a revision only: resuming after an earlier one would skip the rest.
            if index == last && !message.resume_token.is_empty() {
                document["resume_token"] = URL_SAFE_NO_PAD.encode(&message.resume_token).into();
            }
            session.printer.line(&document.to_string())?;
        } else {
            session.printer.line(&line(kind, &status, at.as_deref()))?;
        }
    }
    Ok(())
}

type Seen = (&'static str, CredentialStatus, Option<String>);

/// What a message says about credentials; the rest is about the stream.
fn statuses(message: &WatchCredentialStatusResponse) -> Vec<Seen> {
    match &message.body {
        Some(Body::Snapshot(part)) => part.statuses.iter().map(|status| ("PRESENT", status.clone(), None)).collect(),
        Some(Body::Batch(batch)) => batch
            .events
            .iter()
            .filter_map(|event| {
                let kind = bare(event.kind().as_str_name(), "CREDENTIAL_EVENT_KIND_");
                Some((kind, event.status.clone()?, time(event.occurred_at.as_ref())))
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn line(kind: &str, status: &CredentialStatus, at: Option<&str>) -> String {
    let state = bare(status.state().as_str_name(), "CREDENTIAL_STATE_");
    let because = reason(status.reason()).map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "{:<24} {kind:<24} {} {} generation {}, {state}{because}",
        at.unwrap_or("-"),
        harmless(&or_dash(&status.provider)),
        harmless(&status.connection_id),
        status.generation,
    )
}

fn document(status: &CredentialStatus) -> Value {
    json!({
        "credential_id": status.credential_id,
        "connection_id": status.connection_id,
        "subject": status.subject,
        "agent": status.agent,
        "provider": status.provider,
        "state": bare(status.state().as_str_name(), "CREDENTIAL_STATE_"),
        "generation": status.generation,
        "scopes": status.scopes,
        "expires_at": time(status.expires_at.as_ref()),
        "reason": reason(status.reason()),
    })
}

fn resume_token(text: &str) -> Result<ResumeToken, base64::DecodeError> {
    URL_SAFE_NO_PAD.decode(text).map(ResumeToken)
}
