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
        AccessToken, AuthorizationCode, Clock, CodeVerifier, Issuer, Nonce, Provider, RefreshToken, RemoteRevocation,
        ReplyClass, Revocation, ScopeSet,
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
        self.discovery.metadata(issuer, issuer).await
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

    /// Spends a refresh token (RFC 6749 §6) that was granted with these scopes. One POST. With `narrower` scopes, an
    /// `invalid_scope` is the request's fault ([`ReplyClass::Transient`]); without, the user must consent anew. `excused`: how many answers in a row [`crate::domain::ErrorRule::at_most`]
    /// has applied to.
    pub async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &RefreshToken,
        granted: &ScopeSet,
        narrower: Option<&ScopeSet>,
        excused: u32,
    ) -> Result<Tokens, TokenFailure> {
        let definition = &provider.definition;
        let token_endpoint = endpoints::token(definition, &self.discovery).await?;
        let repeated = definition.refresh_repeats_scopes.then(|| definition.always_scopes.union(granted));
        let scopes = narrower.or(repeated.as_ref());
        let request = token::refresh(provider, &token_endpoint, refresh_token, scopes)?;
        self.ask(provider, Asked::Refresh { narrowed: narrower.is_some(), excused }, request).await
    }

    /// Finds out where the provider is, so that the next request to it need not.
    pub async fn find(&self, provider: &Provider) {
        // What stands in the way stands in the way of the request too, which says so.
        let _ = endpoints::token(&provider.definition, &self.discovery).await;
    }

    /// Whether the token endpoint answers requests, by one that spends nothing.
    pub async fn is_there(&self, provider: &Provider) -> bool {
        let Ok(token_endpoint) = endpoints::token(&provider.definition, &self.discovery).await else { return false };
        let reply = self.outbound.send(token::probe(provider, &token_endpoint)).await;
        reply.is_ok_and(|reply| reply::is_sign_of_life(&provider.definition, &reply))
    }

    /// Takes the tokens away at the provider. Safe to repeat until it is `Ok`.
    pub async fn revoke(
        &self,
        provider: &Provider,
        access: Option<&AccessToken>,
        refresh: Option<&RefreshToken>,
    ) -> Result<RemoteRevocation, RevocationFailure> {
        let (outbound, clock) = (&self.outbound, &*self.clock);
        match &provider.definition.revocation {
            Revocation::None => Ok(RemoteRevocation::Unsupported),
            Revocation::DeleteJson => match self.revocation_endpoint(provider).await? {
                Some(endpoint) => revoke::delete_json(outbound, clock, provider, &endpoint, access).await,
                None => Ok(RemoteRevocation::Unsupported),
            },
            Revocation::Rfc7009 => match self.revocation_endpoint(provider).await? {
                Some(endpoint) => revoke::rfc7009(outbound, clock, provider, &endpoint, access, refresh).await,
                None => Ok(RemoteRevocation::Unsupported),
            },
            Revocation::AccessToken { gone } => match (self.revocation_endpoint(provider).await?, access) {
                (Some(endpoint), Some(access)) => {
                    let is_all = refresh.is_none();
                    revoke::access_token(outbound, clock, &provider.definition, &endpoint, gone, access, is_all).await
                }
                _ => Ok(RemoteRevocation::Unsupported),
            },
        }
    }

    async fn revocation_endpoint(&self, provider: &Provider) -> Result<Option<Url>, RevocationFailure> {
        let endpoint = endpoints::revocation(&provider.definition, &self.discovery).await;
        endpoint.map_err(|_| RevocationFailure::Undiscovered)
    }

    /// The provider's stable id of the account that the tokens are for. `None`: the definition does not say how to
    /// tell. `nonce` is the attempt's; `None` where the broker sent none.
    pub async fn account(
        &self,
        provider: &Provider,
        tokens: &Tokens,
        nonce: Option<&Nonce>,
    ) -> Result<Option<String>, AccountError> {
        let definition = &provider.definition;
        let Some(source) = &definition.account else { return Ok(None) };
        let account = match (&tokens.id_token, source.id_token.is_empty(), source.userinfo.is_empty()) {
            (Some(id_token), false, _) => {
                let expected = Expected { definition, client_id: &provider.client_id, nonce };
                // Against the time it came: a settlement that a crash delayed judges no token expired that was not.
                account::from_id_token(id_token, &source.id_token, &expected, tokens.asked_at)
            }
            (_, _, false) => {
                let endpoint = endpoints::userinfo(definition, &self.discovery).await.ok().flatten();
                let endpoint = endpoint.ok_or(AccountError::UserinfoUnknown)?;
                account::from_userinfo(&self.outbound, &endpoint, &source.userinfo, &tokens.access).await
            }
            _ => Err(AccountError::IdTokenMissing),
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
