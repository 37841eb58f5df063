//! Observed through OpenTelemetry's SDK, as an application would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use mesh_core::error::{Code, Error};
use mesh_core::model::Name;
use mesh_core::policy::grpc::GrpcStatus;
use opentelemetry::global::BoxedTracer;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::noop::NoopTracerProvider;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ScopeMetrics, SumDataPoint};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};

use crate::mesh::Calls;

use super::{AttemptEnd, CallEnd, CallFacts, ServedEnd, ServedFacts, Telemetry, scope};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const METHOD: &str = "/pkg.Greeter/SayHello";

/// A process with an SDK.
struct Process {
    telemetry: Telemetry,
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    spans: InMemorySpanExporter,
    metrics: InMemoryMetricExporter,
}

impl Process {
    fn with(sampler: Sampler) -> Self {
        let spans = InMemorySpanExporter::default();
        let tracers = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(spans.clone()).build();
        let metrics = InMemoryMetricExporter::default();
        // Collected when a test asks, not when time passes.
        let reader = PeriodicReader::builder(metrics.clone()).with_interval(Duration::from_secs(3600)).build();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        let tracer = BoxedTracer::new(Box::new(tracers.tracer_with_scope(scope())));
        let telemetry = Telemetry::of(tracer, &meters.meter_with_scope(scope()));
        Self { telemetry, tracers, meters, spans, metrics }
    }

    fn span(&self, name: &str) -> SpanData {
        let spans = self.spans.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|span| span.name.to_string()).collect();
        spans.into_iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
    }

    /// `instrument{attributes} count`, sorted.
    fn series(&self) -> Vec<String> {
        self.meters.force_flush().unwrap();
        let mut series = Vec::new();
        for resource in self.metrics.get_finished_metrics().unwrap().iter().rev().take(1) {
            for metric in resource.scope_metrics().flat_map(ScopeMetrics::metrics) {
                match metric.data() {
                    AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                        let of = |point: &SumDataPoint<u64>| line(metric.name(), point.attributes(), point.value());
                        series.extend(sum.data_points().map(of));
                    }
                    AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                        assert_eq!(metric.unit(), "s");
                        let points = histogram.data_points();
                        series.extend(points.map(|point| line(metric.name(), point.attributes(), point.count())));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        series.sort();
        series
    }
}

fn line<'a>(name: &str, attributes: impl Iterator<Item = &'a KeyValue>, count: u64) -> String {
    format!("{name}{:?} {count}", map(attributes))
}

fn map<'a>(attributes: impl IntoIterator<Item = &'a KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|pair| (pair.key.to_string(), pair.value.to_string())).collect()
}

/// What the tests count to, all together.
fn calls() -> &'static Arc<Calls> {
    static CALLS: OnceLock<Arc<Calls>> = OnceLock::new();
    CALLS.get_or_init(Arc::default)
}

fn grpc<'a>(headers: &'a HeaderMap) -> CallFacts<'a> {
    CallFacts { calls: calls(), method: &Method::POST, path: METHOD, grpc: true, target: "greeter:50051", headers }
}

fn http<'a>(headers: &'a HeaderMap) -> CallFacts<'a> {
    CallFacts {
        calls: calls(),
        method: &Method::GET,
        path: "/ratings/7?token=secret",
        grpc: false,
        target: "ratings:9080",
        headers,
    }
}

fn served<'a>(headers: &'a HeaderMap) -> ServedFacts<'a> {
    let peer = "127.0.0.9:5000".parse().ok();
    ServedFacts { calls: calls(), method: &Method::POST, path: METHOD, grpc: true, secure: true, peer, headers }
}

fn address() -> SocketAddr {
    "127.0.0.7:9080".parse().unwrap()
}

fn name(text: &str) -> Name {
    text.into()
}

fn parent(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", text.parse().unwrap());
    headers
}

/// What the wire must say of `span`, from the specification's grammar and the exporter's own view of the span.
fn traceparent(span: &SpanContext) -> String {
    format!("00-{:032x}-{:016x}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags())
}

/// gRFC A72.
#[test]
fn a_grpc_call_and_its_two_attempts_are_three_spans() {
    let process = Process::with(Sampler::AlwaysOn);
    let mut headers = HeaderMap::new();
    let call = process.telemetry.call(&grpc(&headers));
    call.link().decided(&name("greeter-v2"), &name("canary"), 7);
    let first = call.link().attempt(1, address(), &mut headers);
    let first_on_wire = headers["traceparent"].clone();
    let unavailable = Some(GrpcStatus::UNAVAILABLE);
    first.end(&AttemptEnd { status: Some(StatusCode::OK), grpc_status: unavailable, error: None });
    let second = call.link().attempt(2, address(), &mut headers);
    second.end(&AttemptEnd { status: Some(StatusCode::OK), grpc_status: Some(GrpcStatus::OK), error: None });
    call.end(&CallEnd { status: Some(StatusCode::OK), grpc_status: Some(GrpcStatus::OK), error: None, retries: 1 });

    let call = process.span("Sent.pkg.Greeter.SayHello");
    assert_eq!((call.span_kind, call.status, call.parent_span_id), (SpanKind::Internal, Status::Ok, SpanId::INVALID));
    let seen = map(&call.attributes);
    let want = [
        ("mesh.cluster", "greeter-v2"),
        ("mesh.configuration", "7"),
        ("mesh.retries", "1"),
        ("mesh.route", "canary"),
        ("rpc.method", "pkg.Greeter/SayHello"),
        ("rpc.response.status_code", "OK"),
        ("rpc.system.name", "grpc"),
        ("server.address", "greeter"),
        ("server.port", "50051"),
    ];
    assert_eq!(seen, want.map(|(key, value)| (key.to_owned(), value.to_owned())).into());

    let spans = process.spans.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 3);
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "Attempt.pkg.Greeter.SayHello").collect();
    for (attempt, number) in attempts.iter().zip(["1", "2"]) {
        assert_eq!(attempt.span_kind, SpanKind::Client);
        assert_eq!(attempt.parent_span_id, call.span_context.span_id());
        assert_eq!(attempt.span_context.trace_id(), call.span_context.trace_id());
        let attributes = map(&attempt.attributes);
        assert_eq!(attributes["mesh.attempt"], number);
        assert_eq!(attributes["mesh.endpoint"], "127.0.0.7:9080");
    }
    assert_eq!(attempts[0].status, Status::error("UNAVAILABLE"));
    assert_eq!(map(&attempts[1].attributes)["previous-rpc-attempts"], "1");
    assert_eq!(first_on_wire, traceparent(&attempts[0].span_context));
    assert_eq!(headers["traceparent"], traceparent(&attempts[1].span_context));
}

#[test]
fn an_http_call_is_named_by_its_route_and_keeps_its_query_to_itself() {
    let process = Process::with(Sampler::AlwaysOn);
    let call = process.telemetry.call(&http(&HeaderMap::new()));
    call.link().decided(&name("ratings"), &name("by-id"), 1);
    call.link().attempt(1, address(), &mut HeaderMap::new()).end(&AttemptEnd::default());
    call.end(&CallEnd { status: Some(StatusCode::NOT_FOUND), ..CallEnd::default() });
    let call = process.span("GET by-id");
    assert_eq!(process.span("GET").parent_span_id, call.span_context.span_id());
    let attributes = map(&call.attributes);
    assert_eq!(attributes["url.path"], "/ratings/7");
    assert_eq!(attributes["http.response.status_code"], "404");
    assert_eq!(attributes["error.type"], "404");
    assert_eq!(call.status, Status::error(""));
}

#[test]
fn a_call_is_the_child_of_the_callers_header_and_keeps_its_tracestate() {
    let process = Process::with(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    let mut headers = parent(CALLER);
    headers.insert("tracestate", "vendor=1".parse().unwrap());
    headers.insert("baggage", "user=7".parse().unwrap());
    let call = process.telemetry.call(&grpc(&headers.clone()));
    drop(call.link().attempt(1, address(), &mut headers));
    drop(call);
    let call = process.span("Sent.pkg.Greeter.SayHello");
    assert_eq!(call.parent_span_id, SpanId::from(0x00f0_67aa_0ba9_02b7));
    assert!(call.parent_span_is_remote);
    let attempt = process.span("Attempt.pkg.Greeter.SayHello");
    assert_eq!(headers["traceparent"], traceparent(&attempt.span_context));
    assert_eq!(
        (&headers["tracestate"], &headers["baggage"]),
        (&"vendor=1".parse().unwrap(), &"user=7".parse().unwrap())
    );
}

#[test]
fn a_call_is_the_child_of_the_span_the_application_is_in() {
    let process = Process::with(Sampler::AlwaysOn);
    let own = process.tracers.tracer("application").start("own");
    let context = Context::new().with_span(own);
    let _guard = context.clone().attach();
    drop(process.telemetry.call(&grpc(&parent(CALLER))));
    let call = process.span("Sent.pkg.Greeter.SayHello");
    assert_eq!(call.parent_span_id, context.span().span_context().span_id());
}

#[test]
fn what_is_not_sampled_says_so_on_the_wire_and_exports_nothing() {
    let process = Process::with(Sampler::AlwaysOff);
    let mut headers = parent(CALLER);
    let call = process.telemetry.call(&grpc(&headers.clone()));
    drop(call.link().attempt(1, address(), &mut headers));
    drop(call);
    let text = headers["traceparent"].to_str().unwrap();
    assert!(text.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && text.ends_with("-00"), "{text}");
    assert!(!text.contains("00f067aa0ba902b7"));
    assert!(process.spans.get_finished_spans().unwrap().is_empty());
    assert!(process.telemetry.is_tracing());
}

#[test]
fn without_a_tracer_headers_pass_unchanged_and_no_more_spans_are_tried() {
    let tracer = || BoxedTracer::new(Box::new(NoopTracerProvider::new().tracer_with_scope(scope())));
    let meter = opentelemetry::metrics::noop::NoopMeterProvider::new().meter_with_scope(scope());
    for headers in [HeaderMap::new(), parent(CALLER), parent("garbage")] {
        let telemetry = Telemetry::of(tracer(), &meter);
        for _ in 0..2 {
            let mut sent = headers.clone();
            drop(telemetry.call(&grpc(&headers)).link().attempt(1, address(), &mut sent));
            assert_eq!(sent, headers);
            assert!(!telemetry.is_tracing());
        }
    }
    // A context that someone else attached still travels.
    let telemetry = Telemetry::of(tracer(), &meter);
    let span = SpanContext::new(TraceId::from(1), SpanId::from(2), TraceFlags::SAMPLED, true, TraceState::NONE);
    let _guard = Context::new().with_remote_span_context(span.clone()).attach();
    for _ in 0..2 {
        let mut sent = HeaderMap::new();
        drop(telemetry.call(&grpc(&HeaderMap::new())).link().attempt(1, address(), &mut sent));
        assert_eq!(sent["traceparent"], traceparent(&span));
    }
}

#[test]
fn a_suppressed_call_is_not_traced_and_does_not_stop_the_others() {
    let process = Process::with(Sampler::AlwaysOn);
    let guard = Context::enter_telemetry_suppressed_scope();
    drop(process.telemetry.call(&grpc(&HeaderMap::new())));
    drop(guard);
    assert!(process.spans.get_finished_spans().unwrap().is_empty());
    drop(process.telemetry.call(&grpc(&HeaderMap::new())));
    assert_eq!(process.spans.get_finished_spans().unwrap().len(), 1);
}

#[test]
fn what_is_dropped_was_cancelled() {
    let process = Process::with(Sampler::AlwaysOn);
    let call = process.telemetry.call(&grpc(&HeaderMap::new()));
    drop(call.link().attempt(1, address(), &mut HeaderMap::new()));
    drop(call);
    drop(process.telemetry.served(&served(&HeaderMap::new())));
    for name in ["Sent.pkg.Greeter.SayHello", "Attempt.pkg.Greeter.SayHello", "Recv.pkg.Greeter.SayHello"] {
        let span = process.span(name);
        assert_eq!(map(&span.attributes)["error.type"], "cancelled");
        assert_eq!(span.status, Status::error("CANCELLED"));
    }
    let cancelled = process.series().into_iter().filter(|series| series.contains("cancelled")).count();
    assert_eq!(cancelled, 4);
}

#[test]
fn our_own_error_is_told_by_its_code() {
    let process = Process::with(Sampler::AlwaysOn);
    let error = Error::new(Code::NO_ENDPOINTS, "cluster `greeter` has no endpoints");
    let call = process.telemetry.call(&grpc(&HeaderMap::new()));
    call.end(&CallEnd { grpc_status: Some(GrpcStatus::UNAVAILABLE), error: Some(&error), ..CallEnd::default() });
    let span = process.span("Sent.pkg.Greeter.SayHello");
    assert_eq!(map(&span.attributes)["error.type"], "MESH-401");
    assert_eq!(span.status, Status::error(format!("UNAVAILABLE, {error}")));
}

#[test]
fn a_series_is_a_method_a_target_and_an_end() {
    let process = Process::with(Sampler::AlwaysOff);
    let headers = HeaderMap::new();
    for status in [200, 200, 503] {
        let end = CallEnd { status: StatusCode::from_u16(status).ok(), ..CallEnd::default() };
        process.telemetry.call(&http(&headers)).end(&end);
    }
    let end = CallEnd { grpc_status: Some(GrpcStatus::DEADLINE_EXCEEDED), ..CallEnd::default() };
    process.telemetry.call(&grpc(&headers)).end(&end);
    let get = ServedFacts { method: &Method::GET, grpc: false, ..served(&headers) };
    process.telemetry.served(&get).end(&ServedEnd { status: Some(StatusCode::NOT_FOUND), ..ServedEnd::default() });
    let http = |status: &str, error: &str, count: u32| {
        format!(
            "{{{error}\"http.request.method\": \"GET\", \"http.response.status_code\": \"{status}\", \
             \"server.address\": \"ratings\", \"server.port\": \"9080\"}} {count}"
        )
    };
    let rpc = "{\"error.type\": \"DEADLINE_EXCEEDED\", \"rpc.method\": \"pkg.Greeter/SayHello\", \
               \"rpc.response.status_code\": \"DEADLINE_EXCEEDED\", \"rpc.system.name\": \"grpc\", \
               \"server.address\": \"greeter\", \"server.port\": \"50051\"} 1";
    let server = "{\"http.request.method\": \"GET\", \"http.response.status_code\": \"404\", \
                  \"url.scheme\": \"https\"} 1";
    let failed = http("503", "\"error.type\": \"503\", ", 1);
    let mut want = vec![
        format!("http.client.request.duration{}", http("200", "", 2)),
        format!("http.client.request.duration{failed}"),
        format!("http.server.request.duration{server}"),
        format!("mesh.client.requests{}", http("200", "", 2)),
        format!("mesh.client.requests{failed}"),
        format!("mesh.client.requests{rpc}"),
        format!("mesh.server.requests{server}"),
        format!("rpc.client.call.duration{rpc}"),
    ];
    want.sort();
    assert_eq!(process.series(), want);
}

#[test]
fn strangers_cannot_make_more_series_than_the_bound() {
    let process = Process::with(Sampler::AlwaysOff);
    for number in 0..1500 {
        let path = format!("/scan.Me/M{number}");
        let headers = HeaderMap::new();
        let facts = ServedFacts { path: &path, ..served(&headers) };
        let end = ServedEnd { grpc_status: Some(GrpcStatus::UNIMPLEMENTED), ..ServedEnd::default() };
        process.telemetry.served(&facts).end(&end);
    }
    let series = process.series();
    let requests: Vec<_> = series.iter().filter(|series| series.starts_with("mesh.server.requests")).collect();
    assert_eq!(requests.len(), 1001);
    let other = requests.iter().find(|series| series.contains("\"_OTHER\"")).unwrap();
    assert!(other.ends_with(" 500"), "{other}");
}

#[test]
fn a_request_that_is_served_joins_the_callers_trace_and_so_do_its_own_calls() {
    let process = Process::with(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    let mut request = process.telemetry.served(&served(&parent(CALLER)));
    request.decided(&name("all"), 3);
    let entered = request.enter();
    drop(process.telemetry.call(&http(&HeaderMap::new())));
    drop(entered);
    assert!(!Context::current().has_active_span());
    request.end(&ServedEnd { grpc_status: Some(GrpcStatus(5)), ..ServedEnd::default() });

    let request = process.span("Recv.pkg.Greeter.SayHello");
    assert_eq!(request.span_kind, SpanKind::Server);
    assert_eq!(request.parent_span_id, SpanId::from(0x00f0_67aa_0ba9_02b7));
    assert_eq!(request.status, Status::Ok, "what a client asks wrongly is not the server's error");
    let attributes = map(&request.attributes);
    assert_eq!((attributes["mesh.route"].as_str(), attributes["mesh.configuration"].as_str()), ("all", "3"));
    assert_eq!(attributes["network.peer.address"], "127.0.0.9");
    assert_eq!(process.span("GET").parent_span_id, request.span_context.span_id());
}

#[test]
fn calls_of_a_request_that_is_not_sampled_are_not_sampled_either() {
    let process = Process::with(Sampler::AlwaysOff);
    for headers in [HeaderMap::new(), parent(CALLER), parent(&CALLER.replace("-01", "-00"))] {
        let request = process.telemetry.served(&served(&headers));
        let _entered = request.enter();
        let current = Context::current();
        assert!(current.span().span_context().is_valid() && !current.span().span_context().is_sampled());
        let mut sent = HeaderMap::new();
        drop(process.telemetry.call(&grpc(&HeaderMap::new())).link().attempt(1, address(), &mut sent));
        let trace = current.span().span_context().trace_id().to_string();
        assert_eq!(sent["traceparent"].to_str().unwrap()[3..35], trace);
    }
}

#[test]
fn observers_are_small_and_go_where_futures_go() {
    fn goes<T: Send + Sync + 'static>() -> usize {
        size_of::<T>()
    }
    assert!(goes::<super::CallObserver>() <= 96, "{}", goes::<super::CallObserver>());
    assert!(goes::<super::AttemptObserver>() <= 24, "{}", goes::<super::AttemptObserver>());
    assert!(goes::<super::ServedObserver>() <= 80, "{}", goes::<super::ServedObserver>());
    assert_eq!(goes::<Telemetry>(), 8);
}

#[test]
fn what_the_control_plane_takes_away_is_counted_by_what_becomes_of_it() {
    use mesh_core::event::{Event, EventSink, Withdrawal};
    let process = Process::with(Sampler::AlwaysOff);
    let type_url = name(mesh_core::resource::CLUSTER_LOAD_ASSIGNMENT);
    let grace = Some(Duration::from_secs(30));
    for _ in 0..2 {
        let (type_url, name) = (type_url.clone(), name("reviews"));
        process.telemetry.event(&Event::Withdrawn { type_url, name, how: Withdrawal::Emptied, grace });
    }
    process.telemetry.event(&Event::Restored { type_url: type_url.clone(), name: name("reviews") });
    process.telemetry.event(&Event::Lapsed { type_url, name: name("ratings") });
    let line = |state: &str, count: u64| {
        let kind = r#""mesh.xds.resource_type": "ClusterLoadAssignment""#;
        format!(r#"mesh.xds.withdrawals{{{kind}, "mesh.xds.state": "{state}"}} {count}"#)
    };
    assert_eq!(process.series(), [line("emptied", 2), line("lapsed", 1), line("restored", 1)]);
}

#[test]
fn what_control_planes_say_is_counted_by_whether_it_is_taken() {
    use mesh_core::event::{Event, EventSink};
    let process = Process::with(Sampler::AlwaysOff);
    let (server, type_url) = (name("xds.test:1"), name("envoy.config.cluster.v3.Cluster"));
    for version in ["1", "2"] {
        let (server, type_url, version) = (server.clone(), type_url.clone(), version.to_owned());
        process.telemetry.event(&Event::Accepted { server, control_plane: None, type_url, version, resources: 1 });
    }
    let (version, reason) = ("3".to_owned(), "no".to_owned());
    let rejected = Event::Rejected { server: server.clone(), control_plane: None, type_url, version, reason };
    process.telemetry.event(&rejected);
    process.telemetry.event(&Event::ConnectivityLost { server, reason: "gone".to_owned() });
    let line = |state: &str, count: u64| {
        let of = r#""mesh.xds.resource_type": "Cluster", "mesh.xds.server": "xds.test:1""#;
        format!(r#"mesh.xds.responses{{{of}, "mesh.xds.state": "{state}"}} {count}"#)
    };
    let failures = r#"mesh.xds.server_failures{"mesh.xds.server": "xds.test:1"} 1"#.to_owned();
    assert_eq!(process.series(), [line("accepted", 2), line("rejected", 1), failures]);
}

#[test]
fn what_becomes_of_certificates_is_counted_by_provider_and_never_by_secret() {
    use mesh_core::event::{Event, EventSink, Material};
    let process = Process::with(Sampler::AlwaysOff);
    for secret in ["sds/one", "sds/two"] {
        let (certificate, names, left) = (name(secret), String::new(), Duration::from_secs(60));
        process.telemetry.event(&Event::CertificateExpiring { certificate, material: Material::Identity, names, left });
    }
    let (certificate, names, not_after) = (name("default"), String::new(), std::time::SystemTime::now());
    process.telemetry.event(&Event::CertificateTaken { certificate, material: Material::Roots, names, not_after });
    let line = |material: &str, provider: &str, state: &str, count: u64| {
        format!(
            r#"mesh.certificates{{"mesh.certificate.material": "{material}", "mesh.certificate.provider": "{provider}", "mesh.certificate.state": "{state}"}} {count}"#
        )
    };
    assert_eq!(process.series(), [line("identity", "sds", "expiring", 2), line("roots", "default", "taken", 1)]);
}
