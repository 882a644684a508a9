//! `claviger serve`: the broker.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use crate::{
    app::{App, Listeners, NotConfigured, SystemClock},
    config::{self, Config},
    sealing::{Random, hardening},
    telemetry::{Telemetry, TelemetryGuard},
};

/// Run the broker
///
/// Variables of the form CLAVIGER__SECTION__KEY override the file. SIGTERM and SIGINT end it when what is in the air
/// has landed.
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration, as TOML; `claviger.example.toml` has every key
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        hardening::disable_core_dumps()?;
        let config = Config::load(&self.config, &config::variables()).map_err(NotConfigured)?;
        let _telemetry = telemetry(&config)?;
        // From here on a signal waits for a good end, also one that comes while things start.
        let mut signals = Signals::listen().context("signals cannot be listened for")?;
        let listeners = Listeners::bind(&config).await?;
        let app = App::build(config, Arc::new(SystemClock), Random::system()).await?;
        let shutdown = CancellationToken::new();
        let serving = app.serve(listeners, shutdown.clone());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return served,
            () = signals.received() => shutdown.cancel(),
        }
        serving.await
    }
}

fn telemetry(config: &Config) -> anyhow::Result<TelemetryGuard> {
    let otlp_endpoint = config.traces.otlp_endpoint.as_ref().map(url::Url::as_str);
    let telemetry = Telemetry { format: config.log.format, filter: &config.log.level, otlp_endpoint };
    telemetry.start().context("logs and traces cannot be set up")
}
