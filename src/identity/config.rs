//! Families and issuers as an operator writes them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Algorithm, IssuerName, SignIn};
use crate::domain::{FamilyId, Role, TenantId};

/// The issuers of one identity system. A person has one subject id in the whole family, so the id and the claims must
/// not change while data exists.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    #[schemars(with = "String", example = &"platform")]
    pub id: FamilyId,
    /// Claims that together name the subject; all must be present.
    #[serde(default = "subject_claims")]
    pub subject_claims: Vec<String>,
    /// The claim within whose value the subject claims are unique (Entra: `tid`).
    #[serde(default)]
    pub realm_claim: Option<String>,
    /// Each with what its tokens mean here.
    pub issuers: Vec<Issuer>,
    /// How people of this family sign in on our pages. Absent: not at all.
    #[serde(default)]
    pub sign_in: Option<SignIn>,
}

/// One issuer, and what its tokens mean here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What a token's `iss` must be, character for character.
    #[schemars(with = "String", example = &"https://login.example.com/")]
    pub issuer: IssuerName,
    /// A token must name one of these, exactly.
    #[schemars(example = ["api://claviger"])]
    pub audiences: BTreeSet<String>,
    /// What its tokens may be signed with. A key is used with one algorithm alone (RFC 8725 §3.1): the one that its JWK
    /// names, else the only one here that fits its type.
    #[serde(default = "algorithms")]
    pub algorithms: BTreeSet<Algorithm>,
    /// Where its keys come from.
    #[serde(default)]
    pub keys: Keys,
    /// Which tenant its tokens belong to.
    #[schemars(example = serde_json::json!({ "fixed": "acme" }))]
    pub tenant: TenantRule,
    /// Where an agent's name may stand, first found wins; `a.b` means member `b` of claim `a`.
    #[serde(default = "agent_claims")]
    pub agent_claims: Vec<String>,
    /// Who gets which role. Without a rule for `user`, everybody is a user.
    #[serde(default)]
    pub roles: Vec<RoleRule>,
    /// Accepted `typ` headers (RFC 9068 §2.1), letter case and `application/` aside. A token without `typ` passes where
    /// `JWT` does.
    #[serde(default = "token_types")]
    pub token_types: Vec<String>,
    /// A token whose `typ` is not `at+jwt` must have one of these claims: ID tokens have none of them, and many issuers
    /// mark neither kind of token. Empty: `typ` alone decides.
    #[serde(default = "access_token_claims")]
    pub access_token_claims: Vec<String>,
}

/// Where the issuer's keys come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// OpenID Connect Discovery §4: `jwks_uri` of `{issuer}/.well-known/openid-configuration`; with a template, of
    /// the issuer for `common`.
    #[default]
    Discovery,
    /// The same document at another address. It must be this very issuer's.
    Metadata(Url),
    /// A JWKS document (RFC 7517 §5).
    Jwks(Url),
}

/// Which tenant a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TenantRule {
    /// All of them to this one.
    Fixed(#[schemars(with = "String")] TenantId),
    /// The tenant that the claim's value is mapped to; a value that is not listed is refused.
    Claim {
        /// The claim, such as `tid`.
        name: String,
        /// Tenants by the values of the claim.
        #[schemars(with = "BTreeMap<String, String>")]
        allow: BTreeMap<String, TenantId>,
    },
}

/// Grants `role` when the claim is, or contains, one of `values`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// `user` or `operator`.
    #[schemars(with = "String", example = &"operator")]
    pub role: Role,
    /// Where it is looked for.
    #[schemars(example = &"groups")]
    pub claim: String,
    /// Any of these grants it.
    #[schemars(example = ["claviger-operators"])]
    pub values: BTreeSet<String>,
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

fn access_token_claims() -> Vec<String> {
    ["scope", "scp", "idtyp"].map(str::to_owned).to_vec()
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
        assert_eq!(issuer.algorithms, BTreeSet::from([Algorithm::Rs256, Algorithm::Es256]));
        assert_eq!(issuer.keys, Keys::Discovery);
        assert_eq!(issuer.agent_claims, ["azp", "appid", "act.sub"]);
        assert_eq!(issuer.token_types, ["at+jwt", "JWT"]);
        assert_eq!(issuer.access_token_claims, ["scope", "scp", "idtyp"]);
        assert_eq!(family.problems(), []);
    }

    #[test]
    fn keys_may_come_from_a_document() {
        let url: Url = "https://login.example.com/keys".parse().unwrap();
        for (name, keys) in [("jwks", Keys::Jwks(url.clone())), ("metadata", Keys::Metadata(url))] {
            let setting = format!("keys = {{ {name} = \"https://login.example.com/keys\" }}\ntenant =");
            let family: Family = toml::from_str(&FAMILY.replace("tenant =", &setting)).unwrap();
            assert_eq!(family.issuers[0].keys, keys);
        }
    }

    #[test]
    fn what_no_family_can_mean_is_no_family() {
        for (from, to) in [
            ("https://login.example.com/", "https://login.example.com/{tenant}"),
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
    }
}
