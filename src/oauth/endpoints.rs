//! Where a provider's endpoints are: what the definition pins, and for the rest what the metadata says.

use url::Url;

use super::{
    definitions::InvalidDefinition,
    discovery::{Discovery, DiscoveryError},
    metadata::{EndpointName, Metadata, Pkce, RefusedMetadata},
};
use crate::domain::{Definition, Issuer};

/// The endpoints that an authorization uses, together: they belong to one server (RFC 9700 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEndpoints {
    /// `None`: the definition names no issuer, and authorization responses are not checked for one.
    pub issuer: Option<Issuer>,
    pub iss_parameter_supported: bool,
    pub authorization: Url,
    pub token: Url,
}

/// For an authorization: what cannot be protected by PKCE is refused here, before a user is sent anywhere.
pub(super) async fn for_authorization(
    definition: &Definition,
    discovery: &Discovery,
) -> Result<ServerEndpoints, Unresolved> {
    let pinned = &definition.endpoints;
    let Some(issuer) = &definition.issuer else {
        let authorization = pinned.authorization.clone().ok_or(unknown("authorization"))?;
        let token = pinned.token.clone().ok_or(unknown("token"))?;
        return Ok(ServerEndpoints { issuer: None, iss_parameter_supported: false, authorization, token });
    };
    let metadata = discovery.metadata(issuer).await?;
    if !matches!((metadata.pkce, definition.pkce_asserted), (Pkce::S256, _) | (Pkce::Unmentioned, true)) {
        return Err(refused(issuer, RefusedMetadata::Pkce));
    }
    Ok(ServerEndpoints {
        issuer: Some(issuer.clone()),
        iss_parameter_supported: metadata.iss_parameter_supported,
        authorization: required(definition, &metadata, EndpointName::Authorization)?,
        token: required(definition, &metadata, EndpointName::Token)?,
    })
}

/// Asks for the metadata only if the definition leaves the endpoint open.
pub(super) async fn token(definition: &Definition, discovery: &Discovery) -> Result<Url, Unresolved> {
    match (&definition.endpoints.token, &definition.issuer) {
        (Some(pinned), _) => Ok(pinned.clone()),
        (None, Some(issuer)) => required(definition, &*discovery.metadata(issuer).await?, EndpointName::Token),
        (None, None) => Err(unknown("token").into()),
    }
}

/// `None`: the server has none.
pub(super) async fn revocation(definition: &Definition, discovery: &Discovery) -> Result<Option<Url>, Unresolved> {
    match (&definition.endpoints.revocation, &definition.issuer) {
        (Some(pinned), _) => Ok(Some(pinned.clone())),
        (None, Some(issuer)) => endpoint(definition, &*discovery.metadata(issuer).await?, EndpointName::Revocation),
        (None, None) => Ok(None),
    }
}

/// Why an endpoint is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    #[error(transparent)]
    Definition(#[from] InvalidDefinition),
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

fn required(definition: &Definition, metadata: &Metadata, name: EndpointName) -> Result<Url, Unresolved> {
    endpoint(definition, metadata, name)?
        .ok_or_else(|| refused(&metadata.issuer, RefusedMetadata::EndpointMissing(name)))
}

fn endpoint(definition: &Definition, metadata: &Metadata, name: EndpointName) -> Result<Option<Url>, Unresolved> {
    let pinned = &definition.endpoints;
    let (pinned, discovered) = match name {
        EndpointName::Authorization => (&pinned.authorization, &metadata.authorization_endpoint),
        EndpointName::Token => (&pinned.token, &metadata.token_endpoint),
        EndpointName::Revocation => (&pinned.revocation, &metadata.revocation_endpoint),
        EndpointName::Userinfo => (&pinned.userinfo, &metadata.userinfo_endpoint),
        EndpointName::Jwks => (&None, &metadata.jwks_uri),
    };
    match (pinned, discovered) {
        (Some(pinned), _) => Ok(Some(pinned.clone())),
        (None, Some(url)) if is_listed(definition, metadata, url) => Ok(Some(url.clone())),
        (None, Some(_)) => Err(refused(&metadata.issuer, RefusedMetadata::EndpointHost(name))),
        (None, None) => Ok(None),
    }
}

/// A document that was tampered with, or written by somebody with access to one page of the host, could otherwise send
/// client secret and code anywhere.
fn is_listed(definition: &Definition, metadata: &Metadata, url: &Url) -> bool {
    let host = url.host_str();
    host == metadata.issuer.url().host_str()
        || host.is_some_and(|host| definition.endpoint_hosts.iter().any(|listed| listed.eq_ignore_ascii_case(host)))
}

fn unknown(endpoint: &'static str) -> InvalidDefinition {
    InvalidDefinition::EndpointUnknown { endpoint }
}

fn refused(issuer: &Issuer, refused: RefusedMetadata) -> Unresolved {
    Unresolved::Discovery(DiscoveryError::Refused { issuer: issuer.clone(), refused })
}
