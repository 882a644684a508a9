//! The client's proof of itself (RFC 6749 §2.3.1) where no crate writes it, and an access token in a header
//! (RFC 6750 §2.1).

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use url::{
    Url,
    form_urlencoded::{Serializer, byte_serialize},
};
use zeroize::Zeroizing;

use crate::{
    domain::{AccessToken, ClientAuthentication, ClientSecret, Provider},
    outbound::Request,
};

/// The client's secret; an empty one is none, and is never sent.
pub(super) fn secret(provider: &Provider) -> Option<&ClientSecret> {
    provider.client_secret.as_ref().filter(|secret| !secret.expose().is_empty())
}

/// `Basic`, with id and secret form-encoded first, so that a colon in either stays where it belongs.
pub(super) fn basic(provider: &Provider, secret: &ClientSecret) -> HeaderValue {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (provider.client_id.len() + secret.expose().len()) + 1));
    pair.extend(byte_serialize(provider.client_id.as_bytes()));
    pair.push(':');
    pair.extend(byte_serialize(secret.expose().as_bytes()));
    let encoded = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
    HeaderValue::from_str(&encoded).expect("base64 is a legal header value")
}

/// A POST of the form, with the client's proof of itself.
pub(super) fn signed_form(provider: &Provider, endpoint: &Url, mut form: Serializer<'_, String>) -> Request {
    let proof = match (provider.definition.client_authentication, secret(provider)) {
        (ClientAuthentication::Basic, Some(secret)) => Some(basic(provider, secret)),
        (ClientAuthentication::Post, Some(secret)) => {
            form.append_pair("client_id", &provider.client_id).append_pair("client_secret", secret.expose());
            None
        }
        (ClientAuthentication::None, _) | (_, None) => {
            form.append_pair("client_id", &provider.client_id);
            None
        }
    };
    let request = Request::post_form(endpoint.clone(), Zeroizing::new(form.finish().into_bytes())).accept_json();
    match proof {
        Some(proof) => request.authorization(proof),
        None => request,
    }
}

/// `None`: the token fits into no header.
pub(super) fn bearer(access: &AccessToken) -> Option<HeaderValue> {
    HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", access.expose()))).ok()
}
