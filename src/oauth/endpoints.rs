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
    /// `None`: the definition names no issuer, or a template of which only the user's directory makes one;
    /// authorization responses are not checked for it.
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
    let Some((issuer, named)) = issuer(definition) else {
        let authorization = pinned.authorization.clone().ok_or(unknown("authorization"))?;
        let token = pinned.token.clone().ok_or(unknown("token"))?;
        return Ok(ServerEndpoints { issuer: None, iss_parameter_supported: false, authorization, token });
    };
    let metadata = discovery.metadata(issuer, named).await?;
    if !matches!((metadata.pkce, definition.pkce_asserted), (Pkce::S256, _) | (Pkce::Unmentioned, true)) {
        return Err(refused(issuer, RefusedMetadata::Pkce));
    }
    Ok(ServerEndpoints {
        issuer: definition.issuer_template.is_none().then(|| issuer.clone()),
        iss_parameter_supported: metadata.iss_parameter_supported,
        authorization: required(definition, &metadata, EndpointName::Authorization)?,
        token: required(definition, &metadata, EndpointName::Token)?,
    })
}

/// Asks for the metadata only if the definition leaves the endpoint open.
pub(super) async fn token(definition: &Definition, discovery: &Discovery) -> Result<Url, Unresolved> {
    match (&definition.endpoints.token, issuer(definition)) {
        (Some(pinned), _) => Ok(pinned.clone()),
        (None, Some((issuer, named))) => {
            required(definition, &*discovery.metadata(issuer, named).await?, EndpointName::Token)
        }
        (None, None) => Err(unknown("token").into()),
    }
}

/// `None`: the server has none.
pub(super) async fn revocation(definition: &Definition, discovery: &Discovery) -> Result<Option<Url>, Unresolved> {
    optional(definition, discovery, &definition.endpoints.revocation, EndpointName::Revocation).await
}

/// `None`: the server has none.
pub(super) async fn userinfo(definition: &Definition, discovery: &Discovery) -> Result<Option<Url>, Unresolved> {
    optional(definition, discovery, &definition.endpoints.userinfo, EndpointName::Userinfo).await
}

async fn optional(
    definition: &Definition,
    discovery: &Discovery,
    pinned: &Option<Url>,
    name: EndpointName,
) -> Result<Option<Url>, Unresolved> {
    match (pinned, issuer(definition)) {
        (Some(pinned), _) => Ok(Some(pinned.clone())),
        (None, Some((issuer, named))) => endpoint(definition, &*discovery.metadata(issuer, named).await?, name),
        (None, None) => Ok(None),
    }
}

/// Where the metadata is, and what it names itself.
fn issuer(definition: &Definition) -> Option<(&Issuer, &Issuer)> {
    let issuer = definition.issuer.as_ref()?;
    Some((issuer, definition.issuer_template.as_ref().unwrap_or(issuer)))
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
    // The port too: another one on the same host may be anybody's.
    let Some(place) = url.host_str().map(|host| url.port().map_or(host.to_owned(), |port| format!("{host}:{port}")))
    else {
        return false;
    };
    url.origin() == metadata.issuer.url().origin()
        || definition.endpoint_hosts.iter().any(|listed| listed.eq_ignore_ascii_case(&place))
}

fn unknown(endpoint: &'static str) -> InvalidDefinition {
    InvalidDefinition::EndpointUnknown { endpoint }
}

fn refused(issuer: &Issuer, refused: RefusedMetadata) -> Unresolved {
    Unresolved::Discovery(DiscoveryError::Refused { issuer: issuer.clone(), refused })
}
