//! The authorization response (RFC 6749 §4.1.2): what came back through the user's browser, and from whom (RFC 9207).

use url::form_urlencoded;

use crate::domain::{Attempt, AuthorizationCode, FlowSecret};

/// A well-formed answer of an authorization server. That it is one's own is still to be shown.
pub struct AuthorizationResponse {
    pub state: FlowSecret,
    pub iss: Option<String>,
    pub answer: AuthorizationAnswer,
}

pub enum AuthorizationAnswer {
    Code(AuthorizationCode),
    Error(AuthorizationError),
}

/// RFC 6749 §4.1.2.1, by what follows from it. The server's own text is never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationError {
    /// The user or the server's policy said no.
    Denied,
    /// It may work later.
    Unavailable,
    /// The server does not take requests like ours: an operator must act.
    Configuration,
    /// A word that no specification of ours knows.
    Unknown,
}

/// Not an authorization response: a parameter is missing, stands twice, or contradicts another.
pub struct MalformedResponse {
    /// The state that came with it, as far as one did: for the audit trail.
    pub unverified_state: Option<FlowSecret>,
}

/// Bytes of a response.
pub const LONGEST_RESPONSE: usize = 8 * 1024;

impl AuthorizationResponse {
    /// Reads a query or a posted form. A parameter that stands twice is refused (RFC 6749 §3.1): the server may have
    /// meant the other one. So is one that is empty, and a code beside an error. Unknown ones are passed over.
    pub fn parse(unverified: &[u8]) -> Result<Self, MalformedResponse> {
        let mut seen = Seen::default();
        let well_formed = unverified.len() <= LONGEST_RESPONSE && seen.read(unverified);
        let Seen { state, code, error, iss } = seen;
        let state = state.map(FlowSecret::new);
        let answer = match (code, error) {
            (Some(code), None) => Some(AuthorizationAnswer::Code(AuthorizationCode::new(code))),
            (None, Some(error)) => Some(AuthorizationAnswer::Error(AuthorizationError::named(&error))),
            _ => None,
        };
        match (state, answer) {
            (Some(state), Some(answer)) if well_formed => Ok(Self { state, iss, answer }),
            (unverified_state, _) => Err(MalformedResponse { unverified_state }),
        }
    }
}

#[derive(Default)]
struct Seen {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl Seen {
    /// Whether nothing stood twice or empty.
    fn read(&mut self, unverified: &[u8]) -> bool {
        let mut clean = true;
        for (name, value) in form_urlencoded::parse(unverified) {
            let place = match &*name {
                "state" => &mut self.state,
                "code" => &mut self.code,
                "error" => &mut self.error,
                "iss" => &mut self.iss,
                _ => continue,
            };
            clean &= place.is_none() && !value.is_empty();
            place.get_or_insert_with(|| value.into_owned());
        }
        clean
    }
}

impl AuthorizationError {
    /// RFC 6749 §4.1.2.1 and OpenID Connect Core §3.1.2.6.
    fn named(unverified: &str) -> Self {
        match unverified {
            "access_denied"
            | "login_required"
            | "consent_required"
            | "interaction_required"
            | "account_selection_required" => Self::Denied,
            "server_error" | "temporarily_unavailable" => Self::Unavailable,
            "invalid_request"
            | "invalid_scope"
            | "unauthorized_client"
            | "unsupported_response_type"
            | "invalid_target"
            | "request_not_supported"
            | "request_uri_not_supported"
            | "registration_not_supported" => Self::Configuration,
            _ => Self::Unknown,
        }
    }
}

/// The authorization response does not come from the server that the attempt went to (RFC 9700 §4.4, mix-up). Neither
/// its code nor its error may be acted upon or shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the authorization response is from another issuer")]
pub struct IssuerMismatch;

/// RFC 9207 §2.4. `unverified_iss` is form-decoded and otherwise as received; it is compared as text, without
/// normalizing case, port, slash or percent-encoding.
///
/// | announced in the metadata | `iss` in the response | |
/// |---|---|---|
/// | yes | present | compare |
/// | yes | absent | refuse |
/// | no | present | compare |
/// | no | absent | proceed |
///
/// An attempt at a server without a recorded issuer has nothing to compare with, and proceeds: the recorded token
/// endpoint keeps its code from going astray.
pub fn check_issuer(attempt: &Attempt, unverified_iss: Option<&str>) -> Result<(), IssuerMismatch> {
    check_iss(attempt.issuer.as_deref(), attempt.iss_parameter_supported, unverified_iss)
}

/// The same for an answer that has no attempt: the one to a sign-in.
pub fn check_iss(recorded: Option<&str>, announced: bool, unverified_iss: Option<&str>) -> Result<(), IssuerMismatch> {
    let matches = match (recorded, unverified_iss) {
        (Some(recorded), Some(unverified)) => recorded == unverified,
        (_, None) | (None, Some(_)) => !announced,
    };
    if matches { Ok(()) } else { Err(IssuerMismatch) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FlowId, SubjectId, TenantId, Timestamp};

    fn attempt(issuer: Option<&str>, iss_parameter_supported: bool) -> Attempt {
        Attempt {
            flow: FlowId::from_bytes([1; 16]),
            tenant: "acme".parse::<TenantId>().unwrap(),
            subject: SubjectId::from_bytes([2; 32]),
            provider: "acme".parse().unwrap(),
            redirect_uri: "https://broker.example/oauth/callback".parse().unwrap(),
            issuer: issuer.map(str::to_owned),
            iss_parameter_supported,
            token_endpoint: "https://as.example/token".parse().unwrap(),
            expires_at: Timestamp::NEVER,
            consumed_by: None,
            browser: None,
        }
    }

    fn parsed(query: &str) -> Option<AuthorizationResponse> {
        AuthorizationResponse::parse(query.as_bytes()).ok()
    }

    #[test]
    fn a_response_is_a_code_or_an_error_with_its_state() {
        let response = parsed("code=c&state=s&iss=https%3A%2F%2Fas.example&session_state=x").unwrap();
        assert!(matches!(&response.answer, AuthorizationAnswer::Code(code) if code.expose() == "c"));
        assert_eq!((response.state.expose(), response.iss.as_deref()), ("s", Some("https://as.example")));
        let response = parsed("error=access_denied&error_description=no&state=s").unwrap();
        assert!(matches!(response.answer, AuthorizationAnswer::Error(AuthorizationError::Denied)));
        assert!(response.iss.is_none());
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for refused in [
            "",
            "state=s",
            "code=c",
            "code=c&state=",
            "code=&state=s",
            "code=c&error=access_denied&state=s",
            "code=c&code=c&state=s",
            "code=c&state=s&state=s",
            "code=c&state=s&iss=a&iss=a",
            "code=c&state=s&iss=",
            "error=a&error=b&state=s",
        ] {
            assert!(parsed(refused).is_none(), "{refused}");
        }
        let long = format!("code={}&state=s", "c".repeat(LONGEST_RESPONSE));
        assert!(parsed(&long).is_none());
        let doubled = AuthorizationResponse::parse(b"code=c&state=s&code=d").err().unwrap();
        assert_eq!(doubled.unverified_state.unwrap().expose(), "s", "the audit trail may know whose it was");
    }

    #[test]
    fn the_four_rows_of_rfc_9207() {
        let honest = Some("https://as.example");
        for (announced, iss, proceeds) in [
            (true, honest, true),
            (true, Some("https://evil.example"), false),
            (true, None, false),
            (false, honest, true),
            (false, Some("https://evil.example"), false),
            (false, None, true),
        ] {
            let wanted = if proceeds { Ok(()) } else { Err(IssuerMismatch) };
            assert_eq!(check_issuer(&attempt(honest, announced), iss), wanted, "{announced} {iss:?}");
        }
    }

    #[test]
    fn issuers_are_compared_without_normalization() {
        let attempt = attempt(Some("https://as.example/a"), true);
        for iss in
            ["https://as.example/a/", "https://AS.example/a", "https://as.example:443/a", "https://as.example/%61", ""]
        {
            assert_eq!(check_issuer(&attempt, Some(iss)), Err(IssuerMismatch), "{iss}");
        }
    }

    #[test]
    fn without_a_recorded_issuer_there_is_nothing_to_compare() {
        assert_eq!(check_issuer(&attempt(None, false), Some("https://as.example")), Ok(()));
        assert_eq!(check_issuer(&attempt(None, false), None), Ok(()));
    }
}
