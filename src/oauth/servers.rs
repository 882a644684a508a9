//! The calls that the broker makes. Each sends at most one request that changes anything, except a revocation: one for
//! each token.

use std::sync::Arc;

use url::Url;

use super::{
    account::{self, AccountError, Expected},
    authorize::{self, AuthorizationRequest, AuthorizationUrl, AuthorizeError},
    classify::Asked,
    discovery::{Discovery, DiscoveryError},
    endpoints::{self, ServerEndpoints, Unresolved},
    failure::{Evidence, TokenFailure},
    metadata::Metadata,
    reply::{self, Tokens},
    revoke::{self, RevocationFailure},
    token::{self, Unwritable},
};
use crate::{
    domain::{
        AccessToken, AccountSource, AuthorizationCode, Clock, CodeVerifier, Issuer, Nonce, Provider, RefreshToken,
        RemoteRevocation, ReplyClass, Revocation, ScopeSet,
    },
    outbound::{Outbound, Request},
};

/// The world's authorization servers, as far as the broker talks to them.
pub struct AuthorizationServers {
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    discovery: Discovery,
}

impl AuthorizationServers {
    pub fn new(outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        Self { discovery: Discovery::new(outbound.clone(), clock.clone()), outbound, clock }
    }

    /// What an issuer says about itself, at most an hour old.
    pub async fn metadata(&self, issuer: &Issuer) -> Result<Arc<Metadata>, DiscoveryError> {
        self.discovery.metadata(issuer).await
    }

    /// The endpoints that an authorization at this provider would use now: for a flow that the caller ran itself.
    pub async fn endpoints(&self, provider: &Provider) -> Result<ServerEndpoints, AuthorizeError> {
        Ok(endpoints::for_authorization(&provider.definition, &self.discovery).await?)
    }

    /// Where to send the user's browser (RFC 6749 §4.1.1), with PKCE S256.
    pub async fn authorization_url(
        &self,
        provider: &Provider,
        request: &AuthorizationRequest<'_>,
    ) -> Result<AuthorizationUrl, AuthorizeError> {
        let server = self.endpoints(provider).await?;
        authorize::authorization_url(provider, server, request)
    }

    /// Exchanges a code (RFC 6749 §4.1.3) at the token endpoint that its attempt recorded. One POST.
    pub async fn exchange(
        &self,
        provider: &Provider,
        token_endpoint: &Url,
        code: &AuthorizationCode,
        verifier: &CodeVerifier,
        redirect_uri: &Url,
    ) -> Result<Tokens, TokenFailure> {
        let request = token::exchange(provider, token_endpoint, code, verifier, redirect_uri)?;
        self.ask(provider, Asked::Exchange, request).await
    }

    /// Spends a refresh token (RFC 6749 §6). One POST. With `scopes`, an `invalid_scope` is the request's fault
    /// ([`ReplyClass::Transient`]); without, the user must consent anew.
    pub async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &RefreshToken,
        scopes: Option<&ScopeSet>,
    ) -> Result<Tokens, TokenFailure> {
        let token_endpoint = endpoints::token(&provider.definition, &self.discovery).await?;
        let request = token::refresh(provider, &token_endpoint, refresh_token, scopes)?;
        self.ask(provider, Asked::Refresh { narrowed: scopes.is_some() }, request).await
    }

    /// Takes the tokens away at the provider. Safe to repeat until it is `Ok`.
    pub async fn revoke(
        &self,
        provider: &Provider,
        access: Option<&AccessToken>,
        refresh: Option<&RefreshToken>,
    ) -> Result<RemoteRevocation, RevocationFailure> {
        let clock = &*self.clock;
        match &provider.definition.revocation {
            Revocation::None => Ok(RemoteRevocation::Unsupported),
            Revocation::DeleteJson { url } => revoke::delete_json(&self.outbound, clock, provider, url, access).await,
            Revocation::Rfc7009 => match endpoints::revocation(&provider.definition, &self.discovery).await {
                Ok(Some(endpoint)) => {
                    revoke::rfc7009(&self.outbound, clock, provider, &endpoint, access, refresh).await
                }
                Ok(None) => Ok(RemoteRevocation::Unsupported),
                Err(_) => Err(RevocationFailure::Undiscovered),
            },
        }
    }

    /// The provider's stable id of the account that the tokens are for. `None`: the definition does not say how to
    /// tell. `nonce` is the attempt's; `None` where the broker sent none.
    pub async fn account(
        &self,
        provider: &Provider,
        tokens: &Tokens,
        nonce: Option<&Nonce>,
    ) -> Result<Option<String>, AccountError> {
        let account = match &provider.definition.account {
            None => return Ok(None),
            Some(AccountSource::Probe { url, pointer }) => {
                account::from_probe(&self.outbound, url, pointer, &tokens.access).await
            }
            Some(AccountSource::IdToken { claim }) => {
                let issuer = provider.definition.issuer.as_ref().ok_or(AccountError::IssuerUnknown)?;
                let id_token = tokens.id_token.as_ref().ok_or(AccountError::IdTokenMissing)?;
                let expected = Expected { issuer, client_id: &provider.client_id, nonce };
                // Against the time it came: a settlement that a crash delayed judges no token expired that was not.
                account::from_id_token(id_token, claim, &expected, tokens.asked_at)
            }
        };
        account.map(Some)
    }

    async fn ask(&self, provider: &Provider, asked: Asked, request: Request) -> Result<Tokens, TokenFailure> {
        let asked_at = self.clock.now();
        match self.outbound.send(request).await {
            Ok(reply) => reply::judge(&provider.definition, asked, &reply, asked_at, self.clock.now()),
            Err(error) => Err(TokenFailure::from_outbound(&error)),
        }
    }
}

impl From<Unwritable> for TokenFailure {
    fn from(Unwritable: Unwritable) -> Self {
        Self::bare(ReplyClass::Configuration, Evidence::NotSent)
    }
}

/// Nothing was sent. A document that must be refused is the operator's business; one that is missing may come back.
impl From<Unresolved> for TokenFailure {
    fn from(unresolved: Unresolved) -> Self {
        let class = match unresolved {
            Unresolved::Definition(_) | Unresolved::Discovery(DiscoveryError::Refused { .. }) => {
                ReplyClass::Configuration
            }
            Unresolved::Discovery(DiscoveryError::Unreachable { .. } | DiscoveryError::Absent { .. }) => {
                ReplyClass::Transient
            }
        };
        Self::bare(class, Evidence::NotSent)
    }
}
