//! Another configuration without a restart.

use std::sync::Arc;

use super::{App, Certificates, build::catalog};
use crate::{
    broker::Broker,
    config::{Config, Problem},
    domain::ConfigurationDigest,
};

/// Puts new configurations in force beside a serving app.
pub struct Reloader {
    broker: Broker,
    certificates: Certificates,
    /// As it was at the start, for what is only read then.
    started_with: Config,
}

impl App {
    pub fn reloader(&self) -> Reloader {
        Reloader {
            broker: self.broker.clone(),
            certificates: self.certificates.clone(),
            started_with: self.config.clone(),
        }
    }
}

impl Reloader {
    /// Puts tenants, providers and plugins in force, then the certificates, and gives the log level to put in force. A
    /// configuration that cannot be served leaves the old one in force; either way it is audited, and said in the log.
    pub async fn reload(&self, loaded: Result<(Config, ConfigurationDigest), Vec<Problem>>) -> Option<String> {
        let (config, digest) = match loaded {
            Ok(loaded) => loaded,
            Err(problems) => return self.refuse(&problems).await,
        };
        let catalog = match catalog(&config) {
            Ok(catalog) => Arc::new(catalog),
            Err(refused) => return self.refuse(&refused.0).await,
        };
        match self.broker.reconfigure(catalog, digest).await {
            Ok(version) => tracing::info!(configuration.version = version, "the configuration was reloaded"),
            Err(error) => {
                tracing::error!(%error, "the old configuration stays in force; whether the new one is on record is not certain: send SIGHUP again");
                self.reload_certificates();
                return None;
            }
        }
        self.reload_certificates();
        let restart = self.started_with.wants_restart(&config);
        if !restart.is_empty() {
            tracing::warn!(sections = restart.join(", "), "these sections have changed and need a restart");
        }
        Some(config.log.level)
    }

    fn reload_certificates(&self) {
        if let Err(error) = self.certificates.reload() {
            tracing::error!(error = &error as &dyn std::error::Error, "the certificates were not reloaded");
        }
    }

    async fn refuse(&self, problems: &[Problem]) -> Option<String> {
        for problem in problems {
            tracing::error!(%problem, "the configuration is refused");
        }
        tracing::error!(problems = problems.len(), "the old configuration stays in force");
        if let Err(error) = self.broker.record_configuration_refused().await {
            tracing::error!(%error, "the refused configuration could not be audited");
        }
        None
    }
}
