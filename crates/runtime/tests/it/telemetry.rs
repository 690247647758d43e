//! Metrics, traces and their propagation.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, OnceLock},
};

use axum::{Router, routing::get};
use grey_runtime::{
    Faults, Telemetry, Validate,
    server::{self, PerCore, PerCoreHandle, http::Server},
    telemetry::{self, LATENCY_SECONDS, LogFormat, Options, propagation},
};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use opentelemetry::{KeyValue, trace::TraceContextExt};
use tokio_util::sync::CancellationToken;

use crate::{DEADLINE, any_port, within};

const TRACE_ID: [u8; 16] =
    [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The first telemetry of this process, which alone decides where spans go, with a collector of its own.
pub(crate) struct First {
    pub(crate) telemetry: Telemetry,
    exported: Arc<Mutex<Vec<Export>>>,
    _runtime: tokio::runtime::Runtime,
    _collector: PerCoreHandle,
}

/// Path and body of a call to the collector.
type Export = (String, Vec<u8>);

/// Every test that starts telemetry calls this before.
pub(crate) fn first_start() -> &'static First {
    static FIRST: OnceLock<First> = OnceLock::new();
    FIRST.get_or_init(|| {
        let exported = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&exported);
        let collect = move |_| {
            let keep = Arc::clone(&keep);
            move |_| {
                let keep = Arc::clone(&keep);
                hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let keep = Arc::clone(&keep);
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
                        keep.lock().unwrap().push((path, body));
                        let answer = http::Response::builder()
                            .header("content-type", "application/grpc")
                            .header("grpc-status", "0")
                            .body(tonic::body::Body::empty());
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                })
            }
        };
        let collector = PerCore::bind(any_port(), 1).unwrap();
        let collector =
            collector.serve(server::Options::default(), collect, CancellationToken::new()).unwrap();
        let options = Options {
            log_filter: "off,grey_runtime::telemetry=info".to_owned(),
            otlp_endpoint: Some(format!("http://{}", collector.local_addr())),
            instance_id: Some("router-7".to_owned()),
            ..Options::default()
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let telemetry = {
            let _inside = runtime.enter();
            Telemetry::start("grey-test", &options).unwrap()
        };
        First { telemetry, exported, _runtime: runtime, _collector: collector }
    })
}

#[tokio::test]
async fn request_spans_continue_the_callers_trace_and_are_exported() {
    let first = first_start();
    let router = Router::new()
        .route(
            "/traced",
            get(async || {
                let mut onwards = HeaderMap::new();
                propagation::inject(&propagation::current(), &mut onwards);
                onwards["traceparent"].to_str().unwrap().to_owned()
            }),
        )
        .layer(telemetry::trace_layer());
    let server = Server::bind(any_port()).await.unwrap();
    let url = format!("http://{}/traced", server.local_addr());
    let draining = CancellationToken::new();
    let serving = tokio::spawn(server.serve(router, None, draining.clone(), DEADLINE));
    grey_runtime::tls::install_provider();
    let request = reqwest::Client::new().get(url).header("traceparent", TRACEPARENT).send();
    let onwards = within(request).await.unwrap().text().await.unwrap();
    assert!(onwards.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{onwards}");
    assert_ne!(onwards, TRACEPARENT, "the span has an id of its own");
    draining.cancel();
    assert!(within(serving).await.unwrap());

    within(first.telemetry.shutdown()).await;
    let exported = first.exported.lock().unwrap();
    let contains = |needle: &[u8]| {
        exported.iter().any(|(path, body)| {
            path.ends_with("TraceService/Export") && body.windows(needle.len()).any(|window| window == needle)
        })
    };
    assert!(contains(&TRACE_ID), "the trace is exported: {} batches", exported.len());
    assert!(contains(b"/traced") && contains(b"router-7") && contains(b"http.response.status_code"));
}

#[test]
fn trace_context_survives_a_round_trip_through_headers() {
    let incoming = HeaderMap::from_iter([(
        http::HeaderName::from_static("traceparent"),
        HeaderValue::from_static(TRACEPARENT),
    )]);
    let context = propagation::extract(&incoming);
    assert_eq!(context.span().span_context().trace_id().to_bytes(), TRACE_ID);
    assert!(context.span().span_context().is_remote());
    let mut outgoing = HeaderMap::new();
    propagation::inject(&context, &mut outgoing);
    assert_eq!(outgoing["traceparent"], TRACEPARENT);
    assert!(!propagation::extract(&HeaderMap::new()).span().span_context().is_valid());
}

#[tokio::test]
async fn second_start_in_a_process_has_metrics_of_its_own() {
    let first = first_start();
    let second = Telemetry::start("grey-second", &Options::default()).unwrap();
    second.meter().u64_counter("only.second").build().add(1, &[KeyValue::new("kind", "b")]);
    let latency = second.meter().f64_histogram("call.duration").with_unit("s");
    latency.with_boundaries(LATENCY_SECONDS.to_vec()).build().record(0.000_2, &[]);
    let text = second.render_metrics();
    assert!(text.contains("only_second_total{kind=\"b\"} 1"), "{text}");
    assert!(text.contains("call_duration_seconds_bucket{le=\"0.0001\"} 0"), "{text}");
    assert!(text.contains("call_duration_seconds_bucket{le=\"0.00025\"} 1"), "{text}");
    assert!(text.contains("service_name=\"grey-second\""), "{text}");
    assert!(!first.telemetry.render_metrics().contains("only_second"));
    within(second.shutdown()).await;
}

#[test]
fn faulty_options_are_all_reported() {
    let options = Options {
        log_filter: "info,[".to_owned(),
        log_format: LogFormat::Json,
        otlp_endpoint: Some("collector:4317".to_owned()),
        sample_ratio: 1.5,
        instance_id: None,
    };
    let mut faults = Faults::default();
    options.validate(&mut faults);
    let paths: Vec<&str> = faults.found().iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["log_filter", "sample_ratio", "otlp_endpoint"]);
    assert!(Telemetry::start("grey-test", &options).is_err());
}
