//! The one place where errors become statuses. A client sees a reason, one sentence and what it needs to go on; the
//! cause of an `INTERNAL` stays in our log, under the request id.

use std::{collections::HashMap, error::Error, time::Duration};

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb::{self as rpc, bad_request::FieldViolation};
use url::Url;

use super::{encode, fields::InvalidField};
use crate::{
    broker::{AuthenticationRequired, BrokerError},
    domain::{Link, Reason, RequestId},
    identity::IdentityError,
    proto::v1,
};

/// The `domain` of every `google.rpc.ErrorInfo` of ours.
const DOMAIN: &str = "claviger";

/// Details travel in one header, of which some clients take no more than 8 KiB. These keep the lists in them short.
const MOST_ACCOUNTS: usize = 10;
const LONGEST_ACCOUNT: usize = 128;
const MOST_SCOPES_BYTES: usize = 1024;

/// How a use case's refusal or failure looks to the client. `connect_url` is the page to which an open flow's id is
/// appended, if there is one.
pub(super) fn of_broker(error: &BrokerError, request: &RequestId, connect_url: Option<&Url>) -> Status {
    let reason = error.reason();
    if reason == Reason::Internal {
        tracing::error!(request.id = request.as_str(), error = error as &dyn Error, "a call failed");
    }
    let mut answer = Answer::new(reason);
    match error {
        BrokerError::Refused { link, .. } => answer.fact("link", &link_name(*link)),
        BrokerError::AuthenticationRequired(required) => {
            answer.detail("claviger.v1.AuthenticationRequired", &authentication_required(required, connect_url));
        }
        BrokerError::AccountAmbiguous { accounts } => answer.accounts(accounts),
        BrokerError::Invalid { field, problem } => answer.violation(field, problem),
        BrokerError::ProviderUnreachable { retry_after }
        | BrokerError::ProviderRateLimited { retry_after }
        | BrokerError::RateLimited { retry_after }
        | BrokerError::FlowQuota { retry_after }
        | BrokerError::StreamQuota { retry_after } => answer.retry(*retry_after),
        BrokerError::RevisionCompacted { compacted, head } => {
            answer.fact("compacted_revision", &compacted.0);
            answer.fact("head_revision", &head.0);
        }
        BrokerError::AheadOfLog { head } => answer.fact("head_revision", &head.0),
        BrokerError::AccountMismatch
        | BrokerError::PluginUnknown
        | BrokerError::ProviderUnknown
        | BrokerError::ConnectionNotFound
        | BrokerError::FlowNotFound
        | BrokerError::FlowEnded(_)
        | BrokerError::IssuerMismatch
        | BrokerError::SignInNotConfigured
        | BrokerError::ProviderSuspended
        | BrokerError::ProviderReplyInvalid
        | BrokerError::Conflict
        | BrokerError::ShuttingDown
        | BrokerError::StoreUnavailable
        | BrokerError::Vault(_)
        | BrokerError::Transition(_) => {}
    }
    answer.into_status()
}

/// How the refusal of the caller's own token looks. What exactly was wrong before a verified signature is not told.
pub(super) fn of_identity(error: IdentityError) -> Status {
    let mut answer = Answer::new(error.reason());
    match error {
        IdentityError::JwksUnavailable { retry_after } => answer.retry(retry_after),
        IdentityError::TokenInvalid(_)
        | IdentityError::TokenExpired
        | IdentityError::TokenNotYetValid
        | IdentityError::AudienceMismatch
        | IdentityError::IssuerUnknown
        | IdentityError::TenantUnknown
        | IdentityError::SubjectMissing => {}
    }
    answer.into_status()
}

/// A request that breaks a rule.
impl From<InvalidField> for Status {
    fn from(InvalidField { field, problem }: InvalidField) -> Self {
        let mut answer = Answer::new(Reason::InvalidArgument);
        answer.violation(field, problem);
        answer.into_status()
    }
}

/// A refusal of the edge's own, with nothing to add.
pub(super) fn of_reason(reason: Reason) -> Status {
    Answer::new(reason).into_status()
}

/// The principal's calls come too fast.
pub(super) fn rate_limited(retry_after: Duration) -> Status {
    let mut answer = Answer::new(Reason::RateLimited);
    answer.retry(retry_after);
    answer.into_status()
}

/// Replaces what tonic answers to a message that it cannot decode: `INTERNAL` or `OUT_OF_RANGE`, as if we had failed
/// or a resume token had.
pub(super) fn of_undecoded(code: Code) -> Option<Status> {
    let undecoded = InvalidField { field: "", problem: "the message cannot be decoded, or is longer than 64 KiB" };
    matches!(code, Code::Internal | Code::OutOfRange).then(|| undecoded.into())
}

/// A status under construction.
struct Answer {
    reason: Reason,
    message: String,
    facts: HashMap<String, String>,
    details: Vec<Any>,
}

impl Answer {
    fn new(reason: Reason) -> Self {
        Self { reason, message: sentence(reason).to_owned(), facts: HashMap::new(), details: Vec::new() }
    }

    fn fact(&mut self, name: &str, value: &impl ToString) {
        self.facts.insert(name.to_owned(), value.to_string());
    }

    /// Long lists are cut; the total says so.
    fn accounts(&mut self, accounts: &[String]) {
        self.fact("accounts", &accounts.len());
        let short = accounts.iter().filter(|account| account.len() <= LONGEST_ACCOUNT);
        for (number, account) in (1..=MOST_ACCOUNTS).zip(short) {
            self.fact(&format!("account_{number}"), account);
        }
    }

    fn violation(&mut self, field: &'static str, problem: &'static str) {
        if self.reason != Reason::InvalidArgument {
            return;
        }
        let named = if field.is_empty() { problem.to_owned() } else { format!("`{field}` {problem}") };
        self.message = format!("{named}; correct the request and call again");
        let violation =
            FieldViolation { field: field.to_owned(), description: problem.to_owned(), ..Default::default() };
        self.detail("google.rpc.BadRequest", &rpc::BadRequest { field_violations: vec![violation] });
    }

    fn retry(&mut self, after: Duration) {
        let retry_delay = Some(encode::duration(after));
        self.detail("google.rpc.RetryInfo", &rpc::RetryInfo { retry_delay });
    }

    fn detail(&mut self, name: &str, message: &impl Message) {
        self.details.push(any(name, message));
    }

    fn into_status(self) -> Status {
        let Self { reason, message, facts, details } = self;
        let info = rpc::ErrorInfo { reason: reason.to_string(), domain: DOMAIN.to_owned(), metadata: facts };
        let code = code(reason);
        let details = [any("google.rpc.ErrorInfo", &info)].into_iter().chain(details).collect();
        let rich = rpc::Status { code: code.into(), message: message.clone(), details };
        Status::with_details(code, message, rich.encode_to_vec().into())
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn authentication_required(required: &AuthenticationRequired, connect_url: Option<&Url>) -> v1::AuthenticationRequired {
    let AuthenticationRequired { reason: _, provider, plugin, missing_scopes, flow, expires_at, context } = required;
    let mut room = MOST_SCOPES_BYTES;
    let fitting = missing_scopes.iter().take_while(|scope| {
        let fits = scope.as_str().len() <= room;
        room = room.saturating_sub(scope.as_str().len());
        fits
    });
    v1::AuthenticationRequired {
        auth_url: connect_url
            .zip(*flow)
            .map(|(page, flow)| format!("{}/{flow}", page.as_str().trim_end_matches('/')))
            .unwrap_or_default(),
        flow_id: flow.map(|flow| flow.to_string()).unwrap_or_default(),
        expires_at: expires_at.map(encode::timestamp),
        session_id: context.session_id.clone().unwrap_or_default(),
        task_id: context.task_id.clone().unwrap_or_default(),
        platform_request_id: context.platform_request_id.clone().unwrap_or_default(),
        missing_scopes: fitting.map(ToString::to_string).collect(),
        provider: provider.to_string(),
        plugin: plugin.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

const fn link_name(link: Link) -> &'static str {
    match link {
        Link::Session => "session",
        Link::Agent => "agent",
        Link::Toolbox => "toolbox",
        Link::Plugin => "plugin",
        Link::Connection => "connection",
        Link::Grant => "grant",
    }
}

/// The table of reasons: the code that carries each.
const fn code(reason: Reason) -> Code {
    use Reason as R;
    match reason {
        R::TokenMissing | R::TokenInvalid | R::TokenExpired | R::TokenNotYetValid => Code::Unauthenticated,
        R::AudienceMismatch | R::IssuerUnknown | R::TenantUnknown | R::SubjectMissing => Code::Unauthenticated,
        R::RoleMissing | R::PluginDenied | R::ScopeExceeded => Code::PermissionDenied,
        R::ConsentRequired | R::ReauthorizationRequired | R::ScopesMissing => Code::FailedPrecondition,
        R::AccountAmbiguous | R::SignInNotConfigured | R::ProviderSuspended => Code::FailedPrecondition,
        R::FlowExpired | R::FlowConsumed | R::FlowDenied => Code::FailedPrecondition,
        R::ExchangeRefused | R::ExchangeInterrupted | R::IssuerMismatch | R::RotationLost => Code::FailedPrecondition,
        R::PluginUnknown | R::ConnectionNotFound | R::FlowNotFound => Code::NotFound,
        R::ProviderUnreachable | R::ProviderRateLimited | R::ProviderReplyInvalid => Code::Unavailable,
        R::JwksUnavailable | R::ShuttingDown | R::StoreUnavailable => Code::Unavailable,
        R::RevisionCompacted | R::AheadOfLog => Code::OutOfRange,
        R::StreamQuota | R::RateLimited | R::FlowQuota => Code::ResourceExhausted,
        R::Conflict => Code::Aborted,
        R::AccountMismatch => Code::AlreadyExists,
        R::InvalidArgument => Code::InvalidArgument,
        R::Internal => Code::Internal,
    }
}

/// What happened, and what to do next.
const fn sentence(reason: Reason) -> &'static str {
    use Reason as R;
    match reason {
        R::TokenMissing => "the call carries no token; send `authorization: Bearer` with a platform token",
        R::TokenInvalid => "the token is not valid; get a new one from the platform",
        R::TokenExpired => "the token has expired; get a new one from the platform",
        R::TokenNotYetValid => "the token is not valid yet; check the clocks and call again",
        R::AudienceMismatch => "the token was made for another audience; ask the platform for one made for this broker",
        R::IssuerUnknown => "the token's issuer is not configured; use a configured one or ask the operator to add it",
        R::TenantUnknown => "the token's tenant is not configured; ask the operator to add it",
        R::SubjectMissing => "the token names no subject; ask the operator which claims this issuer must send",
        R::RoleMissing => "the caller lacks the role for this call; use a token that has it",
        R::PluginDenied => "the plugin is disabled; ask the operator to enable it",
        R::ScopeExceeded => "scopes were asked for that are not allowed; ask for fewer",
        R::ConsentRequired => "no account is connected; let the user authorize, then call again",
        R::ReauthorizationRequired => "the connection is dead; let the user authorize again, then call again",
        R::ScopesMissing => "the connection lacks scopes; let the user authorize them, then call again",
        R::AccountAmbiguous => "several accounts are connected; name one in `account`",
        R::SignInNotConfigured => "sign-in in a browser is not configured; start an authorization with binding CALLER",
        R::ProviderSuspended => "the provider refuses the broker's registration; ask the operator to correct it",
        R::FlowExpired => "the authorization was not finished in time; start another",
        R::FlowConsumed => "the authorization was finished with another code; start another",
        R::FlowDenied => "the authorization was refused at the provider; start another if the user wants to",
        R::ExchangeRefused => "the provider refused the code; start another authorization",
        R::ExchangeInterrupted => "the provider's answer to the code was lost; start another authorization",
        R::IssuerMismatch => "the response came from another issuer than was asked; start another authorization",
        R::RotationLost => "the refresh token may be spent; let the user authorize again",
        R::PluginUnknown => "there is no such plugin or provider; check the name",
        R::ConnectionNotFound => "there is no such connection; list the connections for those that are there",
        R::FlowNotFound => "there is no such authorization; start another",
        R::ProviderUnreachable => "the provider did not answer; call again later",
        R::ProviderRateLimited => "the provider asks for fewer requests; call again later",
        R::ProviderReplyInvalid => "the provider's answer cannot be used; call again later, and tell the operator",
        R::JwksUnavailable => "the issuer's keys cannot be had at the moment; call again later",
        R::ShuttingDown => "the broker is shutting down; call again",
        R::StoreUnavailable => "the store is not available, so the outcome of a change is unknown; call again later",
        R::RevisionCompacted => "the log no longer reaches back to the resume token; start with a snapshot",
        R::AheadOfLog => "the resume token is ahead of the log; start with a snapshot",
        R::StreamQuota => "too many streams are open; end one first",
        R::RateLimited => "too many calls; call again later",
        R::FlowQuota => "too many authorizations are open; finish one or wait for it to expire",
        R::Conflict => "the record changed at the same time; call again",
        R::AccountMismatch => "another account was authorized than the connected one; authorize with that one",
        R::InvalidArgument => "the request is not valid; correct it and call again",
        R::Internal => "the broker failed; tell the operator the request id",
    }
}
