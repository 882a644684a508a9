//! `claviger watch`: what happens, a line each, until it is interrupted.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tonic::Code;

use super::{
    ClientOptions, Failure, Session,
    failure::refusal,
    options,
    output::{bare, harmless, note, or_dash, reason, time},
    words,
};
use crate::{
    client::{self, Cause, Change, ClientError, Heard, Interruption, ResumeFile, View},
    domain::PresentedToken,
    proto::v1::{
        CredentialStatus, Delivery, OnLost, WatchCredentialStatusRequest, WatchCredentialStatusResponse, WatchScope,
        watch_credential_status_request::Start, watch_credential_status_response::Body, watch_scope::Target,
    },
};

/// Messages that may be printed before it is written down how far they go, while more of them wait.
const MOST_UNSAVED: u32 = 256;

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
    /// Keep in this file how far you have come, and go on from there the next time
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    resume_file: Option<PathBuf>,
    /// Only the newest state of each credential
    #[arg(long)]
    latest: bool,
    #[command(flatten)]
    pub(super) options: ClientOptions,
}

/// No secret: it is bound to its caller.
#[derive(Clone, Debug)]
struct ResumeToken(Vec<u8>);

/// What was said so far.
struct Watching<'a> {
    session: &'a Session,
    view: View,
    file: Option<ResumeFile>,
    unsaved: u32,
    /// Whether the stream was away, and nobody has been told that it is back.
    away: bool,
}

impl Watch {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let mut request = self.request();
        let file = self.resume_file.as_ref().map(|path| ResumeFile::open(path, &mut request)).transpose()?;
        let mut watch = client::Watch::new(session.client.clone(), request, session.clock.clone(), options::jitter());
        let mut watching = Watching { session, view: View::default(), file, unsaved: 0, away: false };
        let mut token = self.options.token()?;
        // Listening once: a signal between two listeners would be lost.
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            if watching.unsaved >= MOST_UNSAVED {
                watching.save()?;
            }
            let hearing = watch.hear();
            tokio::pin!(hearing);
            let heard = match hearing.as_mut().now_or_never() {
                Some(heard) => heard,
                None => {
                    watching.save()?;
                    tokio::select! {
                        heard = hearing => heard,
                        _ = &mut interrupted => return Ok(()),
                    }
                }
            };
            match heard {
                Ok(Heard::Message(message)) => watching.tell(&message)?,
                Ok(Heard::Interrupted(interruption)) => watching.tell_interruption(&interruption)?,
                Err(error) => token = self.renewed(&watching, &token, error)?,
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
        watching: &Watching<'_>,
        token: &PresentedToken,
        ended: ClientError,
    ) -> Result<PresentedToken, Failure> {
        if let Some(file) = watching.file.as_ref().filter(|_| ended.refuses_resume_token()) {
            return Err(Failure::ForeignResumeFile { path: file.path().to_owned() });
        }
        let newer = self.options.token()?;
        if ended.code != Code::Unauthenticated || newer == *token {
            return Err(ended.into());
        }
        watching.session.client.replace_token(&newer)?;
        Ok(newer)
    }
}

impl Watching<'_> {
    /// Prints what the message says; then it counts as applied.
    fn tell(&mut self, message: &WatchCredentialStatusResponse) -> Result<(), Failure> {
        let changes = self.view.apply(message);
        if self.session.printer.is_json() {
            self.print_documents(message, &changes)?;
        } else {
            for change in &changes {
                self.session.printer.line(&line(change))?;
            }
            self.note(message)?;
        }
        if let Some(file) = &mut self.file {
            match &message.body {
                Some(Body::Resync(_)) => file.lost(),
                _ => file.applied(&message.resume_token),
            }
            self.unsaved += 1;
        }
        Ok(())
    }

    fn print_documents(&self, message: &WatchCredentialStatusResponse, changes: &[Change]) -> Result<(), Failure> {
        let about_stream = stream_document(message);
        let last = changes.len().saturating_sub(1);
        for (index, change) in changes.iter().enumerate() {
            let mut document = document(&change.status);
            let (kind, at) = kind(change);
            document["kind"] = kind.into();
            document["occurred_at"] = at.into();
            document["revision"] = message.revision.into();
            // On the last line of a message only: resuming after an earlier one would skip the rest.
            if index == last && about_stream.is_none() {
                set_token(&mut document, message);
            }
            self.session.printer.line(&document.to_string())?;
        }
        if let Some(mut document) = about_stream {
            document["revision"] = message.revision.into();
            set_token(&mut document, message);
            self.session.printer.line(&document.to_string())?;
        }
        Ok(())
    }

    /// What a person wants to know of the stream itself.
    fn note(&mut self, message: &WatchCredentialStatusResponse) -> Result<(), Failure> {
        match &message.body {
            Some(Body::Opened(_)) if std::mem::take(&mut self.away) => note("the broker is back")?,
            Some(Body::Resync(resync)) => {
                let why = reason(resync.reason()).unwrap_or("the position is lost");
                note(&format!("some of what happened cannot be told any more ({why}); this is how things stand now:"))?;
            }
            Some(Body::SnapshotEnd(_)) if self.view.statuses().len() == 0 => note("nothing is connected")?,
            Some(Body::Drain(drain)) => words::drained(drain.cause()).map_or(Ok(()), note)?,
            _ => {}
        }
        Ok(())
    }

    fn tell_interruption(&mut self, interruption: &Interruption) -> Result<(), Failure> {
        let Interruption { cause, reopens_after } = interruption;
        let seconds = reopens_after.as_secs_f64();
        if self.session.printer.is_json() {
            let error = cause.as_ref().map(refusal);
            let document = json!({ "stream": "INTERRUPTED", "error": error, "reopens_after_seconds": seconds });
            self.session.printer.line(&document.to_string())?;
        } else if let Some(cause) = cause {
            self.away = true;
            note(&format!(
                "the stream is away ({}); it is opened again in {seconds:.0} s",
                harmless(&cause.to_string())
            ))?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.unsaved = 0;
        Ok(self.file.as_mut().map_or(Ok(()), ResumeFile::save)?)
    }
}

/// What happened, and when as far as that was said.
fn kind(change: &Change) -> (&'static str, Option<String>) {
    match &change.cause {
        Cause::Event { kind, occurred_at } => {
            (bare(kind.as_str_name(), "CREDENTIAL_EVENT_KIND_"), time(occurred_at.as_ref()))
        }
        Cause::Listed => ("PRESENT", None),
        Cause::NotListed => ("GONE", None),
    }
}

fn line(change: &Change) -> String {
    let (status, (kind, at)) = (&change.status, kind(change));
    let because = reason(status.reason()).map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!(
        "{:<24} {kind:<24} {} {} {}{because}",
        at.as_deref().unwrap_or("-"),
        harmless(&or_dash(&status.provider)),
        harmless(&status.connection_id),
        words::happened(change),
    )
}

/// For programs; `None`: the message is about credentials alone.
fn stream_document(message: &WatchCredentialStatusResponse) -> Option<Value> {
    match &message.body {
        Some(Body::Opened(opened)) => Some(json!({ "stream": "OPENED", "head_revision": opened.head_revision })),
        Some(Body::Resync(resync)) => Some(json!({ "stream": "RESYNC", "reason": reason(resync.reason()) })),
        Some(Body::SnapshotEnd(_)) => Some(json!({ "stream": "SNAPSHOT_END" })),
        Some(Body::Progress(_)) => Some(json!({ "stream": "PROGRESS" })),
        Some(Body::Drain(drain)) => Some(json!({
            "stream": "DRAIN",
            "cause": bare(drain.cause().as_str_name(), "DRAIN_CAUSE_"),
            "reconnect_after_seconds": drain.reconnect_after.as_ref().map_or(0, |wait| wait.seconds),
        })),
        Some(Body::Snapshot(_) | Body::Batch(_)) | None => None,
    }
}

fn set_token(document: &mut Value, message: &WatchCredentialStatusResponse) {
    if !message.resume_token.is_empty() {
        document["resume_token"] = URL_SAFE_NO_PAD.encode(&message.resume_token).into();
    }
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
