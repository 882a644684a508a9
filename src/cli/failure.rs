//! What can go wrong in a command, how it is told, and with which exit code.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;
use tonic::Code;

use super::{
    dev::RootKeyGone,
    options::Format,
    output::{self, harmless},
};
use crate::{
    app::{NotConfigured, NotListening, NotReplaced, NotRestored},
    archive::ArchiveError,
    client::{ClientError, ConnectError, ResumeFileError},
    sealing::root_key::file::RootKeyFileError,
    store::sled::OpenError,
    telemetry::TelemetryError,
    vault::VaultError,
};

// sysexits.h
const EX_USAGE: u8 = 64;
const EX_DATAERR: u8 = 65;
const EX_NOINPUT: u8 = 66;
const EX_UNAVAILABLE: u8 = 69;
const EX_CANTCREAT: u8 = 73;
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
const EX_NOPERM: u8 = 77;
const EX_CONFIG: u8 = 78;

/// A command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no platform token: set CLAVIGER_TOKEN or give --token-file")]
    TokenMissing,
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write {}: check the directory and the disk", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is there already and is not overwritten: choose another name", path.display())]
    FileExists { path: PathBuf },
    #[error("the broker ended the copy before it was whole: look at its log, and take another")]
    Unfinished,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Refused(#[from] ClientError),
    #[error(transparent)]
    ResumeFile(#[from] ResumeFileError),
    #[error(
        "{} is the position of another caller or of another installation, and was left as it is: name another file, or \
         remove it to begin anew", path.display()
    )]
    ForeignResumeFile { path: PathBuf },
    /// What was refused has been said, each with its reason.
    #[error("{refused} of {of} tokens were refused")]
    SomeRefused { refused: usize, of: usize },
    #[error("--header prints one line; name one plugin")]
    SeveralHeaders,
    #[error("cannot listen on {address} for the provider's answer")]
    Listen { address: String, source: io::Error },
    #[error("the redirect URI must be http on a loopback address to be listened on; or give --no-listen")]
    NotLoopback,
    #[error("that is not the address that the provider sent the browser to: it has no {0}")]
    NoAnswer(&'static str),
    #[error("the answer belongs to another attempt: its state is not the one that was sent")]
    ForeignAnswer,
    #[error("the provider answered {error}")]
    Denied { error: String },
    #[error("nobody finished the authorization in time")]
    TimedOut,
    #[error("cannot print")]
    Output(#[from] io::Error),
}

/// For what runs here: which of the facts in the chain an operator's script wants to tell apart.
pub(super) fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    let misconfigured = error.is::<RootKeyFileError>()
        || error.is::<RootKeyGone>()
        || error.is::<NotConfigured>()
        || matches!(error.downcast_ref(), Some(TelemetryError::Filter(_)))
        || matches!(error.downcast_ref(), Some(VaultError::WrongRootKey { .. }));
    if misconfigured {
        ExitCode::from(EX_CONFIG)
    } else if error.is::<NotListening>() {
        ExitCode::from(EX_UNAVAILABLE)
    } else if matches!(error.downcast_ref(), Some(OpenError::InUse { .. })) {
        ExitCode::from(EX_TEMPFAIL)
    } else if let Some(error) = error.downcast_ref() {
        of_archive(error)
    } else if matches!(error.downcast_ref(), Some(NotRestored::Unreadable { .. })) {
        ExitCode::from(EX_NOINPUT)
    } else if error.is::<NotRestored>() || error.is::<NotReplaced>() {
        ExitCode::from(EX_CANTCREAT)
    } else {
        ExitCode::FAILURE
    }
}

fn of_archive(error: &ArchiveError) -> ExitCode {
    match error {
        ArchiveError::WrongRootKey { .. } => ExitCode::from(EX_CONFIG),
        ArchiveError::Unreadable(_) => ExitCode::from(EX_IOERR),
        ArchiveError::NotAnArchive
        | ArchiveError::UnknownVersion { .. }
        | ArchiveError::Damaged { .. }
        | ArchiveError::Truncated => ExitCode::from(EX_DATAERR),
    }
}

impl Failure {
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::TokenMissing | Self::Connect(_) | Self::NotLoopback => ExitCode::from(EX_CONFIG),
            Self::File { .. } => ExitCode::from(EX_NOINPUT),
            Self::Write { .. } => ExitCode::from(EX_IOERR),
            Self::FileExists { .. } => ExitCode::from(EX_CANTCREAT),
            Self::SeveralHeaders => ExitCode::from(EX_USAGE),
            Self::NoAnswer(_)
            | Self::ForeignAnswer
            | Self::ForeignResumeFile { .. }
            | Self::ResumeFile(ResumeFileError::Foreign { .. } | ResumeFileError::OtherChoice { .. }) => {
                ExitCode::from(EX_DATAERR)
            }
            Self::ResumeFile(ResumeFileError::Unreadable { .. }) => ExitCode::from(EX_NOINPUT),
            Self::ResumeFile(ResumeFileError::Unwritable { .. }) => ExitCode::from(EX_IOERR),
            Self::Listen { .. } | Self::Unfinished => ExitCode::from(EX_UNAVAILABLE),
            Self::TimedOut => ExitCode::from(EX_TEMPFAIL),
            Self::Denied { .. } | Self::SomeRefused { .. } => ExitCode::FAILURE,
            Self::Refused(refused) => match refused.code {
                Code::Unauthenticated | Code::PermissionDenied => ExitCode::from(EX_NOPERM),
                Code::InvalidArgument => ExitCode::from(EX_DATAERR),
                Code::Unavailable => ExitCode::from(EX_UNAVAILABLE),
                Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded => ExitCode::from(EX_TEMPFAIL),
                _ => ExitCode::FAILURE,
            },
            // Whoever closed the pipe has read enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(_) => ExitCode::FAILURE,
        }
    }

    /// Says it on standard error. There is nowhere to report that this failed too.
    pub(super) fn report(&self, format: Format) {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return;
        }
        let text = match format {
            Format::Json => format!("{}\n", self.document()),
            Format::Table => self.text(),
        };
        io::stderr().write_all(text.as_bytes()).ok();
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}", output::alarm("error:"), harmless(&self.to_string()));
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(&format!(": {}", harmless(&cause.to_string())));
            source = cause.source();
        }
        text.push('\n');
        let Self::Refused(refused) = self else { return text };
        for violation in &refused.violations {
            text.push_str(&format!("  {}: {}\n", harmless(&violation.field), harmless(&violation.description)));
        }
        if let Some(required) = &refused.authentication_required {
            text.push_str(&output::next_step(required));
        }
        if let Some(wait) = refused.retry_after {
            text.push_str(&format!("  try again in {} s\n", wait.as_secs().max(1)));
        }
        if let Some(id) = &refused.request_id {
            text.push_str(&format!("  request id: {}\n", harmless(id)));
        }
        text
    }

    fn document(&self) -> serde_json::Value {
        match self {
            Self::Refused(refused) => json!({ "error": refusal(refused) }),
            _ => json!({ "error": { "message": self.to_string() } }),
        }
    }
}

/// For scripts: what the broker refused with.
pub(super) fn refusal(refused: &ClientError) -> serde_json::Value {
    json!({
        "code": format!("{:?}", refused.code),
        "reason": refused.reason.map(|_| refused.name()),
        "message": refused.message,
        "violations": refused.violations.iter()
            .map(|violation| json!({ "field": violation.field, "description": violation.description }))
            .collect::<Vec<_>>(),
        "authentication_required": refused.authentication_required.as_deref().map(output::required_document),
        "retry_after_seconds": refused.retry_after.map(|wait| wait.as_secs_f64()),
        "request_id": refused.request_id,
    })
}
