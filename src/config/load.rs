//! From a file to a configuration, in stages, so that one run finds everything: syntax; keys and values; what refers to
//! what; files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest::{Context, SHA256};

use super::{
    Config, Fault, Finding, KeyPath, Place, Problem, Step,
    check::{self, Declared},
    environment, files,
    read::read,
    schema::Schema,
    tree::{Node, State},
};
use crate::domain::ConfigurationDigest;

impl Config {
    /// Reads a configuration with what it takes from other files, or everything that is wrong with it, in the order of
    /// its lines. Relative paths begin at the file's own directory. `variables` override what the file says; see
    /// [`super::variables`].
    pub fn load(path: &Path, variables: &[(String, String)]) -> Result<Self, Vec<Problem>> {
        Self::load_with_digest(path, variables).map(|(config, _)| config)
    }

    /// As [`Self::load`], and which configuration it is.
    pub fn load_with_digest(
        path: &Path,
        variables: &[(String, String)],
    ) -> Result<(Self, ConfigurationDigest), Vec<Problem>> {
        let (config, of_files, digest) = Self::load_apart(path, variables)?;
        if of_files.is_empty() { Ok((config, digest)) } else { Err(of_files) }
    }

    /// As [`Self::load_with_digest`], for whoever can go on without what other files hold: what is wrong with these comes
    /// beside the configuration, if nothing else is.
    pub fn load_apart(
        path: &Path,
        variables: &[(String, String)],
    ) -> Result<(Self, Vec<Problem>, ConfigurationDigest), Vec<Problem>> {
        let file = Arc::new(path.to_owned());
        let in_file = |findings: Vec<Finding>| -> Vec<Problem> {
            findings.into_iter().map(|finding| Problem { file: Some(Arc::clone(&file)), ..finding.into() }).collect()
        };
        let text = fs::read_to_string(path).map_err(|error| {
            let fault = Fault::Unreadable { reason: error.kind().to_string() };
            in_file(vec![Finding::new(KeyPath::default(), fault)])
        })?;
        let (config, of_files) = Self::parse(&text, variables, &base_of(path)).map_err(in_file)?;
        Ok((config, in_file(of_files), digest(&text, variables)))
    }

    fn parse(text: &str, variables: &[(String, String)], base: &Path) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let mut tree = Node::parse(text)?;
        let mut findings = environment::overlay(&mut tree, variables);
        let (config, unread) = read(&mut tree, &Schema::of_config());
        findings.extend(unread);
        let Some(mut config) = config else { return Err(sorted(findings, &tree)) };
        files::anchor(&mut config, base);
        let own = |found: Vec<Finding>| {
            let written = found.into_iter().filter(|finding| !stands_in(&tree, &finding.key));
            written.map(|finding| placed(finding, &tree)).collect::<Vec<_>>()
        };
        findings.extend(own(check::check(&config, &Declared::written(&tree))));
        let of_files = own(files::read(&mut config));
        if findings.is_empty() {
            return Ok((config, sorted(of_files, &tree)));
        }
        findings.extend(of_files);
        Err(sorted(findings, &tree))
    }

    /// Everything that is wrong with a configuration that was made by a program.
    pub fn check(&self) -> Vec<Problem> {
        check::check(self, &Declared::of(self)).into_iter().map(Problem::from).collect()
    }
}

fn digest(text: &str, variables: &[(String, String)]) -> ConfigurationDigest {
    let mut context = Context::new(&SHA256);
    // No part of either can hold the zero that ends it.
    let parts = variables.iter().flat_map(|(name, value)| [name, value]);
    for part in std::iter::once(text).chain(parts.map(String::as_str)) {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    ConfigurationDigest(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The directory of a file; the present one for a bare name.
fn base_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// Whether the value was made up in place of one that was reported missing.
fn stands_in(tree: &Node, key: &KeyPath) -> bool {
    tree.at(&key.0).is_some_and(|node| node.state != State::Sound)
}

/// Finds where the key stands, or the nearest table around it.
fn placed(finding: Finding, tree: &Node) -> Finding {
    let key = &finding.key.0;
    let node = (1..=key.len()).rev().find_map(|length| tree.at(&key[..length]));
    Finding { place: node.map_or(Place::Nowhere, |node| node.place.clone()), ..finding }
}

/// In the order of the lines, and with elements of arrays by their ids.
fn sorted(mut findings: Vec<Finding>, tree: &Node) -> Vec<Finding> {
    for finding in &mut findings {
        finding.key = named(&finding.key, tree);
    }
    findings.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
    findings.dedup();
    findings
}

/// The path with ids in place of numbers where they are unique.
fn named(key: &KeyPath, tree: &Node) -> KeyPath {
    let mut steps = Vec::new();
    let mut node = Some(tree);
    for step in &key.0 {
        let child = node.and_then(|node| node.child(step));
        let siblings = node.map_or(&[][..], Node::items);
        let id =
            child.and_then(Node::id).filter(|id| siblings.iter().filter(|other| other.id() == Some(*id)).count() == 1);
        steps.push(match (step, id) {
            (Step::Index(_) | Step::Nth(_), Some(id)) if is_simple(id) => Step::Id(id.to_owned()),
            (Step::Nth(_), _) => child
                .and_then(|child| siblings.iter().position(|other| std::ptr::eq(other, child)))
                .map_or_else(|| step.clone(), Step::Index),
            _ => step.clone(),
        });
        node = child;
    }
    KeyPath(steps)
}

fn is_simple(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}
