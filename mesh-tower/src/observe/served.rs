//! A request that a server serves.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};
use mesh_core::error::Error;
use mesh_core::model::Name;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Span, SpanKind};
use opentelemetry::{Context, ContextGuard, KeyValue};

use crate::mesh::Calls;

use super::names::{self, Outcome, Prefix, Side};
use super::series::Key;
use super::span::{self, Identity, Prefer, Started};
use super::{Measure, ServedEnd, Telemetry};

/// What is known of a request when it arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedFacts<'a> {
    /// The server's count.
    pub(crate) calls: &'a Arc<Calls>,
    /// The request's method.
    pub(crate) method: &'a Method,
    /// The request's path, with or without its query.
    pub(crate) path: &'a str,
    /// Whether it is gRPC.
    pub(crate) grpc: bool,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// Who sent it, where it has an address.
    pub(crate) peer: Option<SocketAddr>,
    /// Its headers: `traceparent` names the parent.
    pub(crate) headers: &'a HeaderMap,
}

/// Observes one request. Dropped without an end, it was cancelled.
pub(crate) struct ServedObserver {
    measure: Measure,
    /// In which the application works, so that calls it makes are children of this request.
    context: Option<Context>,
    recording: Option<Box<Recording>>,
}

struct Recording {
    span: BoxedSpan,
    method: &'static str,
}

/// As long as it lives, the request's span is the current one of this thread. Not to be held over an await.
#[derive(Debug)]
pub(crate) struct Entered {
    _guard: Option<ContextGuard>,
}

impl Telemetry {
    /// A request arrived.
    pub(crate) fn served(&self, facts: &ServedFacts<'_>) -> ServedObserver {
        let method = if facts.grpc { names::rpc_method(facts.path) } else { names::http_method(facts.method) };
        let scheme = if facts.secure { "https" } else { "http" };
        // gRPC's conventions do not tell schemes apart.
        let target = if facts.grpc { "" } else { scheme };
        let measure = Measure::start(self, facts.calls, &Key { side: Side::Server, grpc: facts.grpc, method, target });
        let name = || match measure.operation.span_name() {
            Some(name) => name,
            None if facts.grpc => Cow::Owned(names::rpc_span(Prefix::Recv, method)),
            None => Cow::Borrowed(names::http_span(names::http_method(facts.method))),
        };
        let (context, recording) = match span::start(self, name, SpanKind::Server, facts.headers, Prefer::Headers) {
            Started::Off => (None, None),
            Started::Dropped(identity) => (Some(dropped(identity)), None),
            Started::Recording(mut span, identity) => {
                span.set_attributes(attributes(facts, method, scheme));
                let recording = Recording { span, method: names::http_method(facts.method) };
                (Some(identity.into_context()), Some(Box::new(recording)))
            }
        };
        ServedObserver { measure, context, recording }
    }
}

/// Where nothing is recorded, the caller's own context will do if it asks for the same.
fn dropped(identity: Identity) -> Context {
    let same = identity.received().is_some_and(|parent| parent.is_sampled() == identity.span.is_sampled());
    match identity.received {
        Some(received) if same => received,
        received => Identity { received, ..identity }.into_context(),
    }
}

fn attributes(facts: &ServedFacts<'_>, method: &str, scheme: &'static str) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(6);
    if facts.grpc {
        attributes.push(KeyValue::new("rpc.system.name", "grpc"));
        attributes.push(KeyValue::new("rpc.method", method.to_owned()));
    } else {
        attributes.extend(names::http_request(facts.method, facts.path));
        attributes.push(KeyValue::new("url.scheme", scheme));
    }
    if let Some(peer) = facts.peer {
        attributes.push(KeyValue::new("network.peer.address", peer.ip().to_string()));
        attributes.push(KeyValue::new("network.peer.port", i64::from(peer.port())));
    }
    attributes
}

impl ServedObserver {
    /// The configuration `version` decided that `route` takes the request.
    pub(crate) fn decided(&mut self, route: &Name, version: u64) {
        let Some(recording) = &mut self.recording else { return };
        recording.span.set_attributes([KeyValue::new("mesh.route", Name::clone(route)), span::version(version)]);
        if !self.measure.operation.grpc && !route.is_empty() {
            recording.span.update_name(names::routed(recording.method, route));
        }
    }

    /// Makes the request's span the current one: call it around each poll of the application.
    pub(crate) fn enter(&self) -> Entered {
        Entered { _guard: self.context.clone().map(Context::attach) }
    }

    /// The request is over.
    pub(crate) fn end(mut self, end: &ServedEnd<'_>) {
        self.finish(Outcome::new(end.status, end.grpc_status, end.error), end.error);
    }

    fn finish(&mut self, outcome: Outcome, error: Option<&Error>) {
        let grpc = self.measure.operation.grpc;
        self.measure.end(outcome);
        if let Some(recording) = &mut self.recording {
            span::end(&mut recording.span, Side::Server, grpc, outcome, error);
        }
    }
}

impl Drop for ServedObserver {
    fn drop(&mut self) {
        if !self.measure.ended {
            self.finish(Outcome::CANCELLED, None);
        }
    }
}

impl fmt::Debug for ServedObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedObserver").field("measure", &self.measure).finish_non_exhaustive()
    }
}
