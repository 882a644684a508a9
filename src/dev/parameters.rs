//! Parameters of a query or form, by the rules of RFC 6749 §3.1 and §3.2.

use std::collections::{BTreeMap, btree_map::Entry};

use url::form_urlencoded;
use zeroize::Zeroizing;

/// Decoded parameters. One without a value counts as absent; one that stands twice counts as unusable.
pub(super) struct Parameters(BTreeMap<String, Occurrence>);

enum Occurrence {
    Once(Zeroizing<String>),
    Repeated,
}

impl Parameters {
    pub(super) fn parse(unverified_text: &[u8]) -> Self {
        let mut parameters = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(unverified_text) {
            match parameters.entry(name.into_owned()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(Occurrence::Once(Zeroizing::new(value.into_owned())));
                }
                Entry::Occupied(mut occupied) => {
                    occupied.insert(Occurrence::Repeated);
                }
            }
        }
        Self(parameters)
    }

    /// The value, if it is there, once, and not empty.
    pub(super) fn single(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Occurrence::Once(value)) if !value.is_empty() => Some(value),
            _ => None,
        }
    }

    pub(super) fn any_repeated(&self) -> bool {
        self.0.values().any(|occurrence| matches!(occurrence, Occurrence::Repeated))
    }
}
