//! Provider definitions: those that ship with the broker, and what every definition must fulfil.

use crate::domain::{Definition, Directory, Endpoints, Issuer, Revocation, Rotation};

/// The names that [`shipped`] knows.
pub const SHIPPED: &[&str] = &["github", "google", "microsoft", "oidc", "slack", "slack-bot"];

/// The definition of that name, to be completed by the configuration; `None`: there is none.
pub fn shipped(name: &str) -> Option<Definition> {
    let (text, differences) = match name {
        "github" => (include_str!("providers/github.toml"), ""),
        "google" => (include_str!("providers/google.toml"), ""),
        "microsoft" => (include_str!("providers/microsoft.toml"), ""),
        "oidc" => (include_str!("providers/oidc.toml"), ""),
        "slack" => (include_str!("providers/slack.toml"), ""),
        "slack-bot" => (include_str!("providers/slack.toml"), include_str!("providers/slack-bot.toml")),
        _ => return None,
    };
    Some(merged(text, differences).expect("every shipped definition is parsed by a test"))
}

fn merged(text: &str, differences: &str) -> Result<Definition, toml::de::Error> {
    let mut members: toml::Table = toml::from_str(text)?;
    members.extend(toml::from_str::<toml::Table>(differences)?);
    members.try_into()
}

/// A shipped definition as an operator completes it. What is not given stays.
pub struct Completion<'a> {
    pub issuer: Option<&'a Issuer>,
    pub directory: Option<&'a Directory>,
    pub endpoints: &'a Endpoints,
    pub rotation: Option<Rotation>,
}

impl Completion<'_> {
    /// The completed definition, once it is found to hold.
    pub fn of(&self, mut definition: Definition) -> Result<Definition, InvalidDefinition> {
        definition.issuer = self.issuer.cloned().or(definition.issuer);
        definition.rotation = self.rotation.unwrap_or(definition.rotation);
        let (pinned, given) = (&mut definition.endpoints, self.endpoints);
        let moves = definition.issuer.is_none() && *given != Endpoints::default();
        for (endpoint, own, given) in [
            ("authorization", &mut pinned.authorization, &given.authorization),
            ("token", &mut pinned.token, &given.token),
            ("revocation", &mut pinned.revocation, &given.revocation),
            ("userinfo", &mut pinned.userinfo, &given.userinfo),
        ] {
            if moves && own.is_some() && given.is_none() {
                return Err(InvalidDefinition::EndpointStays { endpoint });
            }
            *own = given.clone().or(own.take());
        }
        if let Some(directory) = self.directory {
            if !definition.wants_directory() {
                return Err(InvalidDefinition::DirectoryMeaningless);
            }
            definition = definition.in_directory(directory);
        }
        check(&definition)?;
        Ok(definition)
    }
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
    /// Half of what belongs to one server would go to another: codes, tokens and the client's secret.
    #[error("`endpoints` names another server, but leaves `endpoints.{endpoint}` where it was: name that too")]
    EndpointStays { endpoint: &'static str },
    #[error(
        "`directory` is missing: whose accounts may sign in, `organizations`, `common`, `consumers` or a directory's id"
    )]
    DirectoryMissing,
    #[error("this definition knows no `directory`: leave it out")]
    DirectoryMeaningless,
}

/// Checks a completed definition.
pub fn check(definition: &Definition) -> Result<(), InvalidDefinition> {
    if definition.wants_directory() {
        return Err(InvalidDefinition::DirectoryMissing);
    }
    if let Some(endpoint) = unknown_endpoint(definition) {
        return Err(InvalidDefinition::EndpointUnknown { endpoint });
    }
    let reserved = definition.authorization_parameters.keys().find(|name| RESERVED_IN_BROWSER.contains(&name.as_str()));
    let reserved =
        reserved.or_else(|| definition.token_parameters.keys().find(|name| RESERVED_AT_TOKEN.contains(&name.as_str())));
    if let Some(name) = reserved {
        return Err(InvalidDefinition::ReservedParameter { name: name.clone() });
    }
    if definition.scope_parameter != "scope" && RESERVED_IN_BROWSER.contains(&definition.scope_parameter.as_str()) {
        return Err(InvalidDefinition::ReservedParameter { name: definition.scope_parameter.clone() });
    }
    let pointers = definition.error_rules.iter().map(|rule| &rule.pointer);
    let pointers = pointers.chain(definition.account.iter().flat_map(|account| &account.userinfo));
    let mut pointers = pointers.chain([&definition.token_object]);
    if let Some(pointer) = pointers.find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
        return Err(InvalidDefinition::Pointer { pointer: pointer.clone() });
    }
    Ok(())
}

/// Without an issuer nothing can be discovered.
fn unknown_endpoint(definition: &Definition) -> Option<&'static str> {
    let pinned = &definition.endpoints;
    let asks = definition.account.as_ref().is_some_and(|account| !account.userinfo.is_empty());
    let revokes = definition.revocation != Revocation::None;
    let needed = [
        ("authorization", &pinned.authorization, true),
        ("token", &pinned.token, true),
        ("userinfo", &pinned.userinfo, asks),
        ("revocation", &pinned.revocation, revokes),
    ];
    let unknown = needed.into_iter().find(|(_, url, is_needed)| *is_needed && url.is_none());
    unknown.filter(|_| definition.issuer.is_none()).map(|(endpoint, ..)| endpoint)
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
    use super::{Completion, InvalidDefinition, SHIPPED, check, shipped};
    use crate::domain::{
        AccountSource, ClientAuthentication, Definition, Directory, Endpoints, Issuer, Revocation, Rotation,
    };

    fn completed(
        name: &str,
        issuer: Option<&str>,
        directory: Option<&str>,
        endpoints: &Endpoints,
    ) -> Result<Definition, InvalidDefinition> {
        let issuer = issuer.map(|issuer| issuer.parse().unwrap());
        let directory = directory.map(|directory| directory.parse().unwrap());
        let completion =
            Completion { issuer: issuer.as_ref(), directory: directory.as_ref(), endpoints, rotation: None };
        completion.of(shipped(name).unwrap())
    }

    #[test]
    fn every_shipped_definition_holds_once_it_is_completed() {
        for name in SHIPPED {
            let mut definition = shipped(name).unwrap();
            definition.issuer = definition.issuer.or_else(|| Some("https://issuer.example".parse().unwrap()));
            assert_eq!(check(&definition.in_directory(&Directory::Organizations)), Ok(()), "{name}");
        }
        assert!(shipped("Github").is_none());
    }

    #[test]
    fn the_openid_definition_needs_its_issuer() {
        let definition = shipped("oidc").unwrap();
        assert_eq!(check(&definition), Err(InvalidDefinition::EndpointUnknown { endpoint: "authorization" }));
        assert_eq!(definition.rotation, Rotation::Strict);
        assert_eq!(definition.revocation, Revocation::Rfc7009);
        let account = AccountSource { id_token: vec!["sub".to_owned()], userinfo: vec!["/sub".to_owned()] };
        assert_eq!(definition.account, Some(account));
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
    fn scopes_are_put_in_words() {
        for name in SHIPPED {
            let definition = shipped(name).unwrap();
            assert!(!definition.display_name.is_empty(), "{name}");
            assert!(definition.scope_words.values().all(|words| !words.is_empty() && !words.ends_with('.')), "{name}");
            let silent = definition.always_scopes.iter().find(|scope| definition.words(scope).is_none());
            assert_eq!(silent, None, "{name}");
        }
        let github = shipped("github").unwrap();
        assert_eq!(github.words(&"read:user".parse().unwrap()), Some("read your profile"));
        assert_eq!(github.words(&"admin:org".parse().unwrap()), None);
    }

    #[test]
    fn a_directory_stands_where_the_issuer_leaves_it_open() {
        let none = &Endpoints::default();
        let names = |definition: &Definition| {
            let text = |issuer: &Option<Issuer>| issuer.as_ref().map(|issuer| issuer.as_str().to_owned());
            (text(&definition.issuer).unwrap(), text(&definition.issuer_template))
        };
        let host = "https://login.microsoftonline.com";
        let shared = completed("microsoft", None, Some("organizations"), none).unwrap();
        assert_eq!(names(&shared), (format!("{host}/organizations/v2.0"), Some(format!("{host}/{{tenantid}}/v2.0"))));
        let id = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        let own = completed("microsoft", None, Some(id), none).unwrap();
        assert_eq!(names(&own), (format!("{host}/{id}/v2.0"), None));
        let sovereign = completed("microsoft", Some("https://login.example/{directory}/v2.0"), Some(id), none).unwrap();
        assert_eq!(names(&sovereign).0, format!("https://login.example/{id}/v2.0"));
        assert_eq!(completed("microsoft", None, None, none), Err(InvalidDefinition::DirectoryMissing));
        assert_eq!(completed("google", None, Some(id), none), Err(InvalidDefinition::DirectoryMeaningless));
    }

    #[test]
    fn only_a_directory_chooses_its_part_of_an_id_tokens_issuer() {
        let shared = completed("microsoft", None, Some("common"), &Endpoints::default()).unwrap();
        let id = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        let issuer = shared.issuer_of(Some(id)).unwrap();
        assert_eq!(&*issuer, format!("https://login.microsoftonline.com/{id}/v2.0"));
        for tid in [None, Some(""), Some("common"), Some("../evil"), Some("{tenantid}")] {
            assert_eq!(shared.issuer_of(tid), None, "{tid:?}");
        }
        let own = completed("microsoft", None, Some(id), &Endpoints::default()).unwrap();
        assert_eq!(own.issuer_of(Some("9188040d-6c67-4c5b-b112-36a304b66dad")), Some(issuer));
    }

    #[test]
    fn endpoints_move_together_where_nothing_is_discovered() {
        let at = |path: &str| Some(format!("https://ghe.example/{path}").parse().unwrap());
        let all = Endpoints {
            authorization: at("login/oauth/authorize"),
            token: at("login/oauth/access_token"),
            revocation: at("api/v3/applications/{client_id}/grant"),
            userinfo: at("api/v3/user"),
        };
        assert_eq!(completed("github", None, None, &all).unwrap().endpoints, all);
        let stays = Err(InvalidDefinition::EndpointStays { endpoint: "revocation" });
        assert_eq!(completed("github", None, None, &Endpoints { revocation: None, ..all.clone() }), stays);
        let issuer = Some("https://issuer.example");
        let one = Endpoints { token: all.token, ..Endpoints::default() };
        assert_eq!(completed("oidc", issuer, None, &one).unwrap().endpoints, one);
    }

    #[test]
    fn the_two_definitions_of_slack_differ_in_whose_token_it_is() {
        let (user, bot) = (shipped("slack").unwrap(), shipped("slack-bot").unwrap());
        assert_eq!((user.scope_parameter.as_str(), bot.scope_parameter.as_str()), ("user_scope", "scope"));
        assert_eq!((user.token_types, bot.token_types), (vec!["user".to_owned()], vec!["bot".to_owned()]));
        assert_eq!((user.error_rules, user.endpoints), (bot.error_rules, bot.endpoints));
        assert_ne!(user.revocation_side_effects, bot.revocation_side_effects);
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
        definition.scope_parameter = "state".to_owned();
        assert_eq!(check(&definition), Err(InvalidDefinition::ReservedParameter { name: "state".to_owned() }));
        let mut definition = shipped("slack").unwrap();
        definition.token_object = "authed_user".to_owned();
        assert_eq!(check(&definition), Err(InvalidDefinition::Pointer { pointer: "authed_user".to_owned() }));
        let mut definition = shipped("slack").unwrap();
        definition.endpoints.revocation = None;
        assert_eq!(check(&definition), Err(InvalidDefinition::EndpointUnknown { endpoint: "revocation" }));
    }
}
