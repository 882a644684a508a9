//! `[sealing]`: where the root keys come from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fault, Finding, KeyPath};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SealingSection {
    /// The root keys, newest first, each a regular file of this user with mode 0600 or 0400, made by `claviger
    /// generate-key`. `claviger keys rotate` takes the first into use; an older one stays until `claviger keys status`
    /// calls it retired.
    #[schemars(example = ["/etc/claviger/root.key"])]
    pub root_keys: Vec<PathBuf>,
}

impl SealingSection {
    pub(super) fn check(&self) -> Vec<Finding> {
        let empty = Fault::Empty { what: "the path of a root key; `claviger generate-key` makes one" };
        let none = self.root_keys.is_empty().then(|| Finding::new(KeyPath::of("sealing.root_keys"), empty));
        let twice = self.root_keys.iter().enumerate().filter(|(nth, path)| self.root_keys[..*nth].contains(path));
        let twice = twice.map(|(nth, path)| {
            let id = path.display().to_string();
            Finding::new(KeyPath::of("sealing.root_keys").nth(nth), Fault::Twice { id })
        });
        none.into_iter().chain(twice).collect()
    }
}
