//! `claviger check-config`: whether `serve` would take a configuration.

use std::path::PathBuf;

use clap::Args;

use crate::{
    app::NotConfigured,
    config::{self, Config},
};

/// Say everything that is wrong with a configuration file, with what cures it
///
/// Looks at what `serve` looks at before it opens anything: the file, the variables CLAVIGER__SECTION__KEY that
/// override it, and the files that it names. Exits with 78 if anything is wrong.
#[derive(Debug, Args)]
pub struct CheckConfig {
    /// The configuration, as TOML
    file: PathBuf,
}

impl CheckConfig {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let config = Config::load(&self.file, &config::variables()).map_err(NotConfigured)?;
        let issuers = config.identity.iter().map(|family| family.issuers.len()).sum();
        let parts = [
            counted(issuers, "issuer"),
            counted(config.tenants.len(), "tenant"),
            counted(config.providers.len(), "provider"),
            counted(config.plugins.len(), "plugin"),
        ];
        println!("{} is good: {}", self.file.display(), parts.join(", "));
        Ok(())
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
