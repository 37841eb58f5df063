//! A client's call and its attempts.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, StatusCode};
use mesh_core::error::Error;
use mesh_core::model::Name;
use mesh_core::policy::grpc::GrpcStatus;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Tracer};
use opentelemetry::{Context, KeyValue};

use crate::mesh::Calls;

use super::names::{self, OTHER, Outcome, Prefix, Side};
use super::series::Key;
use super::span::{self, Prefer, Started};
use super::w3c::Carrier;
use super::{AttemptEnd, Measure, Telemetry};

/// What is known of a call when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallFacts<'a> {
    /// The client's count.
    pub(crate) calls: &'a Arc<Calls>,
    /// The request's method.
    pub(crate) method: &'a Method,
    /// The request's path, with or without its query.
    pub(crate) path: &'a str,
    /// Whether it is gRPC.
    pub(crate) grpc: bool,
    /// Who is called: the target's name, or the authority.
    pub(crate) target: &'a str,
    /// The request's headers as the caller gave them: `traceparent` names the parent, unless the caller is in a span.
    pub(crate) headers: &'a HeaderMap,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CallEnd<'a> {
    /// The response's status, if there was a response.
    pub(crate) status: Option<StatusCode>,
    /// The gRPC status, from head, trailers or the mesh. Only of gRPC requests.
    pub(crate) grpc_status: Option<GrpcStatus>,
    /// Why the mesh has no response of a server to give.
    pub(crate) error: Option<&'a Error>,
    /// Attempts after the first.
    pub(crate) retries: u32,
}

/// Observes one call. Dropped without an end, the call was cancelled.
pub(crate) struct CallObserver {
    measure: Measure,
    trace: Trace,
}

enum Trace {
    Off,
    Dropped(Carrier),
    Recording(Box<Recording>),
}

struct Recording {
    span: BoxedSpan,
    shared: Arc<Shared>,
}

/// What the call's observer and those on the call's way share.
struct Shared {
    telemetry: Telemetry,
    grpc: bool,
    /// The parent of the attempts.
    context: Context,
    carrier: Carrier,
    /// `package.Service/Method` or the HTTP method.
    method: Cow<'static, str>,
    decided: OnceLock<(Name, Name, u64)>,
}

/// What travels with a call and states its facts, while its [`CallObserver`] waits for the end outside.
#[derive(Clone)]
pub(crate) struct CallLink(Link);

#[derive(Clone)]
enum Link {
    Off,
    Dropped(Carrier),
    Recording(Arc<Shared>),
}

/// Observes one attempt. Dropped without an end, it was cancelled.
pub(crate) struct AttemptObserver {
    span: Option<BoxedSpan>,
    grpc: bool,
}

impl Telemetry {
    /// A call begins.
    pub(crate) fn call(&self, facts: &CallFacts<'_>) -> CallObserver {
        let method = if facts.grpc { names::rpc_method(facts.path) } else { names::http_method(facts.method) };
        let key = Key { side: Side::Client, grpc: facts.grpc, method, target: facts.target };
        let measure = Measure::start(self, facts.calls, &key);
        let name = || match measure.operation.span_name() {
            Some(name) => name,
            None if facts.grpc => Cow::Owned(names::rpc_span(Prefix::Sent, method)),
            None => Cow::Borrowed(names::http_span(names::http_method(facts.method))),
        };
        // The attempts are the exchanges with a server; a backend that draws who calls whom must not count them twice.
        let trace = match span::start(self, name, SpanKind::Internal, facts.headers, Prefer::Current) {
            Started::Off => Trace::Off,
            Started::Dropped(identity) => Trace::Dropped(Carrier::new(&identity.span, identity.received().as_ref())),
            Started::Recording(mut span, identity) => {
                span.set_attributes(attributes(facts, method));
                let carrier = Carrier::new(&identity.span, identity.received().as_ref());
                let shared = Shared {
                    telemetry: self.clone(),
                    grpc: facts.grpc,
                    context: identity.into_context(),
                    carrier,
                    method: Cow::Owned(method.to_owned()),
                    decided: OnceLock::new(),
                };
                Trace::Recording(Box::new(Recording { span, shared: Arc::new(shared) }))
            }
        };
        CallObserver { measure, trace }
    }
}

fn attributes(facts: &CallFacts<'_>, method: &str) -> Vec<KeyValue> {
    let mut attributes = names::server(facts.target);
    if facts.grpc {
        attributes.push(KeyValue::new("rpc.system.name", "grpc"));
        attributes.push(KeyValue::new("rpc.method", method.to_owned()));
    } else {
        attributes.extend(names::http_request(facts.method, facts.path));
    }
    attributes
}

impl CallLink {
    /// Of no call: nothing is observed.
    pub(crate) fn off() -> Self {
        Self(Link::Off)
    }

    /// The configuration `version` decided that the call goes to `cluster` by `route`.
    pub(crate) fn decided(&self, cluster: &Name, route: &Name, version: u64) {
        if let Link::Recording(shared) = &self.0 {
            // A call is decided on once.
            let _ = shared.decided.set((cluster.clone(), route.clone(), version));
        }
    }

    /// Attempt `number`, the first being 1, goes to `address` with `headers`, which get the attempt's `traceparent`.
    ///
    /// Of a call that is not recorded no attempt is: its own identity is what travels.
    pub(crate) fn attempt(&self, number: u32, address: SocketAddr, headers: &mut HeaderMap) -> AttemptObserver {
        match &self.0 {
            Link::Off => AttemptObserver { span: None, grpc: false },
            Link::Dropped(carrier) => {
                carrier.inject(headers);
                AttemptObserver { span: None, grpc: false }
            }
            Link::Recording(shared) => {
                let span = shared.start_attempt(number, address);
                shared.carrier.inject_child(span.span_context(), headers);
                AttemptObserver { span: Some(span), grpc: shared.grpc }
            }
        }
    }
}

impl Shared {
    fn start_attempt(&self, number: u32, address: SocketAddr) -> BoxedSpan {
        let name = if self.grpc {
            Cow::Owned(names::rpc_span(Prefix::Attempt, &self.method))
        } else if self.method == OTHER {
            Cow::Borrowed("HTTP")
        } else {
            self.method.clone()
        };
        let previous = i64::from(number.saturating_sub(1));
        let mut attributes = vec![
            KeyValue::new("mesh.attempt", i64::from(number)),
            KeyValue::new("mesh.endpoint", address.to_string()),
            KeyValue::new("network.peer.address", address.ip().to_string()),
            KeyValue::new("network.peer.port", i64::from(address.port())),
        ];
        if self.grpc {
            attributes.push(KeyValue::new("previous-rpc-attempts", previous));
        } else if previous > 0 {
            attributes.push(KeyValue::new("http.request.resend_count", previous));
        }
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_attributes(attributes);
        self.telemetry.0.tracer.build_with_context(builder, &self.context)
    }
}

impl CallObserver {
    /// What travels with the call.
    pub(crate) fn link(&self) -> CallLink {
        CallLink(match &self.trace {
            Trace::Off => Link::Off,
            Trace::Dropped(carrier) => Link::Dropped(carrier.clone()),
            Trace::Recording(recording) => Link::Recording(recording.shared.clone()),
        })
    }

    /// The call is over.
    pub(crate) fn end(mut self, end: &CallEnd<'_>) {
        let outcome = Outcome::new(end.status, end.grpc_status, end.error);
        self.finish(outcome, end.error, end.retries);
    }

    fn finish(&mut self, outcome: Outcome, error: Option<&Error>, retries: u32) {
        let grpc = self.measure.operation.grpc;
        self.measure.end(outcome);
        if let Trace::Recording(recording) = &mut self.trace {
            recording.tell_decision();
            if retries > 0 {
                recording.span.set_attribute(KeyValue::new("mesh.retries", i64::from(retries)));
            }
            span::end(&mut recording.span, Side::Client, grpc, outcome, error);
        }
    }
}

impl Recording {
    fn tell_decision(&mut self) {
        let Some((cluster, route, version)) = self.shared.decided.get() else { return };
        self.span.set_attributes([
            KeyValue::new("mesh.cluster", Name::clone(cluster)),
            KeyValue::new("mesh.route", Name::clone(route)),
            span::version(*version),
        ]);
        if !self.shared.grpc && !route.is_empty() {
            self.span.update_name(names::routed(&self.shared.method, route));
        }
    }
}

impl Drop for CallObserver {
    fn drop(&mut self) {
        if !self.measure.ended {
            self.finish(Outcome::CANCELLED, None, 0);
        }
    }
}

impl AttemptObserver {
    /// The attempt is over.
    pub(crate) fn end(mut self, end: &AttemptEnd<'_>) {
        if let Some(mut span) = self.span.take() {
            let outcome = Outcome::new(end.status, end.grpc_status, end.error);
            span::end(&mut span, Side::Client, self.grpc, outcome, end.error);
        }
    }
}

impl Drop for AttemptObserver {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span::end(&mut span, Side::Client, self.grpc, Outcome::CANCELLED, None);
        }
    }
}

impl fmt::Debug for CallObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallObserver").field("measure", &self.measure).finish_non_exhaustive()
    }
}

impl fmt::Debug for CallLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLink").finish_non_exhaustive()
    }
}

impl fmt::Debug for AttemptObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptObserver").field("recording", &self.span.is_some()).finish_non_exhaustive()
    }
}
