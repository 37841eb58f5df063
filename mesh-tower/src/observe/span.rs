//! Starting and ending spans, at no cost where nobody records.

use std::borrow::Cow;

use http::HeaderMap;
use mesh_core::error::Error;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use super::Telemetry;
use super::names::{Outcome, Side};
use super::w3c;

/// What a tracer made of a request.
pub(super) enum Started {
    /// Nobody traces: the request's headers stay as they are.
    Off,
    /// There is a span and nothing is recorded of it, but its identity travels on.
    Dropped(Identity),
    /// Everything is recorded.
    Recording(BoxedSpan, Identity),
}

/// A span's place in its trace.
pub(super) struct Identity {
    pub(super) span: SpanContext,
    /// The parent, if the request's own headers named it.
    pub(super) received: Option<Context>,
}

/// Who a new span's parent is, if both the current context and the headers name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefer {
    /// A client's: the span the application is in knows more than headers it may have copied.
    Current,
    /// A server's: its caller.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only servers prefer it"))]
    Headers,
}

/// Starts a span under the parent that the current context or `headers` name.
pub(super) fn start(
    telemetry: &Telemetry,
    name: impl FnOnce() -> Cow<'static, str>,
    kind: SpanKind,
    headers: &HeaderMap,
    prefer: Prefer,
) -> Started {
    Context::map_current(|current| {
        if current.is_telemetry_suppressed() {
            return Started::Off;
        }
        let inside = current.span().span_context().is_valid();
        if !telemetry.is_tracing() {
            return if inside && prefer == Prefer::Current { carry_on(current) } else { Started::Off };
        }
        let received = if inside && prefer == Prefer::Current { None } else { w3c::extract(headers) };
        let received = received.map(|parent| current.with_remote_span_context(parent));
        let builder = SpanBuilder { name: name(), span_kind: Some(kind), ..SpanBuilder::default() };
        build(telemetry, builder, current, received)
    })
}

/// Without a tracer, the span the application is in still goes on the wire.
fn carry_on(current: &Context) -> Started {
    Started::Dropped(Identity { span: current.span().span_context().clone(), received: None })
}

fn build(telemetry: &Telemetry, builder: SpanBuilder, current: &Context, received: Option<Context>) -> Started {
    let parent = received.as_ref().unwrap_or(current);
    let span = telemetry.0.tracer.build_with_context(builder, parent);
    let identity = span.span_context().clone();
    // The API's own tracer gives back the parent's identity, or none.
    if !identity.is_valid() || identity.span_id() == parent.span().span_context().span_id() {
        telemetry.stop_tracing();
        return if identity.is_valid() && received.is_none() { carry_on(current) } else { Started::Off };
    }
    let recording = span.is_recording();
    let identity = Identity { span: identity, received };
    if recording { Started::Recording(span, identity) } else { Started::Dropped(identity) }
}

impl Identity {
    /// What the headers said of the parent.
    pub(super) fn received(&self) -> Option<SpanContext> {
        self.received.as_ref().map(|context| context.span().span_context().clone())
    }

    /// The context in which this span is the current one.
    pub(super) fn into_context(self) -> Context {
        self.received.unwrap_or_else(Context::current).with_remote_span_context(self.span)
    }
}

/// Ends `span` as `outcome` says; `error` gives the text.
pub(super) fn end(span: &mut BoxedSpan, side: Side, grpc: bool, outcome: Outcome, error: Option<&Error>) {
    let message = error.map(Error::to_string).unwrap_or_default();
    span.set_attributes(outcome.attributes(side, grpc));
    span.set_status(outcome.span_status(side, grpc, &message));
    span.end();
}

/// Where a configuration decided that the request goes.
pub(super) fn version(version: u64) -> KeyValue {
    KeyValue::new("mesh.configuration", i64::try_from(version).unwrap_or(i64::MAX))
}
