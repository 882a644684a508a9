//! Providers and plugins as data.

use std::{collections::BTreeMap, fmt, num::NonZeroU32, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ClientSecret, PluginId, ProviderId, Scope, ScopeSet};

/// An authorization server as this installation uses it: how it behaves, and our registration there.
#[derive(Clone)]
pub struct Provider {
    pub id: ProviderId,
    pub definition: Definition,
    pub client_id: String,
    /// `None`: a public client.
    pub client_secret: Option<ClientSecret>,
    /// The most refreshes that are sent to it in any one second.
    pub refreshes_per_second: NonZeroU32,
}

/// How an authorization server behaves. An odd one sets a field; code exists only where no field can say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The provider's name, for users.
    pub display_name: String,
    /// Metadata is discovered from here (RFC 8414, OpenID Connect Discovery) and fills what `endpoints` leaves open.
    #[serde(default)]
    pub issuer: Option<Issuer>,
    /// Under which name the metadata speaks of itself instead of `issuer`, and with the user's own directory in it the
    /// ID tokens. Made by [`Definition::in_directory`].
    #[serde(skip)]
    pub issuer_template: Option<Issuer>,
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Where discovered endpoints may lie beside the issuer's own host and port: a host, for https on its usual port,
    /// or host and port. What `endpoints` pins needs no entry.
    #[serde(default)]
    pub endpoint_hosts: Vec<String>,
    /// The operator vouches for PKCE S256 where the metadata does not mention PKCE at all. S256 is sent either way.
    #[serde(default)]
    pub pkce_asserted: bool,
    /// Between scopes in requests.
    #[serde(default = "space")]
    pub scope_separator: char,
    /// Between scopes in answers; GitHub asks with spaces and answers with commas.
    #[serde(default = "space")]
    pub response_scope_separator: char,
    /// The parameter that carries them to the authorization endpoint. Slack's `user_scope` asks for a token that acts
    /// as the user, `scope` for one that acts as a bot.
    #[serde(default = "scope_parameter")]
    pub scope_parameter: String,
    /// How answers spell a scope that was asked for otherwise.
    #[serde(default)]
    pub scope_aliases: BTreeMap<Scope, Scope>,
    /// Answers put this before a scope, or do not: both are the same scope.
    #[serde(default)]
    pub scope_prefix: String,
    /// What a scope lets an agent do, for the user who is asked: it completes "wants to …".
    #[serde(default)]
    pub scope_words: BTreeMap<Scope, String>,
    pub client_authentication: ClientAuthentication,
    /// Scopes added to every authorization, such as `openid`.
    #[serde(default)]
    pub always_scopes: ScopeSet,
    #[serde(default)]
    pub authorization_parameters: BTreeMap<String, String>,
    #[serde(default)]
    pub token_parameters: BTreeMap<String, String>,
    /// A refresh must say the scopes again; otherwise it says none, and they stay (RFC 6749 §6).
    #[serde(default)]
    pub refresh_repeats_scopes: bool,
    /// JSON pointer (RFC 6901) to the object with the tokens; where it is not, the answer itself is that object.
    #[serde(default)]
    pub token_object: String,
    /// Values of `token_type` that also mean a bearer token. If there are any, `bearer` itself means nothing here.
    #[serde(default)]
    pub token_types: Vec<String>,
    pub rotation: Rotation,
    #[serde(default)]
    pub refresh_token_lifetime: RefreshTokenLifetime,
    /// Using the refresh token kills the old access token at once: refresh late and on demand.
    #[serde(default)]
    pub refresh_invalidates_access_token: bool,
    /// First match decides; after them the standard rules of RFC 6749 §5.2 apply.
    #[serde(default)]
    pub error_rules: Vec<ErrorRule>,
    pub revocation: Revocation,
    /// What else falls when a connection is revoked, or what stays until the user ends it himself, in words for him;
    /// empty: nothing.
    #[serde(default)]
    pub revocation_side_effects: String,
    #[serde(default)]
    pub account: Option<AccountSource>,
}

/// The text is not an issuer identifier: RFC 8414 §2 wants a URL with a host and without query and fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an issuer identifier (RFC 8414 §2)")]
pub struct InvalidIssuer;

/// An authorization server's issuer identifier, kept exactly as written: issuers are compared as text, and a parsed
/// URL would grow a trailing slash or lose a default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Issuer(Box<str>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Endpoints {
    /// RFC 6749 §3.1.
    pub authorization: Option<Url>,
    /// RFC 6749 §3.2.
    pub token: Option<Url>,
    /// RFC 7009 §2.
    pub revocation: Option<Url>,
    /// OpenID Connect Core §5.3.
    pub userinfo: Option<Url>,
}

/// How the client proves itself at the token endpoint (RFC 6749 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    None,
    Basic,
    Post,
}

/// How long a refresh token lives, as far as the provider says; in seconds. `None`: it does not say, or it never ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshTokenLifetime {
    /// Unless it is used.
    pub idle: Option<u64>,
    /// However often it is used.
    pub absolute: Option<u64>,
}

/// What happens to a refresh token when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Stays the same.
    None,
    /// A new one comes, the old one keeps working.
    Reuse,
    /// The old one works `seconds` longer.
    Grace { seconds: u64 },
    /// The old one is dead, and using it again may kill the whole grant.
    Strict,
}

/// One rule of reply classification: all that is given must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// `None`: those with which verdicts come: 2xx, 400, 401, 403.
    #[serde(default)]
    pub status: Option<u16>,
    /// JSON pointer (RFC 6901) into the answer.
    #[serde(default = "error_pointer")]
    pub pointer: String,
    /// Values there that match, a number as its digits, of an array any member; empty: any value that is not `false`
    /// or `null`.
    #[serde(default)]
    pub values: Vec<String>,
    /// The text under `pointer` contains this.
    #[serde(default)]
    pub contains: Option<String>,
    /// Matches only so many answers in a row, to a refresh with one refresh token; then the rules behind it decide. For
    /// a passing failure that looks like a verdict, and is one if it does not pass. `None`: always.
    #[serde(default)]
    pub at_most: Option<u32>,
    pub class: ReplyClass,
}

/// What an unsuccessful answer of the token endpoint means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyClass {
    /// The refresh token is dead.
    Terminal,
    /// The user must come back, with hints (claims, acr).
    Reauthorize,
    /// Passing; the refresh token is untouched.
    Transient,
    /// Too many requests.
    RateLimited,
    /// Our registration or request is refused: the operator must act, no connection is to blame.
    Configuration,
    /// The server may or may not have consumed the token.
    Ambiguous,
    /// Not an OAuth answer (a firewall's page, a redirect): never terminal.
    Unknown,
}

/// How access is taken away at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revocation {
    /// RFC 7009 at the revocation endpoint.
    Rfc7009,
    /// GitHub's way: `DELETE` at the revocation endpoint, with the client's Basic credentials and the access token in a
    /// JSON body. `{client_id}` in the endpoint's path is replaced.
    DeleteJson,
    /// Slack's way: the access token, as the credential of a POST to the revocation endpoint, ends itself and nothing
    /// else. `gone`: values of `error` that say it was dead before.
    AccessToken {
        gone: Vec<String>,
    },
    None,
}

/// Where the account's stable id comes from. An id of several parts is those parts, joined with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountSource {
    /// Claims of the ID token.
    pub id_token: Vec<String>,
    /// If there is no ID token: JSON pointers (RFC 6901) into what the userinfo endpoint answers to the access token.
    pub userinfo: Vec<String>,
}

/// A tool, MCP server or API, and how a token is used with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub id: PluginId,
    pub display_name: String,
    pub provider: ProviderId,
    /// What an agent may ask for; also what is asked for when it names none.
    pub scopes: ScopeSet,
    pub usage: TokenUsage,
    pub enabled: bool,
}

/// How an access token is put on a request to the plugin's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenUsage {
    /// The header that it stands in.
    pub header: String,
    /// What stands before it there; empty: the token stands alone.
    pub scheme: String,
    /// Where the API is, for whoever asks.
    pub base_url: Option<Url>,
}

impl Provider {
    /// For whom the operator says nothing else: a hundred thousand connections with a life of an hour need 28.
    pub const REFRESHES_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("it is not zero");
}

impl Definition {
    /// What the scope lets an agent do; `None`: nobody has put it in words.
    pub fn words(&self, scope: &Scope) -> Option<&str> {
        self.scope_words.get(&self.spelled(scope.clone())).map(String::as_str)
    }

    /// These scopes as they are asked for.
    pub fn spelled_all(&self, scopes: &ScopeSet) -> ScopeSet {
        scopes.iter().map(|scope| self.spelled(scope.clone())).collect()
    }

    /// The scope as it is asked for, whichever of its spellings this is.
    pub fn spelled(&self, scope: Scope) -> Scope {
        if let Some(asked) = self.scope_aliases.get(&scope) {
            return asked.clone();
        }
        match scope.as_str().strip_prefix(&self.scope_prefix) {
            Some(short) if !self.scope_prefix.is_empty() => short.parse().unwrap_or(scope),
            _ => scope,
        }
    }
}

impl Issuer {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For building addresses and telling the host; never for comparing.
    pub fn url(&self) -> Url {
        Url::parse(&self.0).expect("parsed when it was made")
    }
}

impl FromStr for Issuer {
    type Err = InvalidIssuer;

    fn from_str(text: &str) -> Result<Self, InvalidIssuer> {
        let url = Url::parse(text).map_err(|_| InvalidIssuer)?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        let bare = url.query().is_none() && url.fragment().is_none() && !has_user;
        // Url::parse trims blanks and control characters; what it trimmed would be compared.
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic());
        if bare && clean && url.has_host() && matches!(url.scheme(), "https" | "http") {
            Ok(Self(text.into()))
        } else {
            Err(InvalidIssuer)
        }
    }
}

impl TryFrom<String> for Issuer {
    type Error = InvalidIssuer;

    fn try_from(text: String) -> Result<Self, InvalidIssuer> {
        text.parse()
    }
}

impl From<Issuer> for String {
    fn from(issuer: Issuer) -> Self {
        issuer.0.into()
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for TokenUsage {
    fn default() -> Self {
        Self { header: "authorization".to_owned(), scheme: "Bearer".to_owned(), base_url: None }
    }
}

fn space() -> char {
    ' '
}

fn scope_parameter() -> String {
    "scope".to_owned()
}

fn error_pointer() -> String {
    "/error".to_owned()
}

#[cfg(test)]
mod tests {
    use super::Issuer;

    #[test]
    fn an_issuer_keeps_its_text() {
        for text in ["https://a.example", "https://a.example/", "https://A.example:443/t%31", "http://127.0.0.1:8080"] {
            assert_eq!(text.parse::<Issuer>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_issuer_is_refused() {
        for text in [
            "",
            "a.example",
            "ftp://a.example",
            "https://a.example?x",
            "https://a.example#x",
            "https://u@a.example",
            " https://a.example",
        ] {
            assert!(text.parse::<Issuer>().is_err(), "{text}");
        }
    }
}
