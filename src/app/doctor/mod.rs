//! What is wrong, or soon will be, with an installation and with what it depends on, beyond what its configuration
//! shows. Nothing is changed but for what opening the store repairs.
//!
//! - [`files`]: the root key and the directories · [`store`]: the store and its audit chain
//! - [`certificates`]: what the listeners prove themselves with · [`network`]: issuers, providers, the clock

mod certificates;
mod files;
mod network;
mod store;

use std::{fmt, sync::Arc};

use crate::{config::Config, domain::Clock, sealing::Random};

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `root key`, `provider`.
    pub check: &'static str,
    /// Which of them: a path, an id.
    pub subject: String,
    pub verdict: Verdict,
    /// What was seen. It names files, hosts and numbers, and holds nothing that came from elsewhere.
    pub detail: String,
    /// What to do; `None` where there is nothing to do.
    pub cure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// Works now, and somebody should look at it.
    Warn,
    /// Something does not work, or is not safe.
    Fail,
}

/// All findings, in the order of the checks.
pub async fn examine(config: &Config, clock: Arc<dyn Clock>, random: &Random) -> Vec<Finding> {
    super::build::install_crypto();
    let now = clock.now();
    let (mut findings, roots) = files::examine(config, now);
    findings.extend(store::examine(config, roots, random).await);
    findings.extend(certificates::examine(config, now));
    findings.extend(network::examine(config, clock).await);
    findings
}

/// A finding about one thing.
struct About {
    check: &'static str,
    subject: String,
}

impl About {
    fn new(check: &'static str, subject: impl fmt::Display) -> Self {
        Self { check, subject: subject.to_string() }
    }

    fn ok(&self, detail: impl Into<String>) -> Finding {
        self.finding(Verdict::Ok, detail.into(), None)
    }

    fn warn(&self, detail: impl Into<String>, cure: impl Into<String>) -> Finding {
        self.finding(Verdict::Warn, detail.into(), Some(cure.into()))
    }

    fn fail(&self, detail: impl Into<String>, cure: impl Into<String>) -> Finding {
        self.finding(Verdict::Fail, detail.into(), Some(cure.into()))
    }

    fn finding(&self, verdict: Verdict, detail: String, cure: Option<String>) -> Finding {
        Finding { check: self.check, subject: self.subject.clone(), verdict, detail, cure }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}
