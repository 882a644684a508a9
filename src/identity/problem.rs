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
    TemplateWithoutRealm { place: usize, issuer: String },
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
        for (place, issuer) in self.issuers.iter().enumerate() {
            problems.extend(empty_lists(place, issuer));
            if matches!(issuer.issuer, IssuerName::Template(_)) {
                problems.extend(self.template_problems(place, issuer));
            }
        }
        problems.extend(self.sign_in.iter().flat_map(|sign_in| self.sign_in_problems(sign_in)));
        problems
    }

    /// A template trusts every directory that Entra hosts, an attacker's own among them. What keeps them apart is the
    /// allow-list and the realm, both from the `tid` that the issuer's name repeats.
    fn template_problems(&self, place: usize, issuer: &Issuer) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let name = || issuer.issuer.as_str().to_owned();
        if self.realm_claim.as_deref() != Some(DIRECTORY_CLAIM) {
            problems.push(ConfigError::TemplateWithoutRealm { place, issuer: name() });
        }
        match &issuer.tenant {
            TenantRule::Claim { name: claim, allow } if claim == DIRECTORY_CLAIM => {
                let strangers = allow.keys().filter(|value| !is_guid(value));
                problems.extend(strangers.map(|value| ConfigError::NotDirectory { place, value: value.clone() }));
            }
            TenantRule::Fixed(_) | TenantRule::Claim { .. } => {
                problems.push(ConfigError::TemplateForAll { place, issuer: name() });
            }
        }
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
