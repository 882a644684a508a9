//! Logs and traces of the process: set up once, at the edge.

use std::io::{self, IsTerminal as _};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::filter_fn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What to log, and where traces go.
#[derive(Clone, Debug)]
pub struct Telemetry<'a> {
    pub format: LogFormat,
    /// Directives as `tracing_subscriber::EnvFilter` reads them: `info`, `claviger::broker=debug,info`.
    pub filter: &'a str,
    /// An OTLP collector that speaks gRPC, `http://` or `https://`. `None`: no traces leave.
    pub otlp_endpoint: Option<&'a str>,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("not a log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the OTLP endpoint cannot be used")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("telemetry was set up before")]
    Twice(#[from] TryInitError),
    #[error("the subscriber is gone")]
    Gone(#[from] reload::Error),
}

/// Keeps telemetry going; dropping it sends what is left, for at most five seconds.
#[must_use = "dropping the guard ends the export of traces"]
pub struct TelemetryGuard {
    filter: reload::Handle<EnvFilter, Registry>,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry<'_> {
    /// Sets up the process's telemetry, with logs on standard error. With an OTLP endpoint it must be called inside the
    /// tokio runtime that exports.
    ///
    /// # Errors
    /// The filter or the endpoint is not one, or telemetry is set up already.
    pub fn start(&self) -> Result<TelemetryGuard, TelemetryError> {
        self.start_on(io::stderr, io::stderr().is_terminal())
    }

    /// As [`Self::start`], with logs on `writer`.
    ///
    /// # Errors
    /// The filter or the endpoint is not one, or telemetry is set up already.
    pub fn start_on<W>(&self, writer: W, colour: bool) -> Result<TelemetryGuard, TelemetryError>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let (subscriber, guard) = self.subscriber(writer, colour)?;
        subscriber.try_init()?;
        Ok(guard)
    }

    fn subscriber<W>(
        &self,
        writer: W,
        colour: bool,
    ) -> Result<(impl Subscriber + Send + Sync + use<W>, TelemetryGuard), TelemetryError>
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(EnvFilter::try_new(self.filter)?);
        let traces = self.otlp_endpoint.map(trace_exporter).transpose()?;
        let traced = traces.as_ref().map(|provider| {
            tracing_opentelemetry::layer().with_tracer(provider.tracer("claviger")).with_location(false)
        });
        let subscriber = tracing_subscriber::registry()
            .with(filter)
            .with(filter_fn(is_safe))
            .with(log_layer(self.format, writer, colour))
            .with(traced);
        Ok((subscriber, TelemetryGuard { filter: handle, traces }))
    }
}

impl TelemetryGuard {
    /// Replaces the log filter; a bad one leaves the old in force.
    ///
    /// # Errors
    /// The text is not a filter.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        Ok(self.filter.reload(EnvFilter::try_new(filter)?)?)
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

/// Whether the text is one that [`Telemetry::filter`] may be.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

fn log_layer<S, W>(format: LogFormat, writer: W, colour: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(colour).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    }
}

/// Other crates end at INFO whatever the filter says: below it, h2 and hyper print headers, and so tokens.
fn is_safe(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    *metadata.level() <= Level::INFO || target == "claviger" || target.starts_with("claviger::")
}

fn trace_exporter(endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name("claviger").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info, subscriber::with_default, trace, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn telemetry(format: LogFormat, filter: &str) -> Telemetry<'_> {
        Telemetry { format, filter, otlp_endpoint: None }
    }

    fn logged(telemetry: &Telemetry<'_>, body: impl FnOnce(&TelemetryGuard)) -> String {
        let written = Written::default();
        let writer = written.clone();
        let (subscriber, guard) = telemetry.subscriber(move || writer.clone(), false).unwrap();
        with_default(subscriber, || body(&guard));
        written.text()
    }

    #[test]
    fn other_crates_never_log_below_info() {
        let text = logged(&telemetry(LogFormat::Text, "trace,h2=trace,hyper=trace,tonic=trace"), |_| {
            for_each_target();
        });
        assert!(!text.contains("Bearer"), "{text}");
        assert!(text.contains("ours at trace"), "{text}");
        assert!(text.contains("theirs at info"), "{text}");
    }

    fn for_each_target() {
        trace!(target: "h2::codec::framed_write", "authorization: Bearer one");
        debug!(target: "hyper::proto::h1::conn", "authorization: Bearer two");
        trace!(target: "tonic::transport", "authorization: Bearer three");
        debug!(target: "reqwest::connect", "authorization: Bearer four");
        trace!(target: "rustls::client", "authorization: Bearer five");
        trace!(target: "sled::pagecache", "authorization: Bearer six");
        debug!(target: "tower::buffer::worker", "authorization: Bearer seven");
        trace!(target: "claviger_lookalike", "authorization: Bearer eight");
        info!(target: "sled::db", "theirs at info");
        trace!("ours at trace");
    }

    #[test]
    fn the_filter_is_obeyed_and_can_be_replaced() {
        let text = logged(&telemetry(LogFormat::Text, "info"), |guard| {
            debug!("too quiet");
            assert!(guard.set_filter("claviger=nonsense").is_err());
            debug!("still too quiet");
            guard.set_filter("debug").unwrap();
            debug!("loud enough");
        });
        assert!(!text.contains("quiet"), "{text}");
        assert!(text.contains("loud enough"), "{text}");
    }

    #[test]
    fn json_lines_are_objects_with_dotted_fields() {
        let text = logged(&telemetry(LogFormat::Json, "info"), |_| warn!(connection.id = "con_1", "something failed"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "something failed");
        assert_eq!(line["connection.id"], "con_1");
        assert_eq!(line["level"], "WARN");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_none_is_refused() {
        let telemetry = Telemetry { otlp_endpoint: Some("not a url"), ..telemetry(LogFormat::Text, "info") };
        assert!(matches!(telemetry.subscriber(io::sink, false), Err(TelemetryError::Otlp(_))));
    }
}
