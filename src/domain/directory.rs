//! Microsoft Entra directories (Microsoft also calls them tenants), in the places of an address where one is named.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Definition, Issuer};

/// Whose accounts may sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Directory {
    /// Of every directory, and personal accounts.
    Common,
    /// Of every directory.
    Organizations,
    /// Of this one; a GUID in lower case.
    One(Box<str>),
}

/// The text names no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a directory: write `organizations`, `common`, `consumers` or the directory's id, a GUID (not its domain)")]
pub struct InvalidDirectory;

impl Directory {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Common => "common",
            Self::Organizations => "organizations",
            Self::One(id) => id,
        }
    }
}

impl Definition {
    /// Puts the directory where the issuer says `{directory}`. What is shared by many directories says `{tenantid}` of
    /// itself, whereas its ID tokens name the user's own directory there.
    #[must_use]
    pub fn in_directory(mut self, directory: &Directory) -> Self {
        let put = |issuer: &Issuer, text: &str| issuer.as_str().replace(DIRECTORY, text).parse().ok();
        if let Some(issuer) = self.issuer.take() {
            self.issuer_template = match directory {
                Directory::Common | Directory::Organizations => put(&issuer, TENANT_ID),
                Directory::One(_) => None,
            };
            self.issuer = put(&issuer, directory.as_str());
        }
        self
    }

    /// Whether a directory must be named before anything can be asked of this provider.
    pub fn wants_directory(&self) -> bool {
        self.issuer.as_ref().is_some_and(|issuer| issuer.as_str().contains(DIRECTORY))
    }

    /// The issuer that an ID token with this `tid` must name. `None`: there is none to hold it against.
    pub fn issuer_of(&self, unverified_tid: Option<&str>) -> Option<Box<str>> {
        match &self.issuer_template {
            None => self.issuer.as_ref().map(|issuer| issuer.as_str().into()),
            // Anything but a GUID would let the token choose more of its issuer than its directory.
            Some(template) => unverified_tid
                .filter(|tid| is_guid(tid))
                .map(|tid| template.as_str().replace(TENANT_ID, tid).into_boxed_str()),
        }
    }
}

impl FromStr for Directory {
    type Err = InvalidDirectory;

    fn from_str(text: &str) -> Result<Self, InvalidDirectory> {
        match text {
            "common" => Ok(Self::Common),
            "organizations" => Ok(Self::Organizations),
            // Under its alias this directory publishes its GUID as its issuer; under the GUID the two agree.
            "consumers" => Ok(Self::One(CONSUMERS.into())),
            id if is_guid(id) => Ok(Self::One(id.to_ascii_lowercase().into_boxed_str())),
            _ => Err(InvalidDirectory),
        }
    }
}

impl TryFrom<String> for Directory {
    type Error = InvalidDirectory;

    fn try_from(text: String) -> Result<Self, InvalidDirectory> {
        text.parse()
    }
}

impl From<Directory> for String {
    fn from(directory: Directory) -> Self {
        directory.as_str().to_owned()
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

const DIRECTORY: &str = "{directory}";
/// As Microsoft's metadata writes it.
const TENANT_ID: &str = "{tenantid}";
/// Where personal accounts live.
const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

#[cfg(test)]
mod tests {
    use super::Directory;

    const ID: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    #[test]
    fn a_directory_is_an_alias_or_a_guid() {
        for (text, wanted) in [
            ("common", "common"),
            ("organizations", "organizations"),
            ("consumers", super::CONSUMERS),
            (ID, ID),
            ("72F988BF-86F1-41AF-91AB-2D7CD011DB47", ID),
        ] {
            assert_eq!(text.parse::<Directory>().unwrap().as_str(), wanted);
        }
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        for text in [
            "",
            "Common",
            "contoso.com",
            "contoso.onmicrosoft.com",
            "{tenantid}",
            "../common",
            "72f988bf86f141af91ab2d7cd011db47",
            "{72f988bf-86f1-41af-91ab-2d7cd011db47}",
            "72f988bf-86f1-41af-91ab-2d7cd011db4g",
            "72f988bf-86f1-41af-91ab-2d7cd011db47/",
        ] {
            assert!(text.parse::<Directory>().is_err(), "{text}");
        }
    }
}
