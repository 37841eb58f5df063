//! W3C Trace Context on the wire: `traceparent` and `tracestate`, read strictly and written without a detour.
//!
//! The API crate of OpenTelemetry has no propagator of its own, and its global one sits behind a lock and makes strings;
//! a request can afford neither.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of version 00: `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;

/// A span as it goes into a request's headers.
#[derive(Debug, Clone)]
pub(super) struct Carrier {
    ids: Ids,
    state: State,
}

/// What `traceparent` says.
#[derive(Debug, Clone, Copy)]
struct Ids {
    trace: [u8; 16],
    span: [u8; 8],
    sampled: bool,
}

/// What becomes of `tracestate`.
#[derive(Debug, Clone)]
enum State {
    /// It came with the request and nobody changed it.
    Keep,
    /// The request's own, if any, belongs to another trace.
    Remove,
    Set(Box<TraceState>),
}

impl Carrier {
    /// `received` is what the request's own headers say, if the span is its child.
    pub(super) fn new(span: &SpanContext, received: Option<&SpanContext>) -> Self {
        let state = match received {
            Some(received) if received.trace_state() == span.trace_state() => State::Keep,
            _ if *span.trace_state() == TraceState::NONE => State::Remove,
            _ => State::Set(Box::new(span.trace_state().clone())),
        };
        Self { ids: Ids::of(span), state }
    }

    /// Writes the span into `headers`, over whatever an earlier attempt or the caller wrote.
    pub(super) fn inject(&self, headers: &mut HeaderMap) {
        self.write(&self.ids, headers);
    }

    /// Writes `child`, a span under this one, into `headers`; `tracestate` was settled with the parent.
    pub(super) fn inject_child(&self, child: &SpanContext, headers: &mut HeaderMap) {
        self.write(&Ids::of(child), headers);
    }

    fn write(&self, ids: &Ids, headers: &mut HeaderMap) {
        // Digits and hyphens are a valid value, so this cannot fail; if it did, the request would only lose its trace.
        let Ok(mut value) = HeaderValue::from_bytes(&ids.traceparent()) else { return };
        // It is another one in each request: HPACK's table would only be pushed full of values that never come again, on both
        // sides of the connection.
        value.set_sensitive(true);
        headers.insert(TRACEPARENT, value);
        let state = match &self.state {
            State::Keep => return,
            State::Remove => None,
            State::Set(state) => HeaderValue::try_from(state.header()).ok(),
        };
        match state {
            Some(state) => headers.insert(TRACESTATE, state),
            None => headers.remove(TRACESTATE),
        };
    }
}

impl Ids {
    fn of(span: &SpanContext) -> Self {
        Self {
            trace: span.trace_id().to_bytes(),
            span: span.span_id().to_bytes(),
            sampled: span.trace_flags().is_sampled(),
        }
    }

    fn traceparent(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace);
        write_hex(&mut text[36..52], &self.span);
        write_hex(&mut text[53..55], &[u8::from(self.sampled)]);
        text
    }
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

/// The span that `headers` name as the parent; None if there is none, more than one, or one that is not valid.
pub(super) fn extract(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (trace, span, flags) = parse(value.as_bytes())?;
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace, span, flags, true, extract_state(headers)))
}

/// A `tracestate` that is not valid is dropped alone: the trace goes on without it (W3C Trace Context, 3.3.1).
fn extract_state(headers: &HeaderMap) -> TraceState {
    let mut values = headers.get_all(TRACESTATE).iter();
    let Some(first) = values.next() else { return TraceState::NONE };
    let mut text = first.to_str().unwrap_or_default().to_owned();
    for value in values {
        text.push(',');
        text.push_str(value.to_str().unwrap_or_default());
    }
    text.parse().unwrap_or(TraceState::NONE)
}

fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let [version] = read_hex(text.get(..2)?)?;
    // Later versions may only append, after another hyphen; ff is forbidden.
    let complete = match version {
        0xff => false,
        0 => text.len() == LENGTH,
        _ => text.len() == LENGTH || text.get(LENGTH) == Some(&b'-'),
    };
    let hyphens = [2, 35, 52].iter().all(|&at| text.get(at) == Some(&b'-'));
    if !complete || !hyphens {
        return None;
    }
    let trace = TraceId::from_bytes(read_hex(text.get(3..35)?)?);
    let span = SpanId::from_bytes(read_hex(text.get(36..52)?)?);
    let [flags] = read_hex(text.get(53..55)?)?;
    (trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span, flags))
}

/// Lower-case digits only, as the specification demands.
fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(text: u8) -> Option<u8> {
    match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(parents: &[&str], states: &[&str]) -> Option<SpanContext> {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, parent.parse().unwrap());
        }
        for state in states {
            headers.append(TRACESTATE, state.parse().unwrap());
        }
        extract(&headers)
    }

    #[test]
    fn reads_the_specifications_example() {
        let span = of(&[VALID], &["congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7"]).unwrap();
        assert_eq!(span.trace_id(), TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!(span.span_id(), SpanId::from(0x00f0_67aa_0ba9_02b7));
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(span.trace_state().header(), "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7");
    }

    #[test]
    fn takes_a_later_version_that_appends_and_clears_flags_nobody_knows() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what";
        assert_eq!(of(&[later], &[]).unwrap().trace_flags(), TraceFlags::SAMPLED);
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe";
        assert_eq!(of(&[unsampled], &[]).unwrap().trace_flags(), TraceFlags::NOT_SAMPLED);
    }

    #[test]
    fn refuses_what_is_not_valid() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47+6-00f067aa0ba902b7-01",
        ] {
            assert!(of(&[text], &[]).is_none(), "{text}");
        }
        assert!(of(&[VALID, VALID], &[]).is_none());
        assert!(of(&[], &["a=b"]).is_none());
    }

    #[test]
    fn drops_a_bad_tracestate_alone() {
        assert_eq!(*of(&[VALID], &["no list"]).unwrap().trace_state(), TraceState::NONE);
    }

    #[test]
    fn writes_what_it_read() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, "a=b".parse().unwrap());
        let span = of(&[VALID], &["a=b"]).unwrap();
        Carrier::new(&span, Some(&span)).inject(&mut headers);
        assert_eq!(headers[TRACEPARENT], VALID);
        assert!(headers[TRACEPARENT].is_sensitive(), "it is not put into HPACK's table");
        assert_eq!(headers[TRACESTATE], "a=b");
    }

    #[test]
    fn a_tracestate_of_another_trace_does_not_stay() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACESTATE, "a=b".parse().unwrap());
        Carrier::new(&of(&[VALID], &[]).unwrap(), None).inject(&mut headers);
        assert!(!headers.contains_key(TRACESTATE));
        Carrier::new(&of(&[VALID], &["c=d"]).unwrap(), None).inject(&mut headers);
        assert_eq!(headers[TRACESTATE], "c=d");
    }
}
