//! What happened, told to OpenTelemetry: spans of calls, attempts and served requests, W3C Trace Context on the wire, a
//! counter and a histogram. The only place that names `opentelemetry`.
//!
//! Callers state facts when they know them and never a name or an attribute; how a fact looks is decided in `names`.
//! What concerns configuration is a [`mesh_core::event::Event`]: [`mesh_core::event::LogSink`] writes its line, and what is
//! counted of it is in `config`.
//!
//! A call that is not sampled pays for its span's box in the SDK and for its `traceparent`, and for nothing else.

mod config;
mod names;
mod w3c;
mod series;
mod span;
mod call;
#[cfg(feature = "server")]
mod served;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use mesh_core::error::Error;
use mesh_core::policy::grpc::GrpcStatus;
use opentelemetry::InstrumentationScope;
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::metrics::{Counter, Histogram, Meter};
use tokio::time::Instant;

pub(crate) use call::{AttemptObserver, CallEnd, CallFacts, CallLink, CallObserver};
#[cfg(feature = "server")]
pub(crate) use served::{ServedFacts, ServedObserver};

use crate::mesh::Calls;
use config::{Certificates, ControlPlanes, Withdrawals};
use names::{Outcome, Side};
use series::{Key, Operation, Operations};

/// Where facts go. Cheap to clone; one for each mesh.
#[derive(Clone)]
pub(crate) struct Telemetry(Arc<Inner>);

struct Inner {
    tracer: BoxedTracer,
    /// False once it is clear that nobody listens, so that a process without an SDK builds no spans.
    tracing: AtomicBool,
    client: Instruments,
    server: Instruments,
    operations: Operations,
    control_planes: ControlPlanes,
    withdrawals: Withdrawals,
    certificates: Certificates,
}

/// How an attempt, or a request that was served, ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End<'a> {
    /// The response's status, if there was a response.
    pub(crate) status: Option<StatusCode>,
    /// The gRPC status, from head, trailers or the mesh. Only of gRPC requests.
    pub(crate) grpc_status: Option<GrpcStatus>,
    /// Why the mesh has no response of a server to give.
    pub(crate) error: Option<&'a Error>,
}

/// How an attempt ended.
pub(crate) type AttemptEnd<'a> = End<'a>;

/// How a request that was served ended.
#[cfg(feature = "server")]
pub(crate) type ServedEnd<'a> = End<'a>;

impl Telemetry {
    /// To the providers that are installed in the process now: install them before the mesh is built.
    pub(crate) fn global() -> Self {
        Self::of(global::tracer_with_scope(scope()), &global::meter_with_scope(scope()))
    }

    fn of(tracer: BoxedTracer, meter: &Meter) -> Self {
        Self(Arc::new(Inner {
            tracer,
            tracing: AtomicBool::new(true),
            client: Instruments::new(meter, Side::Client),
            server: Instruments::new(meter, Side::Server),
            operations: Operations::new(),
            control_planes: ControlPlanes::new(meter),
            withdrawals: Withdrawals::new(meter),
            certificates: Certificates::new(meter),
        }))
    }

    /// Whether a tracer may be listening.
    fn is_tracing(&self) -> bool {
        self.0.tracing.load(Ordering::Relaxed)
    }

    /// The tracer turned out to make no spans: none is installed, or it was shut down. Neither changes any more.
    fn stop_tracing(&self) {
        self.0.tracing.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("tracing", &self.is_tracing()).finish_non_exhaustive()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("mesh").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// What is measured on one side.
struct Instruments {
    requests: Counter<u64>,
    http: Histogram<f64>,
    rpc: Histogram<f64>,
}

impl Instruments {
    fn new(meter: &Meter, side: Side) -> Self {
        let (requests, http, rpc) = match side {
            Side::Client => ("mesh.client.requests", "http.client.request.duration", "rpc.client.call.duration"),
            Side::Server => ("mesh.server.requests", "http.server.request.duration", "rpc.server.call.duration"),
        };
        // The boundaries that OpenTelemetry's conventions give for both.
        let seconds = || vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
        let duration = |name| meter.f64_histogram(name).with_unit("s").with_boundaries(seconds()).build();
        Self {
            requests: meter.u64_counter(requests).with_unit("{request}").build(),
            http: duration(http),
            rpc: duration(rpc),
        }
    }
}

/// A request under way, as far as metrics go: from its first fact to its end, or its drop.
struct Measure {
    telemetry: Telemetry,
    calls: Arc<Calls>,
    operation: Arc<Operation>,
    started: Instant,
    ended: bool,
}

impl Measure {
    fn start(telemetry: &Telemetry, calls: &Arc<Calls>, key: &Key<'_>) -> Self {
        let operation = telemetry.0.operations.find(key);
        let started = Instant::now();
        calls.start(started);
        Self { telemetry: telemetry.clone(), calls: calls.clone(), operation, started, ended: false }
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        self.calls.end(outcome.is_well(self.operation.side, self.operation.grpc));
        let inner = &*self.telemetry.0;
        let instruments = match self.operation.side {
            Side::Client => &inner.client,
            Side::Server => &inner.server,
        };
        let duration = if self.operation.grpc { &instruments.rpc } else { &instruments.http };
        let seconds = self.started.elapsed().as_secs_f64();
        inner.operations.record(&self.operation, outcome, |attributes| {
            instruments.requests.add(1, attributes);
            duration.record(seconds, attributes);
        });
    }
}

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measure").field("operation", &self.operation).finish_non_exhaustive()
    }
}
