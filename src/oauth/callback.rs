//! Who answered: the `iss` parameter of the authorization response (RFC 9207).

use crate::domain::Attempt;

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
    let matches = match (&attempt.issuer, unverified_iss) {
        (Some(recorded), Some(unverified)) => recorded == unverified,
        (_, None) | (None, Some(_)) => !attempt.iss_parameter_supported,
    };
    if matches { Ok(()) } else { Err(IssuerMismatch) }
}

#[cfg(test)]
mod tests {
    use super::{IssuerMismatch, check_issuer};
    use crate::domain::{Attempt, FlowId, SubjectId, TenantId, Timestamp};

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
        }
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
