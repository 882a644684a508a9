//! What a token's `iss` must be.

use serde::Deserialize;
use url::Url;

use super::ConfigError;

/// An issuer, compared character for character: no case, slash or port is normalised.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum IssuerName {
    Exact(String),
    /// Every directory of Microsoft Entra: `{tenantid}` stands for the GUID that the token's `tid` repeats.
    Template(String),
}

impl IssuerName {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Template(name) => name,
        }
    }

    pub(super) const fn is_template(&self) -> bool {
        matches!(self, Self::Template(_))
    }

    /// Whether a token of this `iss` and this `tid` is of this issuer.
    pub(super) fn covers(&self, iss: &str, tid: Option<&str>) -> bool {
        match self {
            Self::Exact(name) => name == iss,
            Self::Template(_) => tid.is_some() && self.directory(iss) == tid,
        }
    }

    /// The directory in whose name a template gives `iss`.
    pub(super) fn directory<'a>(&self, iss: &'a str) -> Option<&'a str> {
        let Self::Template(template) = self else { return None };
        let (before, after) = template.split_once(PLACEHOLDER)?;
        iss.strip_prefix(before)?.strip_suffix(after).filter(|directory| is_guid(directory))
    }

    /// The template's issuer for one directory, or for what Entra takes for any: `common`.
    pub(super) fn of(&self, directory: &str) -> String {
        self.as_str().replace(PLACEHOLDER, directory)
    }
}

impl TryFrom<String> for IssuerName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        let around: String = name.splitn(2, PLACEHOLDER).collect();
        if around.contains(['{', '}']) {
            Err(ConfigError::IssuerTemplate(name))
        } else if Url::parse(&name).is_err() {
            Err(ConfigError::IssuerNotUrl(name))
        } else if around == name {
            Ok(Self::Exact(name))
        } else {
            Ok(Self::Template(name))
        }
    }
}

/// RFC 9562 §4, in the one spelling that Entra uses: another would be another realm.
pub(super) fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    let legal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    groups == [8, 4, 4, 4, 12] && text.bytes().all(legal)
}

/// The claim that repeats what stands for [`PLACEHOLDER`] in `iss`.
pub(super) const DIRECTORY_CLAIM: &str = "tid";
const PLACEHOLDER: &str = "{tenantid}";

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    fn name(text: &str) -> IssuerName {
        IssuerName::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_template_covers_the_directory_that_the_token_repeats() {
        let template = name("https://login.example/{tenantid}/v2.0");
        let iss = template.of(ACME);
        assert_eq!(iss, format!("https://login.example/{ACME}/v2.0"));
        assert!(template.covers(&iss, Some(ACME)));
        let other = ACME.replace('7', "8");
        for tid in [None, Some(""), Some(&other), Some(&ACME.to_uppercase()), Some("common")] {
            assert!(!template.covers(&iss, tid), "{tid:?}");
        }
        for iss in [&template.of(&ACME.to_uppercase()), "https://login.example/{tenantid}/v2.0", &format!("{iss}/")] {
            assert!(!template.covers(iss, Some(ACME)), "{iss}");
        }
    }

    #[test]
    fn what_is_no_guid_stands_for_no_directory() {
        let template = name("https://login.example/{tenantid}/v2.0");
        let long = "0".repeat(36);
        let slashed = format!("{ACME}/x");
        for tid in ["../common", "common", "", "{tenantid}", &long, &ACME[1..], &slashed, &ACME.replace('-', "")] {
            assert!(!template.covers(&template.of(tid), Some(tid)), "{tid}");
        }
    }

    #[test]
    fn an_exact_name_has_no_directory() {
        let exact = name("https://login.example/");
        assert!(exact.covers("https://login.example/", Some(ACME)) && exact.covers("https://login.example/", None));
        assert_eq!(
            (exact.directory("https://login.example/"), exact.covers("https://login.example", None)),
            (None, false)
        );
    }

    #[test]
    fn braces_stand_for_the_tenant_id_or_for_nothing() {
        for text in [
            "https://login.example/{tenantId}",
            "https://login.example/{tenantid}/{tenantid}",
            "https://login.example/{tenantid}}",
            "https://login.example/{}",
        ] {
            let refused = IssuerName::try_from(text.to_owned());
            assert_eq!(refused, Err(ConfigError::IssuerTemplate(text.to_owned())), "{text}");
        }
    }
}
