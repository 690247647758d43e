//! Logs and traces through `tracing`, metrics through OpenTelemetry to Prometheus text.
//!
//! Logs go to stderr, since stdout belongs to what a program was asked to print. Spans go to an OTLP collector if one is
//! configured; trace context travels in the W3C `traceparent` header.

pub mod propagation;

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan};

use crate::config::{Faults, Validate};

pub use propagation::trace_layer;

/// Bucket bounds in seconds for latency histograms, 50 microseconds to 10 seconds; OpenTelemetry's own suit milliseconds.
pub const LATENCY_SECONDS: [f64; 16] =
    [50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Spans are exported by the first start in a process: later ones share its subscriber.
static SUBSCRIBED: AtomicBool = AtomicBool::new(false);

/// How to log, trace and name the instance.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// What to log, such as `info` or `info,grey_state=debug`.
    pub log_filter: String,
    /// For people or for machines.
    pub log_format: LogFormat,
    /// Where spans go by OTLP over gRPC, such as `http://localhost:4317`; none: they are not exported.
    pub otlp_endpoint: Option<String>,
    /// Share of traces that start here and are exported, 0 to 1; the caller's own decision is followed.
    pub sample_ratio: f64,
    /// This replica's name in metrics and traces.
    pub instance_id: Option<String>,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line.
    Text,
    /// One JSON object.
    Json,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            sample_ratio: 1.0,
            instance_id: None,
        }
    }
}

impl Validate for Options {
    fn validate(&self, faults: &mut Faults) {
        if let Err(error) = EnvFilter::try_new(&self.log_filter) {
            faults.add("log_filter", format!("not a log filter: {error}"));
        }
        faults.check((0.0..=1.0).contains(&self.sample_ratio), "sample_ratio", "must be between 0 and 1");
        if let Some(endpoint) = &self.otlp_endpoint {
            let known = endpoint.starts_with("http://") || endpoint.starts_with("https://");
            faults.check(known, "otlp_endpoint", "must start with http:// or https://");
        }
    }
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filter has a syntax error.
    #[error("parse log filter `{filter}`")]
    Filter {
        /// As configured.
        filter: String,
        /// The parser's complaint.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The span exporter refuses its configuration.
    #[error("build span exporter for {endpoint}")]
    Exporter {
        /// As configured.
        endpoint: String,
        /// The exporter's complaint.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// An exporter was asked for outside a runtime, which its connection needs.
    #[error("export spans outside a tokio runtime")]
    NoRuntime(#[source] tokio::runtime::TryCurrentError),
    /// The metrics registry refuses the exporter.
    #[error("register metrics exporter")]
    Metrics(#[source] opentelemetry_sdk::error::OTelSdkError),
}

/// A running service's telemetry; a cheap handle.
#[derive(Debug, Clone)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    meters: SdkMeterProvider,
    meter: Meter,
    /// Only in the handle whose start installed the process's subscriber.
    tracers: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging, tracing and metrics for one service.
    ///
    /// A process has one log subscriber: the first start installs it, later ones (tests, several services in one
    /// process) share it with its filter, format and exporter. Metrics are apart for each start.
    ///
    /// # Errors
    /// A faulty filter or exporter address; an exporter outside a tokio runtime.
    pub fn start(service_name: &'static str, options: &Options) -> Result<Self, Error> {
        let resource = resource(service_name, options);
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(Error::Metrics)?;
        let meters =
            SdkMeterProvider::builder().with_reader(exporter).with_resource(resource.clone()).build();
        let meter = meters.meter(service_name);
        let filter = EnvFilter::try_new(&options.log_filter)
            .map_err(|source| Error::Filter { filter: options.log_filter.clone(), source })?;
        let tracers = subscribe(service_name, options, filter, resource)?;
        Ok(Self { inner: Arc::new(Inner { registry, meters, meter, tracers }) })
    }

    /// Makes this service's instruments. Attributes must come from bounded sets.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// All metrics in Prometheus' text format.
    pub fn render_metrics(&self) -> String {
        let encoded = TextEncoder::new().encode_to_string(&self.inner.registry.gather());
        encoded.unwrap_or_else(|error| {
            tracing::error!(error = %error, "metrics cannot be rendered");
            String::new()
        })
    }

    /// Sends the spans that are still here, within a few seconds, and stops. Logging goes on.
    pub async fn shutdown(&self) {
        let inner = Arc::clone(&self.inner);
        let flush = tokio::task::spawn_blocking(move || {
            if let Some(tracers) = &inner.tracers
                && let Err(error) = tracers.shutdown_with_timeout(EXPORT_TIMEOUT)
            {
                tracing::warn!(error = %error, "spans were not all exported");
            }
            if let Err(error) = inner.meters.shutdown() {
                tracing::debug!(error = %error, "metrics were already shut down");
            }
        });
        if tokio::time::timeout(EXPORT_TIMEOUT * 2, flush).await.is_err() {
            tracing::warn!("telemetry did not flush in time");
        }
    }
}

fn resource(service_name: &'static str, options: &Options) -> Resource {
    let mut attributes = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
    attributes.extend(options.instance_id.clone().map(|id| KeyValue::new("service.instance.id", id)));
    Resource::builder().with_service_name(service_name).with_attributes(attributes).build()
}

fn subscribe(
    service_name: &'static str,
    options: &Options,
    filter: EnvFilter,
    resource: Resource,
) -> Result<Option<SdkTracerProvider>, Error> {
    if SUBSCRIBED.load(Ordering::Acquire) {
        if options.otlp_endpoint.is_some() {
            tracing::debug!(
                service.name = service_name,
                "spans follow the exporter of the process's first service"
            );
        }
        return Ok(None);
    }
    let tracers = match &options.otlp_endpoint {
        Some(endpoint) => Some(exporting(endpoint, options.sample_ratio, resource)?),
        None => None,
    };
    let lines = lines(options.log_format, std::io::stderr, std::io::stderr().is_terminal());
    let spans = tracers
        .as_ref()
        .map(|tracers| tracing_opentelemetry::layer().with_tracer(tracers.tracer(service_name)));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines).with(spans);
    // Someone else, such as a test, may have installed a subscriber of its own: that is theirs to decide.
    let installed = tracing::subscriber::set_global_default(subscriber).is_ok();
    SUBSCRIBED.store(true, Ordering::Release);
    if installed {
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    }
    Ok(tracers.filter(|_| installed))
}

fn lines<S, W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn exporting(endpoint: &str, sample_ratio: f64, resource: Resource) -> Result<SdkTracerProvider, Error> {
    tokio::runtime::Handle::try_current().map_err(Error::NoRuntime)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|source| Error::Exporter { endpoint: endpoint.to_owned(), source })?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource)
        .build())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use std::{io, sync::Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(lines(format, move || writer.clone(), false));
        tracing::subscriber::with_default(subscriber, || tracing::info!(tenant.id = "acme", "tenant pinned"));
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_logs_are_one_object_with_fields_at_the_top() {
        let line: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json)).unwrap();
        assert_eq!(line["message"], "tenant pinned");
        assert_eq!(line["tenant.id"], "acme");
    }

    #[test]
    fn text_logs_are_one_plain_line() {
        let line = logged(LogFormat::Text);
        assert!(line.ends_with("tenant pinned tenant.id=\"acme\"\n"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }
}
