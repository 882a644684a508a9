//! What a refusal says, decoded from the status and its details.

use std::{fmt, time::Duration};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{FieldViolation, StatusExt as _};

use crate::proto::v1::{AuthenticationRequired, ErrorReason};

const DOMAIN: &str = "claviger";
const AUTHENTICATION_REQUIRED: &str = "/claviger.v1.AuthenticationRequired";

/// A call was refused or failed. Switch on `reason`; `code` decides where there is none.
#[derive(Debug, Clone)]
pub struct ClientError {
    pub code: Code,
    /// `None`: the answer did not come from the broker (a proxy, the connection), or is newer than this client.
    pub reason: Option<ErrorReason>,
    /// One sentence for people, without secrets.
    pub message: String,
    /// What the user has to do so that the same call succeeds.
    pub authentication_required: Option<Box<AuthenticationRequired>>,
    pub retry_after: Option<Duration>,
    /// The fields of an `INVALID_ARGUMENT`.
    pub violations: Vec<FieldViolation>,
    /// The broker's name for the call, for its log and audit trail.
    pub request_id: Option<Box<str>>,
}

impl ClientError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::Aborted | Code::ResourceExhausted)
            || (self.reason.is_none() && matches!(self.code, Code::Unknown | Code::Cancelled | Code::Internal))
            || self.code == Code::DeadlineExceeded
    }

    /// Whether a stream was refused because its resume token is of another caller, filter or installation, or is none.
    pub fn refuses_resume_token(&self) -> bool {
        self.code == Code::InvalidArgument && self.violations.iter().any(|violation| violation.field == "resume_token")
    }

    /// The reason's name as on the wire; the code's where there is none.
    pub fn name(&self) -> String {
        self.reason.map_or_else(|| format!("{:?}", self.code), wire_name)
    }
}

/// The reason without the prefix of its enum.
fn wire_name(reason: ErrorReason) -> String {
    reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned()
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        tracing::debug!(?status, "the broker refused a call");
        let details = status.get_error_details();
        let reason = details
            .error_info()
            .filter(|info| info.domain == DOMAIN)
            .and_then(|info| ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)));
        Self {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            authentication_required: authentication_required(&status).map(Box::new),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            violations: details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default(),
            request_id: status.metadata().get("x-request-id").and_then(|id| id.to_str().ok()).map(Into::into),
        }
    }
}

/// The error of one result among several.
impl From<tonic_types::Status> for ClientError {
    fn from(one: tonic_types::Status) -> Self {
        let details = one.encode_to_vec();
        Status::with_details(Code::from(one.code), one.message, details.into()).into()
    }
}

/// The one detail that is ours, which the standard decoder passes over.
fn authentication_required(status: &Status) -> Option<AuthenticationRequired> {
    let details = tonic_types::Status::decode(status.details()).ok()?.details;
    let ours = details.iter().find(|detail| detail.type_url.ends_with(AUTHENTICATION_REQUIRED))?;
    AuthenticationRequired::decode(ours.value.as_slice()).ok()
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.message)
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use prost_types::Any;
    use tonic_types::{ErrorDetail, ErrorInfo, RetryInfo};

    use super::*;

    fn status(code: Code, details: Vec<Any>) -> Status {
        let encoded = tonic_types::Status { code: code as i32, message: "said".to_owned(), details }.encode_to_vec();
        Status::with_details(code, "said", encoded.into())
    }

    fn info(domain: &str, reason: &str) -> Any {
        Any {
            type_url: ErrorInfo::TYPE_URL.to_owned(),
            value: tonic_types::pb::ErrorInfo {
                reason: reason.to_owned(),
                domain: domain.to_owned(),
                metadata: std::collections::HashMap::new(),
            }
            .encode_to_vec(),
        }
    }

    #[test]
    fn what_the_user_has_to_do_survives_the_way() {
        let required = AuthenticationRequired {
            auth_url: "https://broker.example/connect/flw_1".to_owned(),
            plugin: "calendar".to_owned(),
            ..Default::default()
        };
        let detail = Any {
            type_url: "type.googleapis.com/claviger.v1.AuthenticationRequired".to_owned(),
            value: required.encode_to_vec(),
        };
        let error =
            ClientError::from(status(Code::FailedPrecondition, vec![info("claviger", "CONSENT_REQUIRED"), detail]));
        assert_eq!(error.reason, Some(ErrorReason::ConsentRequired));
        assert_eq!(error.authentication_required.as_deref(), Some(&required));
        assert_eq!(error.to_string(), "CONSENT_REQUIRED: said");
        assert!(!error.is_passing());
    }

    #[test]
    fn reasons_of_other_domains_and_unknown_ones_are_none() {
        for foreign in [info("googleapis.com", "CONSENT_REQUIRED"), info("claviger", "FROM_THE_FUTURE")] {
            let error = ClientError::from(status(Code::FailedPrecondition, vec![foreign]));
            assert_eq!(error.reason, None);
            assert_eq!(error.to_string(), "FailedPrecondition: said");
        }
    }

    #[test]
    fn the_time_to_wait_and_the_fields_at_fault_are_decoded() {
        let details: Vec<ErrorDetail> = vec![
            RetryInfo::new(Some(Duration::from_secs(7))).into(),
            tonic_types::BadRequest::with_violation("plugin", "is required").into(),
        ];
        let error = ClientError::from(Status::with_error_details_vec(Code::Unavailable, "said", details));
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(error.violations[0].field, "plugin");
        assert!(error.is_passing());
    }

    #[test]
    fn garbage_in_the_details_is_no_reason_to_fail() {
        let error = ClientError::from(Status::with_details(Code::Unknown, "said", vec![0xff; 9].into()));
        assert_eq!((error.code, error.reason), (Code::Unknown, None));
    }
}
