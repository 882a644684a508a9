//! The URL that a user's browser is sent to (RFC 6749 §4.1.1, RFC 7636 §4.3).

use std::borrow::Cow;

use oauth2::{AuthUrl, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, basic::BasicClient};
use url::Url;

use super::{
    definitions::{self, InvalidDefinition},
    discovery::DiscoveryError,
    endpoints::{ServerEndpoints, Unresolved},
};
use crate::domain::{CodeVerifier, FlowSecret, Hints, Nonce, Provider, Scope, ScopeSet};

/// What one attempt carries. The secrets are minted for it alone, 256 bits or more each.
pub struct AuthorizationRequest<'a> {
    pub redirect_uri: &'a Url,
    pub state: &'a FlowSecret,
    pub verifier: &'a CodeVerifier,
    /// Sent when `openid` is among the scopes.
    pub nonce: &'a Nonce,
    /// Beside the definition's own.
    pub scopes: &'a ScopeSet,
    /// The account that the user is expected to choose, as the provider knows it.
    pub login_hint: Option<&'a str>,
    /// What the provider demanded when it last refused; wins over the definition's parameters.
    pub hints: Option<&'a Hints>,
}

/// Where to send the browser, and what the attempt must remember to believe what comes back. No `Debug`: the URL holds
/// the attempt's state.
pub struct AuthorizationUrl {
    pub url: Url,
    /// Issuer and token endpoint belong into the attempt's record (RFC 9207 §2.4, RFC 9700 §4.4.2).
    pub server: ServerEndpoints,
}

/// Why nobody can be sent to the provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizeError {
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    #[error("the provider's definition is invalid: {0}")]
    Definition(#[from] InvalidDefinition),
    /// RFC 7636 §4.1: 43 to 128 unreserved characters.
    #[error("the code verifier is not one (RFC 7636 §4.1)")]
    Verifier,
}

pub(super) fn authorization_url(
    provider: &Provider,
    server: ServerEndpoints,
    request: &AuthorizationRequest<'_>,
) -> Result<AuthorizationUrl, AuthorizeError> {
    let definition = &provider.definition;
    definitions::check(definition)?;
    let client = BasicClient::new(ClientId::new(provider.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(server.authorization.clone()));
    let scopes = definition.always_scopes.union(request.scopes);
    let mut authorization = client
        .authorize_url(|| CsrfToken::new(request.state.expose().to_owned()))
        .set_pkce_challenge(challenge(request.verifier)?)
        .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(request.redirect_uri.clone())));
    if !scopes.is_empty() {
        // Not the crate's way of adding scopes: it knows one name for them and one separator.
        authorization =
            authorization.add_extra_param(&definition.scope_parameter, scopes.join(definition.scope_separator));
    }
    if scopes.iter().map(Scope::as_str).any(|scope| scope == "openid") {
        authorization = authorization.add_extra_param("nonce", request.nonce.expose());
    }
    let demanded = demanded(request);
    for (name, value) in &definition.authorization_parameters {
        if demanded.iter().all(|(overriding, _)| overriding != name) {
            authorization = authorization.add_extra_param(name, value);
        }
    }
    for (name, value) in demanded {
        authorization = authorization.add_extra_param(name, value);
    }
    let (url, _) = authorization.url();
    Ok(AuthorizationUrl { url, server })
}

/// S256 always; `plain` does not exist here.
fn challenge(verifier: &CodeVerifier) -> Result<PkceCodeChallenge, AuthorizeError> {
    let text = verifier.expose();
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if !(43..=128).contains(&text.len()) || !text.bytes().all(unreserved) {
        return Err(AuthorizeError::Verifier);
    }
    Ok(PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(text.to_owned())))
}

/// Parameters of this request alone.
fn demanded<'a>(request: &AuthorizationRequest<'a>) -> Vec<(&'static str, Cow<'a, str>)> {
    let mut demanded = Vec::new();
    if let Some(login_hint) = request.login_hint {
        demanded.push(("login_hint", Cow::Borrowed(login_hint)));
    }
    if let Some(hints) = request.hints {
        demanded.extend(hints.claims.as_deref().map(|claims| ("claims", Cow::Borrowed(claims))));
        demanded.extend(hints.acr_values.as_deref().map(|acr| ("acr_values", Cow::Borrowed(acr))));
        demanded.extend(hints.max_age.map(|seconds| ("max_age", Cow::Owned(seconds.to_string()))));
    }
    demanded
}

impl From<Unresolved> for AuthorizeError {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Discovery(error) => Self::Discovery(error),
            Unresolved::Definition(error) => Self::Definition(error),
        }
    }
}
