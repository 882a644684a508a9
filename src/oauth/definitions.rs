//! Provider definitions: those that ship with the broker, and what every definition must fulfil.

use url::Url;

use crate::domain::{Definition, Revocation};

/// The names that [`shipped`] knows.
pub const SHIPPED: &[&str] = &["github", "oidc"];

/// The definition of that name, to be completed by the configuration; `None`: there is none.
pub fn shipped(name: &str) -> Option<Definition> {
    let text = match name {
        "github" => include_str!("providers/github.toml"),
        "oidc" => include_str!("providers/oidc.toml"),
        _ => return None,
    };
    Some(toml::from_str(text).expect("every shipped definition is parsed by a test"))
}

/// A definition that cannot work, or that would let data override the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDefinition {
    /// Neither an issuer to discover it from, nor an address.
    #[error(
        "the definition leaves the server open; write `issuer`, the provider's issuer identifier ({endpoint} unknown)"
    )]
    EndpointUnknown { endpoint: &'static str },
    /// A second `state` or `redirect_uri` beside ours would let the server choose which one to believe.
    #[error("the parameter `{name}` is set by the protocol")]
    ReservedParameter { name: String },
    #[error("`{pointer}` is not a JSON pointer (RFC 6901)")]
    Pointer { pointer: String },
    #[error("`revocation.delete_json.url` is not a URL")]
    RevocationUrl,
}

/// Checks a completed definition.
pub fn check(definition: &Definition) -> Result<(), InvalidDefinition> {
    if definition.issuer.is_none() {
        let known = [("authorization", &definition.endpoints.authorization), ("token", &definition.endpoints.token)];
        if let Some((endpoint, _)) = known.into_iter().find(|(_, url)| url.is_none()) {
            return Err(InvalidDefinition::EndpointUnknown { endpoint });
        }
    }
    let reserved = definition.authorization_parameters.keys().find(|name| RESERVED_IN_BROWSER.contains(&name.as_str()));
    let reserved =
        reserved.or_else(|| definition.token_parameters.keys().find(|name| RESERVED_AT_TOKEN.contains(&name.as_str())));
    if let Some(name) = reserved {
        return Err(InvalidDefinition::ReservedParameter { name: name.clone() });
    }
    let pointers = definition.error_rules.iter().map(|rule| &rule.pointer);
    if let Some(pointer) = pointers.into_iter().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        return Err(InvalidDefinition::Pointer { pointer: pointer.clone() });
    }
    match &definition.revocation {
        Revocation::DeleteJson { url } if Url::parse(url).is_err() => Err(InvalidDefinition::RevocationUrl),
        _ => Ok(()),
    }
}

const RESERVED_IN_BROWSER: &[&str] = &[
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_type",
    "scope",
    "state",
];

const RESERVED_AT_TOKEN: &[&str] =
    &["client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"];

#[cfg(test)]
mod tests {
    use super::{InvalidDefinition, SHIPPED, check, shipped};
    use crate::domain::{AccountSource, ClientAuthentication, Revocation, Rotation};

    #[test]
    fn every_shipped_definition_holds_once_it_is_completed() {
        for name in SHIPPED {
            let mut definition = shipped(name).unwrap();
            definition.issuer = definition.issuer.or_else(|| Some("https://issuer.example".parse().unwrap()));
            assert_eq!(check(&definition), Ok(()), "{name}");
        }
        assert!(shipped("Github").is_none());
    }

    #[test]
    fn the_openid_definition_needs_its_issuer() {
        let definition = shipped("oidc").unwrap();
        assert_eq!(check(&definition), Err(InvalidDefinition::EndpointUnknown { endpoint: "authorization" }));
        assert_eq!(definition.rotation, Rotation::Strict);
        assert_eq!(definition.revocation, Revocation::Rfc7009);
        assert_eq!(definition.account, Some(AccountSource::IdToken { claim: "sub".to_owned() }));
        assert!(!definition.pkce_asserted);
    }

    #[test]
    fn the_github_definition_stands_alone() {
        let definition = shipped("github").unwrap();
        assert_eq!(check(&definition), Ok(()));
        assert_eq!(definition.client_authentication, ClientAuthentication::Post);
        assert_eq!((definition.scope_separator, definition.response_scope_separator), (' ', ','));
        assert_eq!(definition.rotation, Rotation::None);
    }

    #[test]
    fn data_cannot_override_the_protocol() {
        let mut definition = shipped("github").unwrap();
        definition.authorization_parameters.insert("state".to_owned(), "x".to_owned());
        assert_eq!(check(&definition), Err(InvalidDefinition::ReservedParameter { name: "state".to_owned() }));
        let mut definition = shipped("github").unwrap();
        definition.token_parameters.insert("redirect_uri".to_owned(), "x".to_owned());
        assert_eq!(check(&definition), Err(InvalidDefinition::ReservedParameter { name: "redirect_uri".to_owned() }));
        let mut definition = shipped("github").unwrap();
        definition.error_rules[0].pointer = "error".to_owned();
        assert_eq!(check(&definition), Err(InvalidDefinition::Pointer { pointer: "error".to_owned() }));
        let mut definition = shipped("github").unwrap();
        definition.revocation = Revocation::DeleteJson { url: "{client_id}".to_owned() };
        assert_eq!(check(&definition), Err(InvalidDefinition::RevocationUrl));
    }
}
