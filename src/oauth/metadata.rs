//! Authorization server metadata (RFC 8414 §2, OpenID Connect Discovery §3).

use std::fmt;

use serde_json::Value;
use url::Url;

use super::json::Document;
use crate::domain::Issuer;

/// What a server's document says, once it is known to be that server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// As it names itself.
    pub issuer: Issuer,
    pub authorization_endpoint: Option<Url>,
    pub token_endpoint: Option<Url>,
    pub revocation_endpoint: Option<Url>,
    pub userinfo_endpoint: Option<Url>,
    /// The authorization response will name the issuer (RFC 9207 §3).
    pub iss_parameter_supported: bool,
    pub pkce: Pkce,
}

/// What the metadata says about PKCE (RFC 8414 §2, `code_challenge_methods_supported`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pkce {
    S256,
    /// The member is there, and S256 is not in it.
    WithoutS256,
    Unmentioned,
}

/// The endpoints that metadata may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointName {
    Authorization,
    Token,
    Revocation,
    Userinfo,
}

/// A document that must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedMetadata {
    /// RFC 8414 §3.3: another server's document, or an impostor's.
    #[error("it is another issuer's")]
    IssuerMismatch,
    /// Not https, not a URL, or with credentials or a fragment.
    #[error("its {0} endpoint must not be called")]
    Endpoint(EndpointName),
    /// On a host and port that are neither the issuer's nor listed in the definition.
    #[error("its {0} endpoint is on an unlisted host")]
    EndpointHost(EndpointName),
    #[error("it names no {0} endpoint")]
    EndpointMissing(EndpointName),
    /// Sending S256 to a server that ignores it protects nobody.
    #[error("it does not offer PKCE with S256")]
    Pkce,
}

impl Metadata {
    /// Reads the document of the server that names itself `issuer`. `may_call` says whether a URL may be called at all.
    pub(super) fn read(
        document: &Document,
        issuer: &Issuer,
        may_call: impl Fn(&Url) -> bool,
    ) -> Result<Self, RefusedMetadata> {
        // Before anything else is believed. As text: RFC 8414 §3.3 wants the identical string.
        if document.text("/issuer") != Some(issuer.as_str()) {
            return Err(RefusedMetadata::IssuerMismatch);
        }
        let endpoint = |pointer, name| match document.at(pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let url = value.as_str().and_then(|text| Url::parse(text).ok());
                let url = url.filter(|url| url.fragment().is_none() && may_call(url));
                url.map(Some).ok_or(RefusedMetadata::Endpoint(name))
            }
        };
        Ok(Self {
            issuer: issuer.clone(),
            authorization_endpoint: endpoint("/authorization_endpoint", EndpointName::Authorization)?,
            token_endpoint: endpoint("/token_endpoint", EndpointName::Token)?,
            revocation_endpoint: endpoint("/revocation_endpoint", EndpointName::Revocation)?,
            userinfo_endpoint: endpoint("/userinfo_endpoint", EndpointName::Userinfo)?,
            iss_parameter_supported: document.at("/authorization_response_iss_parameter_supported")
                == Some(&Value::Bool(true)),
            pkce: match document.at("/code_challenge_methods_supported") {
                None | Some(Value::Null) => Pkce::Unmentioned,
                Some(Value::Array(methods)) if methods.iter().any(|method| method == "S256") => Pkce::S256,
                Some(_) => Pkce::WithoutS256,
            },
        })
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorization => "authorization",
            Self::Token => "token",
            Self::Revocation => "revocation",
            Self::Userinfo => "userinfo",
        })
    }
}
