//! Families and issuers as an operator writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use url::Url;

use super::SignIn;
use crate::domain::{FamilyId, Role, TenantId};

/// The issuers of one identity system. A person has one subject id in the whole family, so the id and the claims must
/// not change while data exists.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    pub id: FamilyId,
    /// Claims that together name the subject; all must be present. Default `sub`.
    #[serde(default = "subject_claims")]
    pub subject_claims: Vec<String>,
    /// The claim within whose value the subject claims are unique (Entra: `tid`). Default none.
    #[serde(default)]
    pub realm_claim: Option<String>,
    pub issuers: Vec<Issuer>,
    /// How people of this family sign in on our pages. Default not at all.
    #[serde(default)]
    pub sign_in: Option<SignIn>,
}

/// One issuer, and what its tokens mean here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    pub issuer: IssuerName,
    /// A token must name one of these, exactly.
    pub audiences: BTreeSet<String>,
    /// Default RS256 and ES256.
    #[serde(default = "algorithms")]
    pub algorithms: BTreeSet<Algorithm>,
    /// Default discovery.
    #[serde(default)]
    pub keys: Keys,
    pub tenant: TenantRule,
    /// Where an agent's name may stand, first found wins; `a.b` means member `b` of claim `a`. Default `azp`, `appid`,
    /// `act.sub`.
    #[serde(default = "agent_claims")]
    pub agent_claims: Vec<String>,
    /// Who gets which role. Without a rule for `user`, everybody is a user.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
    /// Accepted `typ` headers (RFC 9068 §2.1), letter case and `application/` aside. A token without `typ` passes where
    /// `JWT` does. Default `at+jwt` and `JWT`.
    #[serde(default = "token_types")]
    pub token_types: Vec<String>,
}

/// What a token's `iss` must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum IssuerName {
    /// Character for character: no case, slash or port is normalised.
    Exact(String),
}

/// Where the issuer's keys come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// OpenID Connect Discovery §4: `jwks_uri` of `{issuer}/.well-known/openid-configuration`.
    #[default]
    Discovery,
    /// A JWKS document (RFC 7517 §5).
    Jwks(Url),
}

/// Which tenant a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TenantRule {
    Fixed(TenantId),
    /// The tenant that the claim's value is mapped to; a value that is not listed is refused.
    Claim {
        name: String,
        allow: BTreeMap<String, TenantId>,
    },
}

/// Grants `role` when the claim is, or contains, one of `values`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    pub role: Role,
    pub claim: String,
    pub values: BTreeSet<String>,
}

/// A signature algorithm (RFC 7518 §3.1). Only asymmetric ones exist here: with HMAC whoever verifies can also forge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
}

/// The kind of key that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Rsa,
    P256,
}

/// A configuration that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("issuer {0:?} is a template; name each tenant's issuer")]
    IssuerTemplate(String),
    #[error("issuer {0:?} is not a URL")]
    IssuerNotUrl(String),
    #[error("issuer {0:?} is configured twice")]
    IssuerTwice(String),
    #[error("issuer family {0} is configured twice")]
    FamilyTwice(FamilyId),
    #[error("issuer {0:?} has no {1}")]
    Empty(String, &'static str),
    #[error("issuer family {0} has no subject claim")]
    NoSubjectClaim(FamilyId),
    #[error("issuer family {family}: sign_in.issuer {issuer} is none of its issuers; name one of them exactly")]
    SignInElsewhere { family: FamilyId, issuer: crate::domain::Issuer },
    #[error("issuer family {0}: sign_in.client_id is empty; put the id in that the issuer gave our pages")]
    SignInWithoutClient(FamilyId),
    #[error("issuer family {0}: sign_in.scopes lacks `openid`, and without it there is no ID token; add it")]
    SignInWithoutOpenid(FamilyId),
    #[error(
        "issuer family {0}: some issuers give each client another `sub`; set sign_in.subject_is_public = true if this \
         one does not, or take subject claims that are the same for every client"
    )]
    SubjectMayBePairwise(FamilyId),
}

impl Algorithm {
    pub(super) const ALL: [Self; 2] = [Self::Rs256, Self::Es256];

    /// Name on the wire, what verifies it, the key that it needs: a new algorithm is a row.
    const fn row(self) -> (&'static str, jsonwebtoken::Algorithm, KeyType) {
        match self {
            Self::Rs256 => ("RS256", jsonwebtoken::Algorithm::RS256, KeyType::Rsa),
            Self::Es256 => ("ES256", jsonwebtoken::Algorithm::ES256, KeyType::P256),
        }
    }

    /// Case matters: `noNE` and `rs256` are nothing.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.row().0 == name)
    }

    pub(super) const fn verifier(self) -> jsonwebtoken::Algorithm {
        self.row().1
    }

    pub(super) const fn key_type(self) -> KeyType {
        self.row().2
    }
}

impl IssuerName {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(name) => name,
        }
    }
}

impl TryFrom<String> for IssuerName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        if name.contains(['{', '}']) {
            Err(ConfigError::IssuerTemplate(name))
        } else if Url::parse(&name).is_err() {
            Err(ConfigError::IssuerNotUrl(name))
        } else {
            Ok(Self::Exact(name))
        }
    }
}

impl Family {
    /// Refuses what serde cannot see.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.subject_claims.is_empty() {
            return Err(ConfigError::NoSubjectClaim(self.id.clone()));
        }
        for issuer in &self.issuers {
            let empty = |what| Err(ConfigError::Empty(issuer.issuer.as_str().to_owned(), what));
            if issuer.audiences.is_empty() {
                return empty("audience");
            }
            if issuer.algorithms.is_empty() {
                return empty("algorithm");
            }
            if issuer.token_types.is_empty() {
                return empty("token type");
            }
        }
        self.sign_in.as_ref().map_or(Ok(()), |sign_in| self.check_sign_in(sign_in))
    }

    fn check_sign_in(&self, sign_in: &SignIn) -> Result<(), ConfigError> {
        let family = self.id.clone();
        if self.issuers.iter().all(|issuer| issuer.issuer.as_str() != sign_in.issuer.as_str()) {
            return Err(ConfigError::SignInElsewhere { family, issuer: sign_in.issuer.clone() });
        }
        if sign_in.client_id.is_empty() {
            return Err(ConfigError::SignInWithoutClient(family));
        }
        if !sign_in.asks_for_openid() {
            return Err(ConfigError::SignInWithoutOpenid(family));
        }
        if !sign_in.subject_is_public && self.subject_claims.iter().any(|claim| claim == "sub") {
            return Err(ConfigError::SubjectMayBePairwise(family));
        }
        Ok(())
    }
}

fn subject_claims() -> Vec<String> {
    vec!["sub".to_owned()]
}

fn algorithms() -> BTreeSet<Algorithm> {
    BTreeSet::from([Algorithm::Rs256, Algorithm::Es256])
}

fn agent_claims() -> Vec<String> {
    ["azp", "appid", "act.sub"].map(str::to_owned).to_vec()
}

fn token_types() -> Vec<String> {
    ["at+jwt", "JWT"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: &str = r#"
        id = "platform"
        [[issuers]]
        issuer = "https://login.example.com/"
        audiences = ["api://claviger"]
        tenant = { claim = { name = "tid", allow = { "72f9" = "acme" } } }
        roles = [{ role = "operator", claim = "groups", values = ["ops"] }]
    "#;

    #[test]
    fn what_is_left_out_has_its_default() {
        let family: Family = toml::from_str(FAMILY).unwrap();
        assert_eq!((family.subject_claims.as_slice(), &family.realm_claim), (["sub".to_owned()].as_slice(), &None));
        let issuer = &family.issuers[0];
        assert_eq!(issuer.algorithms, BTreeSet::from(Algorithm::ALL));
        assert_eq!(issuer.keys, Keys::Discovery);
        assert_eq!(issuer.agent_claims, ["azp", "appid", "act.sub"]);
        assert_eq!(issuer.token_types, ["at+jwt", "JWT"]);
        family.check().unwrap();
    }

    #[test]
    fn keys_may_come_from_a_document() {
        let text = FAMILY.replace("tenant =", "keys = { jwks = \"https://login.example.com/keys\" }\ntenant =");
        let family: Family = toml::from_str(&text).unwrap();
        assert_eq!(family.issuers[0].keys, Keys::Jwks("https://login.example.com/keys".parse().unwrap()));
    }

    #[test]
    fn a_family_that_cannot_be_meant_is_refused() {
        for (from, to) in [
            ("https://login.example.com/", "https://login.example.com/{tenantid}"),
            ("https://login.example.com/", "login.example.com"),
            ("tenant =", "algorithms = [\"none\"]\ntenant ="),
            ("tenant =", "algorithms = [\"HS256\"]\ntenant ="),
            ("tenant =", "leeway = 3600\ntenant ="),
            ("\"acme\"", "\"Acme Inc\""),
            ("\"operator\"", "\"root\""),
        ] {
            let text = FAMILY.replace(from, to);
            assert_ne!(text, FAMILY);
            assert!(toml::from_str::<Family>(&text).is_err(), "{to}");
        }
        for (from, to) in [
            ("[\"api://claviger\"]", "[]"),
            ("tenant =", "algorithms = []\ntenant ="),
            ("tenant =", "token_types = []\ntenant ="),
            ("id =", "subject_claims = []\nid ="),
        ] {
            assert!(toml::from_str::<Family>(&FAMILY.replace(from, to)).unwrap().check().is_err(), "{to}");
        }
    }
}
