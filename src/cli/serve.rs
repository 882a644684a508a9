//! `claviger serve`: the broker.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::{
    app::{App, Listeners, NotConfigured, Reloader, SystemClock},
    config::{self, Config, Problem},
    domain::ConfigurationDigest,
    sealing::{Random, hardening},
    telemetry::{Telemetry, TelemetryGuard},
};

/// Run the broker
///
/// Variables of the form CLAVIGER__SECTION__KEY override the file. SIGTERM and SIGINT end it when what is in the air
/// has landed. SIGHUP makes it read the configuration again: tenants, providers, plugins, log level and certificates
/// come into force without a restart; a configuration with a mistake leaves the old one in force and says so in the log.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration, as TOML; `claviger.example.toml` has every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        hardening::disable_core_dumps()?;
        let (config, digest) = self.load().map_err(NotConfigured)?;
        let telemetry = telemetry(&config)?;
        // From here on a signal makes a good end; while things start there is none to wait for.
        let mut signals = Signals::listen().context("signals cannot be listened for")?;
        let mut hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be listened for")?;
        let listeners = Listeners::bind(&config).await?;
        let app =
            signals.unless_received(Box::pin(App::build(config, Arc::new(SystemClock), Random::system()))).await??;
        let recorded = signals.unless_received(app.broker().record_configuration(digest)).await?;
        recorded.context("the configuration could not be put on record")?;
        let reloader = app.reloader();
        let shutdown = CancellationToken::new();
        let mut serving = tokio::spawn(app.serve(listeners, shutdown.clone()));
        loop {
            tokio::select! {
                served = &mut serving => return served.context("the broker's task died")?,
                () = signals.received() => break,
                _ = hangups.recv() => tokio::select! {
                    () = self.reload(&reloader, &telemetry) => {}
                    // A store that hangs must not keep the process from ending.
                    served = &mut serving => return served.context("the broker's task died")?,
                    () = signals.received() => break,
                },
            }
        }
        shutdown.cancel();
        signals.unless_received(serving).await?.context("the broker's task died")?
    }

    fn load(&self) -> Result<(Config, ConfigurationDigest), Vec<Problem>> {
        Config::load_with_digest(&self.config, &config::variables())
    }

    async fn reload(&self, reloader: &Reloader, telemetry: &TelemetryGuard) {
        let Some(level) = reloader.reload(self.load()).await else { return };
        if let Err(error) = telemetry.set_filter(&level) {
            tracing::error!(error = &error as &dyn std::error::Error, "the log level stays as it was");
        }
    }
}

fn telemetry(config: &Config) -> anyhow::Result<TelemetryGuard> {
    let otlp_endpoint = config.traces.otlp_endpoint.as_ref().map(url::Url::as_str);
    let telemetry = Telemetry { format: config.log.format, filter: &config.log.level, otlp_endpoint };
    telemetry.start().context("logs and traces cannot be set up")
}
