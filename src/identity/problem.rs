//! What can be wrong with the families that an operator writes; each says what to do about it.

use std::collections::HashSet;

use super::{
    Family, Issuer, IssuerName, SignIn, TenantRule,
    issuer_name::{DIRECTORY_CLAIM, is_guid},
};
use crate::domain::FamilyId;

/// A configuration that cannot be meant. `place` is an issuer's, among those of its family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("issuer {0:?} has braces; only {{tenantid}}, once, can stand for a part of an issuer")]
    IssuerTemplate(String),
    #[error("issuer {0:?} is not a URL; write it as `iss` stands in its tokens")]
    IssuerNotUrl(String),
    #[error("issuer family {0} is configured twice; put the issuers of both into one, or rename one")]
    FamilyTwice(FamilyId),
    #[error("issuer {issuer:?} is configured twice, or a template covers it as well; remove one")]
    IssuerTwice { place: usize, issuer: String },
    #[error("issuer family {0} has no issuer; add [[identity.issuers]]")]
    NoIssuer(FamilyId),
    #[error("issuer family {0} has no subject claim; write the claim that names a person, such as \"sub\"")]
    NoSubjectClaim(FamilyId),
    #[error("issuer {issuer:?} has an empty list of {key}; write at least one, or leave the key out for its default")]
    Empty { place: usize, issuer: String, key: &'static str },
    #[error("issuer {issuer:?} is many directories, and people of two may share a name; set realm_claim = \"tid\"")]
    TemplateWithoutRealm { issuer: String },
    #[error(
        "issuer {issuer:?} is every directory in the world; name yours: \
         tenant = {{ claim = {{ name = \"tid\", allow = {{ \"<directory id>\" = \"<tenant>\" }} }} }}"
    )]
    TemplateForAll { place: usize, issuer: String },
    #[error("{value:?} is no directory id; write the GUID in lower case, as `tid` stands in tokens")]
    NotDirectory { place: usize, value: String },
    #[error("issuer family {family}: sign_in.issuer {issuer} is none of its issuers; write one of them exactly")]
    SignInElsewhere { family: FamilyId, issuer: crate::domain::Issuer },
    #[error("issuer family {0}: sign_in.client_id is empty; write the id that the issuer gave our pages")]
    SignInWithoutClient(FamilyId),
    #[error("issuer family {0}: sign_in.scopes lacks `openid`, and without it there is no ID token; add it")]
    SignInWithoutOpenid(FamilyId),
    #[error(
        "issuer family {0}: some issuers give each client another `sub`; set sign_in.subject_is_public = true if this \
         one does not, or take subject claims that are the same for every client"
    )]
    SubjectMayBePairwise(FamilyId),
}

impl ConfigError {
    /// Where it stands in its family: the issuer's place among the family's, and the key there.
    pub const fn place(&self) -> (Option<usize>, &'static str) {
        match self {
            Self::FamilyTwice(_) => (None, "id"),
            Self::NoIssuer(_) => (None, "issuers"),
            Self::NoSubjectClaim(_) => (None, "subject_claims"),
            // The name itself could not be read, so there is no place yet.
            Self::IssuerTemplate(_) | Self::IssuerNotUrl(_) => (None, "issuers"),
            Self::IssuerTwice { place, .. } => (Some(*place), "issuer"),
            Self::Empty { place, key, .. } => (Some(*place), key),
            Self::TemplateWithoutRealm { .. } => (None, "realm_claim"),
            Self::TemplateForAll { place, .. } | Self::NotDirectory { place, .. } => (Some(*place), "tenant"),
            Self::SignInElsewhere { .. } => (None, "sign_in.issuer"),
            Self::SignInWithoutClient(_) => (None, "sign_in.client_id"),
            Self::SignInWithoutOpenid(_) => (None, "sign_in.scopes"),
            Self::SubjectMayBePairwise(_) => (None, "sign_in.subject_is_public"),
        }
    }
}

/// Everything that is wrong with these families, with the place of the family that it is wrong in.
pub fn problems(families: &[Family]) -> Vec<(usize, ConfigError)> {
    let mut problems = Vec::new();
    let (mut ids, mut names) = (HashSet::new(), Vec::<&IssuerName>::new());
    for (number, family) in families.iter().enumerate() {
        if !ids.insert(&family.id) {
            problems.push((number, ConfigError::FamilyTwice(family.id.clone())));
        }
        for (place, issuer) in family.issuers.iter().enumerate() {
            let name = &issuer.issuer;
            if names.iter().any(|taken| overlap(taken, name)) {
                problems.push((number, ConfigError::IssuerTwice { place, issuer: name.as_str().to_owned() }));
            }
            names.push(name);
        }
        problems.extend(family.problems().into_iter().map(|problem| (number, problem)));
    }
    problems
}

/// Whether one token could be of both.
fn overlap(one: &IssuerName, other: &IssuerName) -> bool {
    one == other || one.directory(other.as_str()).is_some() || other.directory(one.as_str()).is_some()
}

impl Family {
    /// Everything that is wrong within the family and that serde cannot see.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        if self.issuers.is_empty() {
            problems.push(ConfigError::NoIssuer(self.id.clone()));
        }
        if self.subject_claims.is_empty() {
            problems.push(ConfigError::NoSubjectClaim(self.id.clone()));
        }
        let mut templates = self.issuers.iter().map(|issuer| &issuer.issuer).filter(|name| name.is_template());
        if let Some(name) = templates.next().filter(|_| self.realm_claim.as_deref() != Some(DIRECTORY_CLAIM)) {
            problems.push(ConfigError::TemplateWithoutRealm { issuer: name.as_str().to_owned() });
        }
        for (place, issuer) in self.issuers.iter().enumerate() {
            problems.extend(empty_lists(place, issuer));
            if issuer.issuer.is_template() {
                problems.extend(template_problems(place, issuer));
            }
        }
        problems.extend(self.sign_in.iter().flat_map(|sign_in| self.sign_in_problems(sign_in)));
        problems
    }

    fn sign_in_problems(&self, sign_in: &SignIn) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let family = || self.id.clone();
        if self.issuers.iter().all(|issuer| !sign_in.is_at(&issuer.issuer)) {
            problems.push(ConfigError::SignInElsewhere { family: family(), issuer: sign_in.issuer.clone() });
        }
        if sign_in.client_id.is_empty() {
            problems.push(ConfigError::SignInWithoutClient(family()));
        }
        if !sign_in.asks_for_openid() {
            problems.push(ConfigError::SignInWithoutOpenid(family()));
        }
        if !sign_in.subject_is_public && self.subject_claims.iter().any(|claim| claim == "sub") {
            problems.push(ConfigError::SubjectMayBePairwise(family()));
        }
        problems
    }
}

/// A template trusts every directory that Entra hosts, an attacker's own among them. What keeps them apart is the
/// allow-list and the family's realm, both from the `tid` that the issuer's name repeats.
fn template_problems(place: usize, issuer: &Issuer) -> Vec<ConfigError> {
    match &issuer.tenant {
        TenantRule::Claim { name, allow } if name == DIRECTORY_CLAIM => {
            let strangers = allow.keys().filter(|value| !is_guid(value));
            strangers.map(|value| ConfigError::NotDirectory { place, value: value.clone() }).collect()
        }
        TenantRule::Fixed(_) | TenantRule::Claim { .. } => {
            vec![ConfigError::TemplateForAll { place, issuer: issuer.issuer.as_str().to_owned() }]
        }
    }
}

fn empty_lists(place: usize, issuer: &Issuer) -> impl Iterator<Item = ConfigError> {
    let lists = [
        ("audiences", issuer.audiences.is_empty()),
        ("algorithms", issuer.algorithms.is_empty()),
        ("token_types", issuer.token_types.is_empty()),
    ];
    let name = issuer.issuer.as_str().to_owned();
    let empty = lists.into_iter().filter(|(_, empty)| *empty);
    empty.map(move |(key, _)| ConfigError::Empty { place, issuer: name.clone(), key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn family(text: &str) -> Family {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_where() {
        let good = family(&format!(
            r#"
            id = "entra"
            subject_claims = ["oid"]
            realm_claim = "tid"
            [[issuers]]
            issuer = "https://login.example/{{tenantid}}/v2.0"
            audiences = ["a"]
            tenant = {{ claim = {{ name = "tid", allow = {{ "{DIRECTORY}" = "acme" }} }} }}
            [sign_in]
            issuer = "https://login.example/{DIRECTORY}/v2.0"
            client_id = "pages"
            "#
        ));
        let bad = family(
            r#"
            id = "entra"
            subject_claims = ["sub"]
            [[issuers]]
            issuer = "https://login.example/{tenantid}/v2.0"
            audiences = []
            algorithms = []
            token_types = []
            tenant = { claim = { name = "tid", allow = { "acme.example" = "acme" } } }
            [[issuers]]
            issuer = "https://other.example/{tenantid}"
            audiences = ["a"]
            tenant = { fixed = "acme" }
            [sign_in]
            issuer = "https://login.example/common/v2.0"
            client_id = ""
            scopes = ["profile"]
            "#,
        );
        let empty = family("id = \"empty\"\nsubject_claims = []\nissuers = []");
        assert_eq!((good.problems(), good.id == bad.id), (Vec::new(), true));
        let found = problems(&[good, bad, empty]);
        let places: Vec<_> = found.iter().map(|(family, problem)| (*family, problem.place())).collect();
        assert_eq!(
            places,
            [
                (1, (None, "id")),
                (1, (Some(0), "issuer")),
                (1, (None, "realm_claim")),
                (1, (Some(0), "audiences")),
                (1, (Some(0), "algorithms")),
                (1, (Some(0), "token_types")),
                (1, (Some(0), "tenant")),
                (1, (Some(1), "tenant")),
                (1, (None, "sign_in.issuer")),
                (1, (None, "sign_in.client_id")),
                (1, (None, "sign_in.scopes")),
                (1, (None, "sign_in.subject_is_public")),
                (2, (None, "issuers")),
                (2, (None, "subject_claims")),
            ]
        );
    }

    #[test]
    fn two_templates_that_differ_are_two_issuers() {
        let name = |text: &str| IssuerName::try_from(text.to_owned()).unwrap();
        let (v1, v2) = (name("https://sts.example/{tenantid}/"), name("https://login.example/{tenantid}/v2.0"));
        assert!(!overlap(&v1, &v2) && overlap(&v2, &v2) && overlap(&v2, &name(&v2.of(DIRECTORY))));
    }
}
