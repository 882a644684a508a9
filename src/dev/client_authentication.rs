//! Which client is calling a direct endpoint (RFC 6749 §2.3): Basic, in the form, or a public client's bare name.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{oauth_error::OauthError, parameters::Parameters, realm::Client, site::Site};
use crate::domain::ClientSecret;

pub(super) fn authenticate(site: &Site, headers: &HeaderMap, parameters: &Parameters) -> Result<Client, OauthError> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    if !media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err(OauthError::new("invalid_request", "the body must be a form (RFC 6749 appendix B)"));
    }
    if parameters.any_repeated() {
        return Err(OauthError::new("invalid_request", "a parameter stands twice"));
    }
    let in_form = parameters.single("client_secret").map(|secret| ClientSecret::new(secret.to_owned()));
    let (id, secret) = match headers.get(AUTHORIZATION) {
        Some(_) if in_form.is_some() => {
            return Err(OauthError::new("invalid_request", "two ways of client authentication in one request"));
        }
        Some(header) => {
            let (id, secret) = basic(header.as_bytes())
                .ok_or_else(|| OauthError::invalid_client("the authorization header is not HTTP Basic"))?;
            if parameters.single("client_id").is_some_and(|in_form| in_form != id) {
                return Err(OauthError::new("invalid_request", "two client ids in one request"));
            }
            (id, Some(secret))
        }
        None => (parameters.single("client_id").unwrap_or_default().to_owned(), in_form),
    };
    let client = site.client(&id).ok_or_else(|| OauthError::invalid_client("no such client"))?;
    match (client.confidential, secret) {
        (true, Some(secret)) if secret == site.shared.identity.client_secret => Ok(client),
        (false, None) => Ok(client),
        (true, Some(_)) => Err(OauthError::invalid_client("the client secret is wrong")),
        (true, None) => Err(OauthError::invalid_client("this client has to authenticate")),
        (false, Some(_)) => Err(OauthError::invalid_client("this client has no secret")),
    }
}

/// Id and secret are form-encoded before they are joined (RFC 6749 §2.3.1).
fn basic(unverified_header: &[u8]) -> Option<(String, ClientSecret)> {
    let (scheme, encoded) = unverified_header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let joined = Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).ok()?);
    let colon = joined.iter().position(|byte| *byte == b':')?;
    let secret = Zeroizing::new(form_decoded(&joined[colon + 1..]));
    Some((form_decoded(&joined[..colon]), ClientSecret::new(secret.to_string())))
}

fn form_decoded(text: &[u8]) -> String {
    // A value alone, without `=` or `&`: both are encoded in what a client sends here.
    form_urlencoded::parse(text).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}
