//! What serde cannot see in a configuration.

use std::collections::HashSet;

use super::{ConfigError, Family, SignIn};

/// A [`ConfigError`], and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misconfigured {
    /// Of the families, counted from 0.
    pub family: usize,
    /// Of the family's issuers; `None`: the family itself.
    pub issuer: Option<usize>,
    /// Dotted, below the family or the issuer.
    pub key: &'static str,
    pub error: ConfigError,
}

/// Everything that is wrong, not only the first.
pub fn check(families: &[Family]) -> Vec<Misconfigured> {
    let (mut wrong, mut ids, mut names) = (Vec::new(), HashSet::new(), HashSet::new());
    for (at, family) in families.iter().enumerate() {
        let own = |(key, error)| Misconfigured { family: at, issuer: None, key, error };
        if !ids.insert(&family.id) {
            wrong.push(own(("id", ConfigError::FamilyTwice(family.id.clone()))));
        }
        wrong.extend(of_family(family).into_iter().map(own));
        for (nth, issuer) in family.issuers.iter().enumerate() {
            let name = || issuer.issuer.as_str().to_owned();
            let own = |key, error| Misconfigured { family: at, issuer: Some(nth), key, error };
            if !names.insert(issuer.issuer.as_str()) {
                wrong.push(own("issuer", ConfigError::IssuerTwice(name())));
            }
            for (key, empty, what) in [
                ("audiences", issuer.audiences.is_empty(), "audience"),
                ("algorithms", issuer.algorithms.is_empty(), "algorithm"),
                ("token_types", issuer.token_types.is_empty(), "token type"),
            ] {
                wrong.extend(empty.then(|| own(key, ConfigError::Empty(name(), what))));
            }
        }
    }
    wrong
}

fn of_family(family: &Family) -> Vec<(&'static str, ConfigError)> {
    let mut wrong = Vec::new();
    if family.subject_claims.is_empty() {
        wrong.push(("subject_claims", ConfigError::NoSubjectClaim(family.id.clone())));
    }
    if family.issuers.is_empty() {
        wrong.push(("issuers", ConfigError::NoIssuer(family.id.clone())));
    }
    wrong.extend(family.sign_in.iter().flat_map(|sign_in| of_sign_in(family, sign_in)));
    wrong
}

fn of_sign_in(family: &Family, sign_in: &SignIn) -> Vec<(&'static str, ConfigError)> {
    let (mut wrong, id) = (Vec::new(), || family.id.clone());
    if family.issuers.iter().all(|issuer| issuer.issuer.as_str() != sign_in.issuer.as_str()) {
        let error = ConfigError::SignInElsewhere { family: id(), issuer: sign_in.issuer.clone() };
        wrong.push(("sign_in.issuer", error));
    }
    if sign_in.client_id.is_empty() {
        wrong.push(("sign_in.client_id", ConfigError::SignInWithoutClient(id())));
    }
    if !sign_in.asks_for_openid() {
        wrong.push(("sign_in.scopes", ConfigError::SignInWithoutOpenid(id())));
    }
    if !sign_in.subject_is_public && family.subject_claims.iter().any(|claim| claim == "sub") {
        wrong.push(("sign_in.subject_is_public", ConfigError::SubjectMayBePairwise(id())));
    }
    wrong
}
