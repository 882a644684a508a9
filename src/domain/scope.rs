//! OAuth scopes (RFC 6749 §3.3).

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The text is not a scope: RFC 6749 §3.3 allows visible ASCII without `"` and `\`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a scope (RFC 6749 §3.3)")]
pub struct InvalidScope;

/// One scope token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

/// A set of scopes, in sorted order, so that equal sets look equal everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeSet(BTreeSet<Scope>);

impl Scope {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScopeSet {
    /// Splits what a provider or caller wrote; empty pieces are ignored, whatever the separator.
    pub fn parse(text: &str, separator: char) -> Result<Self, InvalidScope> {
        text.split([separator, ' ']).filter(|piece| !piece.is_empty()).map(str::parse).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }

    pub fn contains_all(&self, wanted: &Self) -> bool {
        wanted.0.is_subset(&self.0)
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// What `self` has and `other` lacks.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    pub fn join(&self, separator: char) -> String {
        let mut joined = String::new();
        for scope in &self.0 {
            if !joined.is_empty() {
                joined.push(separator);
            }
            joined.push_str(&scope.0);
        }
        joined
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if (1..=512).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidScope)
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidScope;

    fn try_from(text: String) -> Result<Self, InvalidScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn joining_and_parsing_are_inverse(scopes in scopes(), separator in prop_oneof![Just(' '), Just(','), Just('+')]) {
            prop_assert_eq!(ScopeSet::parse(&scopes.join(separator), separator).unwrap(), scopes);
        }

        #[test]
        fn order_repetition_and_empty_pieces_do_not_matter(names in vec("[a-d]", 0..8)) {
            let (forth, back) = (names.join(" "), names.iter().rev().map(String::as_str).collect::<Vec<_>>().join("  "));
            prop_assert_eq!(ScopeSet::parse(&forth, ' '), ScopeSet::parse(&format!(" {back} {forth}"), ' '));
        }

        #[test]
        fn sets_behave_as_sets(a in scopes(), b in scopes(), c in scopes()) {
            let union = a.union(&b);
            prop_assert_eq!(&union, &b.union(&a));
            prop_assert_eq!(union.union(&c), a.union(&b.union(&c)));
            prop_assert!(union.contains_all(&a) && union.contains_all(&b));
            prop_assert_eq!(a.minus(&b).union(&b), union);
            prop_assert!(a.minus(&b).iter().all(|scope| !b.iter().any(|other| other == scope)));
            prop_assert_eq!(a.contains_all(&b), b.minus(&a).is_empty());
            prop_assert!(a.contains_all(&ScopeSet::default()));
            prop_assert_eq!(a.len(), a.iter().count());
            prop_assert_eq!(a.is_empty(), a.iter().next().is_none());
        }

        #[test]
        fn the_stored_form_reads_back(scopes in scopes()) {
            let json = serde_json::to_string(&scopes).unwrap();
            prop_assert_eq!(serde_json::from_str::<ScopeSet>(&json).unwrap(), scopes);
        }

        #[test]
        fn only_the_characters_of_the_rfc_make_a_scope(text in any::<String>()) {
            let legal = |c: char| matches!(c, '\u{21}' | '\u{23}'..='\u{5b}' | '\u{5d}'..='\u{7e}');
            prop_assert_eq!(text.parse::<Scope>().is_ok(), (1..=512).contains(&text.len()) && text.chars().all(legal));
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        let long = "x".repeat(513);
        for text in ["", "a b", "a\"b", "a\\b", "ä", "a\n", long.as_str()] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
            assert!(serde_json::from_value::<Scope>(text.into()).is_err(), "{text}");
        }
        assert!("!#[]~".parse::<Scope>().is_ok());
        assert!(long[1..].parse::<Scope>().is_ok());
        assert!(ScopeSet::parse("read \"write\"", ' ').is_err());
    }

    fn scopes() -> impl Strategy<Value = ScopeSet> {
        vec("[a-c/:.]{1,2}", 0..6).prop_map(|names| names.iter().map(|name| name.parse().unwrap()).collect())
    }
}
