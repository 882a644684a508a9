//! Requests to the token endpoint. The `oauth2` crate writes them (RFC 6749 §4.1.3, §6; RFC 7636 §4.5); what they are
//! sent with and how the answer is read is ours: providers' answers are odder than the crate allows for.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use oauth2::{
    AuthType, ClientId, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, TokenUrl,
    basic::{BasicClient, BasicErrorResponse, BasicTokenResponse},
};
use url::{Url, form_urlencoded::Serializer};
use zeroize::Zeroizing;

use super::credentials;
use crate::{
    domain::{AuthorizationCode, ClientAuthentication, CodeVerifier, Provider, RefreshToken, ScopeSet},
    outbound::Request,
};

/// The token endpoint's address cannot be put into a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no request can be made of the token endpoint's address")]
pub(super) struct Unwritable;

/// RFC 6749 §4.1.3. The redirect URI is repeated exactly as it was sent to the authorization endpoint.
pub(super) fn exchange(
    provider: &Provider,
    token_endpoint: &Url,
    code: &AuthorizationCode,
    verifier: &CodeVerifier,
    redirect_uri: &Url,
) -> Result<Request, Unwritable> {
    let client = client(provider, token_endpoint);
    let mut request = client
        .exchange_code(oauth2::AuthorizationCode::new(code.expose().to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose().to_owned()))
        .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(redirect_uri.clone())));
    for (name, value) in &provider.definition.token_parameters {
        request = request.add_extra_param(name, value);
    }
    written(request.request(&intercept), token_endpoint)
}

/// RFC 6749 §6. Without `scopes` the server keeps the scopes as they are.
pub(super) fn refresh(
    provider: &Provider,
    token_endpoint: &Url,
    refresh_token: &RefreshToken,
    scopes: Option<&ScopeSet>,
) -> Result<Request, Unwritable> {
    let client = client(provider, token_endpoint);
    let refresh_token = oauth2::RefreshToken::new(refresh_token.expose().to_owned());
    let mut request = client.exchange_refresh_token(&refresh_token);
    if let Some(scopes) = scopes {
        // The crate joins with spaces, so what the provider wants joined otherwise is one "scope" to it.
        request = request.add_scope(oauth2::Scope::new(scopes.join(provider.definition.scope_separator)));
    }
    for (name, value) in &provider.definition.token_parameters {
        request = request.add_extra_param(name, value);
    }
    written(request.request(&intercept), token_endpoint)
}

/// A refresh without a refresh token. Nothing can come of it, and whoever is there says so (RFC 6749 §5.2:
/// `invalid_request`).
pub(super) fn probe(provider: &Provider, token_endpoint: &Url) -> Request {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    for (name, value) in &provider.definition.token_parameters {
        form.append_pair(name, value);
    }
    credentials::signed_form(provider, token_endpoint, form).at_most(LARGEST)
}

type Client = BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

fn client(provider: &Provider, token_endpoint: &Url) -> Client {
    let auth_type = match provider.definition.client_authentication {
        ClientAuthentication::Basic => AuthType::BasicAuth,
        ClientAuthentication::None | ClientAuthentication::Post => AuthType::RequestBody,
    };
    let client = BasicClient::new(ClientId::new(provider.client_id.clone()))
        .set_auth_type(auth_type)
        .set_token_uri(TokenUrl::from_url(token_endpoint.clone()));
    match credentials::secret(provider) {
        Some(secret) if provider.definition.client_authentication != ClientAuthentication::None => {
            client.set_client_secret(oauth2::ClientSecret::new(secret.expose().to_owned()))
        }
        _ => client,
    }
}

/// Stands in for the crate's HTTP client, and hands back the request instead of sending it.
fn intercept(request: HttpRequest) -> Result<HttpResponse, Intercepted> {
    Err(Intercepted(Box::new(request)))
}

/// Holds secrets: neither `Display` nor `Debug` shows the request.
#[derive(thiserror::Error)]
#[error("a request, not sent")]
struct Intercepted(Box<HttpRequest>);

impl std::fmt::Debug for Intercepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Intercepted")
    }
}

type Written = Result<BasicTokenResponse, RequestTokenError<Intercepted, BasicErrorResponse>>;

fn written(result: Written, token_endpoint: &Url) -> Result<Request, Unwritable> {
    let Err(RequestTokenError::Request(Intercepted(request))) = result else { return Err(Unwritable) };
    let (parts, body) = request.into_parts();
    let outgoing = Request::post_form(token_endpoint.clone(), Zeroizing::new(body)).accept_json().at_most(LARGEST);
    Ok(match parts.headers.get(AUTHORIZATION) {
        Some(credentials) => outgoing.authorization(credentials.clone()),
        None => outgoing,
    })
}

/// Bytes of answer: what is larger could not be stored.
const LARGEST: usize = 32 * 1024;
