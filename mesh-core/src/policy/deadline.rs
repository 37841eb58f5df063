//! How long a request may take (gRFC A31 for gRPC, Envoy's route timeouts for HTTP), and the `grpc-timeout` header.

use std::time::{Duration, Instant};

use crate::model::{Forward, MaxStreamDuration};

/// Envoy's route timeout where the route says nothing.
pub const DEFAULT_ROUTE_TIMEOUT: Duration = Duration::from_secs(15);

/// The limits on an HTTP request. None is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// The route's timeout, from the moment the request has passed the filters until its response is complete; it covers
    /// all attempts.
    pub route: Option<Duration>,
    /// The longest life of the stream, from the request's beginning.
    pub stream: Option<Duration>,
    /// The longest silence.
    pub idle: Option<Duration>,
}

/// The limits of a route on an HTTP request; `connection_max` is the Listener's `max_stream_duration`.
///
/// A route that says anything about `max_stream_duration` has no route timeout, as in Envoy.
pub fn http_timeouts(forward: &Forward, connection_max: Option<Duration>) -> HttpTimeouts {
    let stream = &forward.max_stream_duration;
    let route = match forward.timeout {
        _ if *stream != MaxStreamDuration::default() => None,
        None => Some(DEFAULT_ROUTE_TIMEOUT),
        Some(timeout) => limit(timeout),
    };
    HttpTimeouts {
        route,
        stream: stream.max.or(connection_max).and_then(limit),
        idle: forward.idle_timeout.and_then(limit),
    }
}

/// How long a gRPC call may take, from its beginning: what the caller asked for, cut by the configuration, never longer
/// (gRFC A31). None is forever.
///
/// `grpc_timeout_header_max`, if it is there at all, hides the other limits. `grpc_timeout_header_offset` is taken off
/// what the caller asked for, if something is left (Envoy; gRPC ignores it).
pub fn grpc_timeout(
    caller: Option<Duration>,
    route: &MaxStreamDuration,
    connection_max: Option<Duration>,
) -> Option<Duration> {
    let configured = match route.grpc_header_max {
        Some(max) => limit(max),
        None => route.max.or(connection_max).and_then(limit),
    };
    let caller = caller.map(|asked| match route.grpc_header_offset {
        Some(offset) if offset < asked => asked - offset,
        _ => asked,
    });
    earlier(caller, configured)
}

/// Zero is no limit.
fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// The earlier of two limits, where None is no limit.
pub fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The moment `after` has passed since `start`; None, which is never, also where the clock cannot count that far.
pub fn deadline(start: Instant, after: Option<Duration>) -> Option<Instant> {
    start.checked_add(after?)
}

/// Reads a `grpc-timeout` header: one to eight digits and a unit. What is anything else counts as absent.
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes a `grpc-timeout` header that says at most `timeout`, so that no hop extends a deadline. Whole milliseconds are
/// written as such (Envoy); else the finest unit that fits in eight digits.
pub fn format_grpc_timeout(timeout: Duration) -> String {
    const FITS: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    if nanos.is_multiple_of(1_000_000) && nanos / 1_000_000 <= FITS {
        return format!("{}m", nanos / 1_000_000);
    }
    match units.into_iter().find(|(unit, _)| nanos / unit <= FITS) {
        Some((unit, letter)) => format!("{}{letter}", nanos / unit),
        None => format!("{}H", (nanos / 3_600_000_000_000).min(FITS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    const fn stream(max: Option<Duration>, header_max: Option<Duration>) -> MaxStreamDuration {
        MaxStreamDuration { max, grpc_header_max: header_max, grpc_header_offset: None }
    }

    #[test]
    fn grpc_timeouts_follow_a31() {
        // (application, grpc_timeout_header_max, max_stream_duration, HCM's, effective): the table of gRFC A31.
        let cases = [
            (None, None, None, None, None),
            (None, None, secs(0), None, None),
            (None, None, secs(10), None, secs(10)),
            (None, secs(0), secs(5), secs(5), None),
            (None, secs(10), secs(5), secs(5), secs(10)),
            (secs(20), None, None, None, secs(20)),
            (secs(20), None, secs(0), None, secs(20)),
            (secs(20), None, secs(10), None, secs(10)),
            (secs(20), secs(0), secs(5), secs(5), secs(20)),
            (secs(20), secs(10), secs(5), None, secs(10)),
            // Never longer than the application asked.
            (secs(2), secs(10), secs(50), None, secs(2)),
            // The HCM's value counts where the route has none, also with an empty message.
            (None, None, None, secs(7), secs(7)),
            (secs(20), None, secs(0), secs(7), secs(20)),
        ];
        for (caller, header_max, max, connection, expected) in cases {
            let got = grpc_timeout(caller, &stream(max, header_max), connection);
            assert_eq!(got, expected, "{caller:?} {header_max:?} {max:?} {connection:?}");
        }
    }

    #[test]
    fn an_offset_is_taken_off_what_the_caller_asked_for() {
        let route = MaxStreamDuration { grpc_header_offset: Some(Duration::from_millis(100)), ..stream(None, secs(0)) };
        assert_eq!(grpc_timeout(Some(Duration::from_millis(300)), &route, None), Some(Duration::from_millis(200)));
        assert_eq!(grpc_timeout(Some(Duration::from_millis(50)), &route, None), Some(Duration::from_millis(50)));
        assert_eq!(grpc_timeout(None, &route, None), None);
    }

    #[test]
    fn http_timeouts_follow_envoy() {
        let http = |timeout, max, connection| {
            let forward = Forward { timeout, max_stream_duration: stream(max, None), ..forward() };
            let timeouts = http_timeouts(&forward, connection);
            (timeouts.route, timeouts.stream)
        };
        assert_eq!(http(None, None, None), (secs(15), None), "15 s by default");
        assert_eq!(http(secs(0), None, None), (None, None), "zero is none");
        assert_eq!(http(secs(2), None, secs(60)), (secs(2), secs(60)), "the Listener's limit is another matter");
        assert_eq!(http(secs(2), secs(5), secs(60)), (None, secs(5)), "max_stream_duration replaces the timeout");
        assert_eq!(http(secs(2), secs(0), secs(60)), (None, None), "zero lifts the Listener's limit");
    }

    fn forward() -> Forward {
        Forward::to("a".into())
    }

    #[test]
    fn grpc_timeout_headers_are_read_strictly() {
        let cases: &[(&str, Option<Duration>)] = &[
            ("200m", Some(Duration::from_millis(200))),
            ("1S", secs(1)),
            ("100000u", Some(Duration::from_millis(100))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("1H", secs(3600)),
            ("2M", secs(120)),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", secs(99_999_999 * 3600)),
            // Nine digits are too many.
            ("100000000n", None),
            ("123456789m", None),
            ("bad", None),
            ("", None),
            ("m", None),
            ("1", None),
            ("-1m", None),
            ("+1m", None),
            ("1.5S", None),
            (" 1m", None),
            ("1s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn a_grpc_timeout_header_never_says_more() {
        let cases = [
            (Duration::from_millis(300), "300m"),
            (Duration::from_secs(1), "1000m"),
            (Duration::from_micros(299_999), "299999u"),
            (Duration::from_nanos(1_500), "1500n"),
            (Duration::from_nanos(200_000_000_500), "200000m"),
            (Duration::from_secs(10_000_000), "10000000S"),
            (Duration::from_secs(u64::MAX), "99999999H"),
            (Duration::ZERO, "0m"),
        ];
        for (timeout, expected) in cases {
            let text = format_grpc_timeout(timeout);
            assert_eq!(text, expected);
            assert!(parse_grpc_timeout(text.as_bytes()).unwrap() <= timeout, "{text}");
        }
    }
}
