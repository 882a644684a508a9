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
