//! The one place where errors become statuses. A client sees a reason, one sentence and what it needs to go on; the
//! cause of an `INTERNAL` stays in our log, under the request id.

use std::{collections::HashMap, error::Error, time::Duration};

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb::{self as rpc, bad_request::FieldViolation};

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
const MOST_CLAIMS_BYTES: usize = 2048;

/// How a use case's refusal or failure looks to the client.
pub(super) fn of_broker(error: &BrokerError, request: &RequestId) -> Status {
    let reason = error.reason();
    if reason == Reason::Internal {
        tracing::error!(request.id = request.as_str(), error = error as &dyn Error, "a call failed");
    }
    let mut answer = Answer::new(reason);
    match error {
        BrokerError::Refused { link, .. } => answer.fact("link", &link_name(*link)),
        BrokerError::AuthenticationRequired(required) => {
            answer.detail("claviger.v1.AuthenticationRequired", &authentication_required(required));
        }
        BrokerError::AccountAmbiguous { accounts } => answer.accounts(accounts),
        BrokerError::Invalid { field, problem } => answer.violation(field, problem),
        BrokerError::ProviderUnreachable { retry_after }
        | BrokerError::JwksUnavailable { retry_after }
        | BrokerError::ProviderRateLimited { retry_after }
        | BrokerError::RateLimited { retry_after }
        | BrokerError::FlowQuota { retry_after }
        | BrokerError::StreamQuota { retry_after } => answer.retry(*retry_after),
        BrokerError::RevisionCompacted { compacted, head } => {
            answer.fact("compacted_revision", &compacted.0);
            answer.fact("head_revision", &head.0);
        }
        BrokerError::KeyInUse { live_rows } => answer.fact("live_rows", live_rows),
        BrokerError::AheadOfLog { head } => answer.fact("head_revision", &head.0),
        BrokerError::AccountMismatch
        | BrokerError::PluginUnknown
        | BrokerError::ProviderUnknown
        | BrokerError::ConnectionNotFound
        | BrokerError::FlowNotFound
        | BrokerError::OtherUser
        | BrokerError::OtherBrowser
        | BrokerError::SignInFailed(_)
        | BrokerError::FlowEnded(_)
        | BrokerError::IssuerMismatch
        | BrokerError::SignInNotConfigured
        | BrokerError::ProviderSuspended
        | BrokerError::ProviderReplyInvalid
        | BrokerError::BackupRunning
        | BrokerError::BackupOutrun
        | BrokerError::KeyUnknown
        | BrokerError::NoNewRootKey
        | BrokerError::SubjectErased
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
        | IdentityError::SubjectMissing
        | IdentityError::SignInNotConfigured => {}
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

/// As the health protocol has it; it knows no reasons of ours.
pub(super) fn service_unknown() -> Status {
    Status::not_found("there is no such service; ask for one that is served, or for the server as a whole")
}

/// Replaces what tonic answers to a message that it cannot decode: `INTERNAL` or `OUT_OF_RANGE`, as if we had failed
/// or a resume token had.
pub(super) fn of_undecoded(code: Code) -> Option<Status> {
    let undecoded = InvalidField { field: "", problem: "the message cannot be decoded, or is too long" };
    matches!(code, Code::Internal | Code::OutOfRange).then(|| undecoded.into())
}

/// One of our statuses as a message, for the answer to a call that can fail in parts.
pub(super) fn as_message(status: &Status) -> rpc::Status {
    let bare = || rpc::Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() };
    rpc::Status::decode(status.details()).unwrap_or_else(|_| bare())
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

/// Where the user cannot sign in on our pages `auth_url` is empty: the way on is an authorization with binding `CALLER`,
/// which finds the flow that is named here.
fn authentication_required(required: &AuthenticationRequired) -> v1::AuthenticationRequired {
    let AuthenticationRequired {
        reason: _,
        provider,
        plugin,
        missing_scopes,
        hints,
        auth_url,
        flow,
        expires_at,
        context,
    } = required;
    let mut room = MOST_SCOPES_BYTES;
    let fitting = missing_scopes.iter().take_while(|scope| {
        let fits = scope.as_str().len() <= room;
        room = room.saturating_sub(scope.as_str().len());
        fits
    });
    v1::AuthenticationRequired {
        auth_url: auth_url.as_ref().map(ToString::to_string).unwrap_or_default(),
        flow_id: flow.as_ref().map(ToString::to_string).unwrap_or_default(),
        expires_at: expires_at.map(encode::timestamp),
        session_id: context.session_id.clone().unwrap_or_default(),
        task_id: context.task_id.clone().unwrap_or_default(),
        platform_request_id: context.platform_request_id.clone().unwrap_or_default(),
        missing_scopes: fitting.map(ToString::to_string).collect(),
        provider: provider.to_string(),
        plugin: plugin.as_ref().map(ToString::to_string).unwrap_or_default(),
        claims: hints.claims.clone().filter(|claims| claims.len() <= MOST_CLAIMS_BYTES).unwrap_or_default(),
        acr_values: hints.acr_values.clone().unwrap_or_default(),
        max_age: hints.max_age.map(|seconds| encode::duration(Duration::from_secs(seconds))),
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
        R::KeyInUse | R::NoNewRootKey | R::SubjectErased => Code::FailedPrecondition,
        R::PluginUnknown | R::ConnectionNotFound | R::FlowNotFound | R::KeyUnknown => Code::NotFound,
        R::ProviderUnreachable | R::ProviderRateLimited | R::ProviderReplyInvalid => Code::Unavailable,
        R::JwksUnavailable | R::ShuttingDown | R::StoreUnavailable => Code::Unavailable,
        R::RevisionCompacted | R::AheadOfLog => Code::OutOfRange,
        R::StreamQuota | R::RateLimited | R::FlowQuota | R::BackupRunning => Code::ResourceExhausted,
        R::Conflict | R::BackupOutrun => Code::Aborted,
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
        R::KeyInUse => "the key is still needed; rotate it, and wait until the rotation has ended",
        R::NoNewRootKey => "there is no new root key; make one, put it first in sealing.root_keys and restart",
        R::SubjectErased => "the subject was erased; nothing can be stored for them any more",
        R::KeyUnknown => "there is no such key; list the keys for those that are there",
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
        R::BackupRunning => "a backup is being taken already; wait for its end and call again",
        R::BackupOutrun => "more was written than the backup could follow; take it again when less is written",
        R::Conflict => "the record changed at the same time; call again",
        R::AccountMismatch => "another account was authorized than the connected one; authorize with that one",
        R::InvalidArgument => "the request is not valid; correct it and call again",
        R::Internal => "the broker failed; tell the operator the request id",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::domain::{
        CallContext, CredentialState, FlowId, Hints, InvalidTransition, Revision, ScopeSet, Timestamp,
    };

    /// The table of the contract.
    const TABLE: &[(Code, &[&str])] = &[
        (
            Code::Unauthenticated,
            &[
                "TOKEN_MISSING",
                "TOKEN_INVALID",
                "TOKEN_EXPIRED",
                "TOKEN_NOT_YET_VALID",
                "AUDIENCE_MISMATCH",
                "ISSUER_UNKNOWN",
                "TENANT_UNKNOWN",
                "SUBJECT_MISSING",
            ],
        ),
        (Code::PermissionDenied, &["ROLE_MISSING", "PLUGIN_DENIED", "SCOPE_EXCEEDED"]),
        (
            Code::FailedPrecondition,
            &[
                "CONSENT_REQUIRED",
                "REAUTHORIZATION_REQUIRED",
                "SCOPES_MISSING",
                "ACCOUNT_AMBIGUOUS",
                "SIGN_IN_NOT_CONFIGURED",
                "PROVIDER_SUSPENDED",
                "FLOW_EXPIRED",
                "FLOW_CONSUMED",
                "FLOW_DENIED",
                "EXCHANGE_REFUSED",
                "EXCHANGE_INTERRUPTED",
                "ISSUER_MISMATCH",
                "ROTATION_LOST",
                "KEY_IN_USE",
                "NO_NEW_ROOT_KEY",
                "SUBJECT_ERASED",
            ],
        ),
        (Code::NotFound, &["PLUGIN_UNKNOWN", "CONNECTION_NOT_FOUND", "FLOW_NOT_FOUND", "KEY_UNKNOWN"]),
        (
            Code::Unavailable,
            &[
                "PROVIDER_UNREACHABLE",
                "PROVIDER_RATE_LIMITED",
                "PROVIDER_REPLY_INVALID",
                "JWKS_UNAVAILABLE",
                "SHUTTING_DOWN",
                "STORE_UNAVAILABLE",
            ],
        ),
        (Code::OutOfRange, &["REVISION_COMPACTED", "AHEAD_OF_LOG"]),
        (Code::ResourceExhausted, &["STREAM_QUOTA", "RATE_LIMITED", "FLOW_QUOTA", "BACKUP_RUNNING"]),
        (Code::Aborted, &["CONFLICT", "BACKUP_OUTRUN"]),
        (Code::AlreadyExists, &["ACCOUNT_MISMATCH"]),
        (Code::InvalidArgument, &["INVALID_ARGUMENT"]),
        (Code::Internal, &["INTERNAL"]),
    ];

    fn answered(error: &BrokerError) -> Status {
        of_broker(error, &"req_1".parse().unwrap())
    }

    fn details(status: &Status) -> Vec<Any> {
        rpc::Status::decode(status.details()).unwrap().details
    }

    #[test]
    fn every_reason_has_the_code_of_the_table_and_says_what_to_do() {
        let mut listed = 0;
        for (code, names) in TABLE {
            for name in *names {
                let reason = *Reason::ALL.iter().find(|reason| reason.as_str() == *name).unwrap();
                let status = of_reason(reason);
                let info = status.get_details_error_info().unwrap();
                assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (*code, *name, DOMAIN));
                assert_eq!(rpc::Status::decode(status.details()).unwrap().code, i32::from(*code), "{name}");
                let (happened, next) =
                    status.message().split_once("; ").unwrap_or_else(|| status.message().split_once(", so ").unwrap());
                assert!(!happened.is_empty() && !next.is_empty(), "{name}");
                assert!(!status.message().ends_with('.'), "{name}");
                listed += 1;
            }
        }
        assert_eq!(listed, Reason::ALL.len());
    }

    #[test]
    fn what_the_user_must_do_is_a_detail() {
        let required = AuthenticationRequired {
            reason: Reason::ScopesMissing,
            provider: "acme".parse().unwrap(),
            plugin: Some("calendar".parse().unwrap()),
            missing_scopes: ScopeSet::parse("read write", ' ').unwrap(),
            hints: Hints { claims: Some("{}".to_owned()), acr_values: Some("c1".to_owned()), max_age: Some(300) },
            auth_url: Some("https://broker.example/connect/flw_1".parse().unwrap()),
            flow: Some(FlowId::from_bytes([7; 16])),
            expires_at: Some(Timestamp::from_millis(1_800_000_000_250)),
            context: CallContext { task_id: Some("t-1".to_owned()), ..CallContext::default() },
        };
        let status = answered(&BrokerError::AuthenticationRequired(Box::new(required)));
        assert_eq!(status.get_details_error_info().unwrap().reason, "SCOPES_MISSING");
        let details = details(&status);
        let ours =
            details.iter().find(|detail| detail.type_url == "type.googleapis.com/claviger.v1.AuthenticationRequired");
        let decoded = v1::AuthenticationRequired::decode(ours.unwrap().value.as_slice()).unwrap();
        assert_eq!(
            decoded,
            v1::AuthenticationRequired {
                auth_url: "https://broker.example/connect/flw_1".to_owned(),
                flow_id: FlowId::from_bytes([7; 16]).to_string(),
                expires_at: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 250_000_000 }),
                task_id: "t-1".to_owned(),
                missing_scopes: vec!["read".to_owned(), "write".to_owned()],
                provider: "acme".to_owned(),
                plugin: "calendar".to_owned(),
                claims: "{}".to_owned(),
                acr_values: "c1".to_owned(),
                max_age: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
                ..Default::default()
            }
        );
    }

    #[test]
    fn waiting_times_travel_as_retry_info() {
        let retry_after = Duration::from_millis(1500);
        for error in [
            BrokerError::ProviderUnreachable { retry_after },
            BrokerError::ProviderRateLimited { retry_after },
            BrokerError::RateLimited { retry_after },
            BrokerError::FlowQuota { retry_after },
            BrokerError::StreamQuota { retry_after },
        ] {
            let told = answered(&error).get_details_retry_info().unwrap().retry_delay;
            assert_eq!(told, Some(retry_after), "{error:?}");
        }
        let status = of_identity(IdentityError::JwksUnavailable { retry_after });
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(retry_after));
    }

    #[test]
    fn a_refusal_names_its_link_and_a_lost_position_its_revisions() {
        let refused = answered(&BrokerError::Refused { link: Link::Plugin, reason: Reason::PluginDenied });
        assert_eq!(refused.get_details_error_info().unwrap().metadata["link"], "plugin");
        let lost = answered(&BrokerError::RevisionCompacted { compacted: Revision(7), head: Revision(9) });
        let metadata = lost.get_details_error_info().unwrap().metadata;
        assert_eq!((metadata["compacted_revision"].as_str(), metadata["head_revision"].as_str()), ("7", "9"));
    }

    #[test]
    fn an_invalid_field_is_named_in_the_detail_and_in_the_message() {
        let status = answered(&BrokerError::Invalid { field: "return_url", problem: "is not on the tenant's list" });
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!((violations.len(), violations[0].field.as_str()), (1, "return_url"));
        assert_eq!(status.message(), "`return_url` is not on the tenant's list; correct the request and call again");
    }

    #[test]
    fn a_failure_of_ours_tells_the_client_nothing_of_its_cause() {
        let cause = InvalidTransition { from: CredentialState::Revoked, to: "canary" };
        let status = answered(&BrokerError::Transition(cause));
        assert_eq!(status.code(), Code::Internal);
        let told = format!("{} {}", status.message(), String::from_utf8_lossy(status.details()));
        assert!(!told.contains("canary") && !told.to_lowercase().contains("revoked"), "{told}");
    }

    #[test]
    fn no_list_makes_the_details_longer_than_clients_take() {
        let long = |number: usize| format!("{number:0>128}");
        let accounts = (0..1000).map(long).collect();
        let ambiguous = answered(&BrokerError::AccountAmbiguous { accounts });
        assert_eq!(ambiguous.get_details_error_info().unwrap().metadata["accounts"], "1000");
        let id = Some("x".repeat(128));
        let required = answered(&BrokerError::AuthenticationRequired(Box::new(AuthenticationRequired {
            reason: Reason::ConsentRequired,
            provider: "p".repeat(64).parse().unwrap(),
            plugin: Some("p".repeat(64).parse().unwrap()),
            missing_scopes: (0..64).map(|number| format!("{number:0>512}").parse().unwrap()).collect(),
            hints: Hints { claims: Some("c".repeat(2048)), acr_values: Some("a".repeat(512)), max_age: Some(u64::MAX) },
            auth_url: Some("https://broker.example/connect/flw_1".parse().unwrap()),
            flow: Some(FlowId::from_bytes([7; 16])),
            expires_at: Some(Timestamp::NEVER),
            context: CallContext { session_id: id.clone(), task_id: id.clone(), platform_request_id: id },
        })));
        for status in [ambiguous, required] {
            // The header is base64, four characters for three bytes.
            assert!(status.details().len() * 4 / 3 < 6144, "{}", status.details().len());
        }
    }
}
