//! What can be wrong with a configuration; each says what to do about it.

use std::{fmt, path::PathBuf, sync::Arc};

use super::KeyPath;
use crate::{
    domain::{InvalidPublicUrl, TenantId},
    identity,
    oauth::definitions::InvalidDefinition,
};

/// One thing that is wrong: where it stands, under which key, and what cures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `None`: the configuration came from no file.
    pub file: Option<Arc<PathBuf>>,
    pub place: Place,
    /// Empty for what concerns the file as a whole.
    pub key: KeyPath,
    pub fault: Fault,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Nowhere,
    /// Of the file, from 1.
    Line(usize),
    /// Of the environment.
    Variable(Arc<str>),
}

/// A problem before it is known where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub key: KeyPath,
    pub place: Place,
    pub fault: Fault,
}

/// What is wrong, and the cure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the file cannot be read ({reason}); check its name and who may read it")]
    Unreadable { reason: String },
    #[error("this is not TOML: {message}")]
    Syntax { message: String },
    #[error("there is no such key; {}", hint(.nearest.as_deref(), .known))]
    UnknownKey { nearest: Option<String>, known: Vec<String> },
    #[error("is missing; write {}", it_as(.example.as_deref()))]
    Missing { example: Option<String> },
    #[error("is {found}; write {expected}{}", for_example(.example.as_deref()))]
    Type { found: String, expected: String, example: Option<String> },
    #[error("{message}{}", for_example(.example.as_deref()))]
    Value { message: String, example: Option<String> },
    #[error("{found:?} is not one of the choices; {}", hint(.nearest.as_deref(), .known))]
    Choice { found: String, nearest: Option<String>, known: Vec<String> },
    #[error("names no element of the array; use the id of one that is there, or its number from 0")]
    NoElement,
    #[error("must be from {least} to {most}")]
    Range { least: String, most: String },
    /// Letting it through would grant what the operator meant to restrict.
    #[error("agents, toolboxes and grants are not served by this version; remove the setting")]
    NotServed,
    #[error("is the installation's own name in the audit trail; choose another")]
    Reserved,
    #[error("{id:?} is there twice; remove or rename one")]
    Twice { id: String },
    #[error("there is no provider {provider:?}; {}", hint_or(.nearest.as_deref(), "add it to [[providers]]"))]
    ProviderMissing { provider: String, nearest: Option<String> },
    #[error("there is no definition {definition:?}; {}", hint(.nearest.as_deref(), .known))]
    DefinitionUnknown { definition: String, nearest: Option<String>, known: Vec<String> },
    #[error(transparent)]
    Definition(InvalidDefinition),
    #[error("tokens would belong to tenant {tenant}, which is not configured; {}", hint_or(.nearest.as_deref(), "add it to [[tenants]]"))]
    TenantMissing { tenant: TenantId, nearest: Option<String> },
    #[error("no issuer is configured, so no caller could be let in; add [[identity]] with [[identity.issuers]]")]
    NoIssuer,
    #[error(transparent)]
    Identity(identity::ConfigError),
    #[error("is empty; write {what}")]
    Empty { what: &'static str },
    #[error("must begin with a slash, such as \"/callback\"")]
    LoopbackPath,
    #[error("must be an https URL; plain http is for loopback addresses")]
    NotHttps,
    #[error(transparent)]
    PublicUrl(InvalidPublicUrl),
    #[error("is taken by {other}; choose another port")]
    AddressTwice { other: &'static str },
    #[error(
        "is not a log filter; write a level (error, warn, info, debug) or directives such as \"claviger::broker=debug,info\""
    )]
    LogFilter,
    #[error("must be the http or https URL of an OTLP collector that speaks gRPC, such as \"http://127.0.0.1:4317\"")]
    OtlpEndpoint,
    #[error("cannot stand in a header (RFC 9110 §5); write one such as {example:?}")]
    Header { example: &'static str },
    /// What reading it said.
    #[error("{reason}")]
    File { reason: String },
    #[error(
        "this is reached from other machines, and tokens would cross the network in the clear; give tls a \
         certificate_file and a private_key_file, or set it to \"off\" where something in front encrypts"
    )]
    Plaintext,
    #[error("nobody is named whose certificates are taken; add client_ca_file")]
    NoClientAuthority,
    #[error("the file {} holds no secret; write it there as one line of visible characters", .path.display())]
    NotASecret { path: PathBuf },
    #[error("the file {} cannot be read ({reason}); check its name and who may read it", .path.display())]
    FileUnreadable { path: PathBuf, reason: String },
    #[error("the file {} holds no certificates; write PEM certificates into it", .path.display())]
    NoCertificates { path: PathBuf },
    #[error("{} is not a directory; name one, or one that can be made", .path.display())]
    NotADirectory { path: PathBuf },
}

impl Finding {
    pub fn new(key: KeyPath, fault: Fault) -> Self {
        Self { key, place: Place::Nowhere, fault }
    }
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        Self { file: None, place: finding.place, key: finding.key, fault: finding.fault }
    }
}

/// `claviger.toml:12: providers.google.client_id: is missing; write it, for example "claviger"`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
        }
        match &self.place {
            Place::Line(line) => write!(f, ":{line}: ")?,
            Place::Variable(name) => write!(f, " ({name}): ")?,
            Place::Nowhere if self.file.is_some() => f.write_str(": ")?,
            Place::Nowhere => {}
        }
        if !self.key.0.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.fault)
    }
}

/// The one of `known` that `wrong` was likely meant to be.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(wrong, name), name));
    let best = scored.filter(|(score, _)| *score > ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, name)| name.to_owned())
}

/// Below it a suggestion only confuses.
const ALIKE: f64 = 0.8;

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!("take one of {}", known.join(", ")),
    }
}

fn hint_or(nearest: Option<&str>, cure: &str) -> String {
    nearest.map_or_else(|| cure.to_owned(), |nearest| format!("did you mean {nearest:?}? Or {cure}"))
}

fn it_as(example: Option<&str>) -> String {
    example.map_or_else(|| "it".to_owned(), |example| format!("it, for example {example}"))
}

fn for_example(example: Option<&str>) -> String {
    example.map_or_else(String::new, |example| format!("; for example {example}"))
}
