//! `[[tenants]]`: the customers of the installation.

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{Fault, Finding, KeyPath, http::is_https_or_loopback};
use crate::domain::{INSTALLATION, TenantId};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSection {
    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit. Its records are found by it: do not rename it.
    #[schemars(with = "String", example = &"acme")]
    pub id: TenantId,
    /// Not served yet: must be `false`.
    #[serde(default)]
    pub require_agent: bool,
    /// Where a user may be sent after consent: exact URLs.
    #[serde(default)]
    #[schemars(example = ["https://app.example.com/connected"])]
    pub return_urls: Vec<Url>,
    /// Where a provider may send a code in binding `CALLER`; each must be registered at the provider too.
    #[serde(default)]
    pub redirect_uris: Vec<RedirectRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedirectRule {
    /// Exactly this URL.
    Exact(Url),
    /// `http` on a literal loopback address, any port, this path (RFC 8252 §7.3).
    Loopback(String),
}

impl TenantSection {
    pub(super) fn check(&self, nth: usize) -> Vec<Finding> {
        let key = |dotted| KeyPath::in_array("tenants", nth, dotted);
        let mut findings = Vec::new();
        if self.id.as_str() == INSTALLATION {
            findings.push(Finding::new(key("id"), Fault::Reserved));
        }
        if self.require_agent {
            findings.push(Finding::new(key("require_agent"), Fault::NotServed));
        }
        for (at, url) in self.return_urls.iter().enumerate() {
            if !is_https_or_loopback(url) {
                findings.push(Finding::new(key("return_urls").nth(at), Fault::NotHttps));
            }
        }
        for (at, rule) in self.redirect_uris.iter().enumerate() {
            let fault = match rule {
                RedirectRule::Exact(url) => (!is_https_or_loopback(url)).then_some(Fault::NotHttps),
                RedirectRule::Loopback(path) => (!path.starts_with('/')).then_some(Fault::LoopbackPath),
            };
            findings.extend(fault.map(|fault| Finding::new(key("redirect_uris").nth(at), fault)));
        }
        findings
    }
}
