//! `[[providers]]`: authorization servers, and our registrations there.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{Fault, Finding, KeyPath, Period, problem::nearest};
use crate::{
    domain::{ClientSecret, Definition, Directory, Endpoints, Issuer, Provider, ProviderId, Rotation},
    oauth::definitions::{self, InvalidDefinition},
};

#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderSection {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit. Connections are found by it: do not rename it.
    #[schemars(with = "String", example = &"google")]
    pub id: ProviderId,
    /// The name of a shipped definition, which says how the server behaves; see `docs/providers.md`.
    #[schemars(example = &"oidc")]
    pub definition: String,
    /// The server's issuer identifier (RFC 8414 §2), for definitions that leave it open.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"https://login.example.com")]
    pub issuer: Option<Issuer>,
    /// Whose accounts may sign in at Microsoft: `organizations`, `common`, `consumers` or a directory's id.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"organizations")]
    pub directory: Option<Directory>,
    /// In place of the definition's: a server of the same kind at another address.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// What the provider does with a used refresh token, where the definition can only guess.
    #[serde(default, deserialize_with = "rotation")]
    #[schemars(with = "Option<WrittenRotation>")]
    pub rotation: Option<Rotation>,
    /// The most refreshes that are sent to the provider in any one second, a tenth of them at once. What
    /// becomes due together is spread over as long as that takes.
    #[serde(default = "refreshes_per_second")]
    pub refreshes_per_second: NonZeroU32,
    /// Our id at the provider.
    #[schemars(example = &"claviger")]
    pub client_id: String,
    /// File with our secret at the provider: one line, a regular file of this user with mode 0600 or 0400. Absent for
    /// a public client.
    #[serde(default)]
    #[schemars(example = &"/etc/claviger/google.secret")]
    pub client_secret_file: Option<PathBuf>,
    /// What was read from `client_secret_file`.
    #[serde(skip)]
    pub client_secret: Option<ClientSecret>,
}

/// [`Rotation`] as it is written: a duration has its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WrittenRotation {
    /// It stays the same.
    None,
    /// A new one comes, the old one keeps working.
    Reuse,
    /// The old one works so much longer.
    Grace(Period),
    /// The old one is dead, and using it again may kill the whole grant.
    Strict,
}

fn rotation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rotation>, D::Error> {
    let written = Option::<WrittenRotation>::deserialize(deserializer)?;
    Ok(written.map(|written| match written {
        WrittenRotation::None => Rotation::None,
        WrittenRotation::Reuse => Rotation::Reuse,
        WrittenRotation::Grace(period) => Rotation::Grace { seconds: period.0.as_secs() },
        WrittenRotation::Strict => Rotation::Strict,
    }))
}

fn refreshes_per_second() -> NonZeroU32 {
    Provider::REFRESHES_PER_SECOND
}

impl ProviderSection {
    /// The shipped definition, completed.
    pub fn definition(&self) -> Result<Definition, Fault> {
        let unknown = || Fault::DefinitionUnknown {
            definition: self.definition.clone(),
            nearest: nearest(&self.definition, definitions::SHIPPED.iter().copied()),
            known: definitions::SHIPPED.iter().map(|name| (*name).to_owned()).collect(),
        };
        let definition = definitions::shipped(&self.definition).ok_or_else(unknown)?;
        let completion = definitions::Completion {
            issuer: self.issuer.as_ref(),
            directory: self.directory.as_ref(),
            endpoints: &self.endpoints,
            rotation: self.rotation,
        };
        completion.of(definition).map_err(Fault::Definition)
    }

    pub(super) fn check(&self, nth: usize) -> Vec<Finding> {
        let key = |dotted| KeyPath::in_array("providers", nth, dotted);
        let mut findings = Vec::new();
        if let Err(fault) = self.definition() {
            let at = match &fault {
                Fault::Definition(InvalidDefinition::EndpointUnknown { .. }) => "issuer",
                Fault::Definition(InvalidDefinition::DirectoryMissing | InvalidDefinition::DirectoryMeaningless) => {
                    "directory"
                }
                _ => "definition",
            };
            findings.push(Finding::new(key(at), fault));
        }
        if self.client_id.trim().is_empty() {
            findings.push(Finding::new(key("client_id"), Fault::Empty { what: "the id that the provider gave us" }));
        }
        findings
    }
}
