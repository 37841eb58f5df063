//! What a request may ask of the policies it is under: Envoy's `x-envoy-*` request headers of the router filter.
//!
//! They steer retries and timeouts, so only internal callers are believed; whose headers are read and whose are thrown away
//! is for whoever knows the caller. Either way they go no further: the next hop is not asked the same.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use crate::model::matcher::MatchName;
use crate::model::{HeaderMatch, HeaderTest, RetryOn, RetryPolicy};
use crate::route::matcher::parse_number;

const PREFIX: &str = "x-envoy-";

const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
const STATUS_CODES: HeaderName = HeaderName::from_static("x-envoy-retriable-status-codes");
const HEADER_NAMES: HeaderName = HeaderName::from_static("x-envoy-retriable-header-names");
const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
const ALT_RESPONSE: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");
/// A name for Envoy's statistics, which we don't keep.
const ALT_STAT_NAME: HeaderName = HeaderName::from_static("x-envoy-upstream-alt-stat-name");
/// Not for us, but told anew by each hop that says it at all.
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// How long the stream may live, in Envoy; not done here, and not for whoever is behind us.
const STREAM_DURATION: HeaderName = HeaderName::from_static("x-envoy-upstream-stream-duration-ms");

/// The headers that are for this hop alone.
const OURS: [HeaderName; 12] = [
    RETRY_ON,
    RETRY_GRPC_ON,
    MAX_RETRIES,
    STATUS_CODES,
    HEADER_NAMES,
    TIMEOUT,
    PER_TRY_TIMEOUT,
    HEDGE,
    ALT_RESPONSE,
    ALT_STAT_NAME,
    EXPECTED,
    STREAM_DURATION,
];

/// No list in a header has more entries than are read of it: the rest is a flood.
const MOST_ENTRIES: usize = 32;

/// What a request asks for. What is malformed counts as not said, as in Envoy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steering {
    /// `x-envoy-retry-on` and `x-envoy-retry-grpc-on`: conditions beside those of the policy.
    pub retry_on: Option<RetryOn>,
    /// `x-envoy-max-retries`: in place of the policy's number.
    pub max_retries: Option<u32>,
    /// `x-envoy-retriable-status-codes`: beside those of the policy.
    pub status_codes: Vec<StatusCode>,
    /// `x-envoy-retriable-header-names`: response headers whose presence makes a response retriable.
    pub header_names: Vec<HeaderName>,
    /// `x-envoy-upstream-rq-timeout-ms`: in place of the route's timeout; zero is none.
    pub timeout: Option<Duration>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`: in place of the policy's; zero is none.
    pub per_try_timeout: Option<Duration>,
    /// `x-envoy-hedge-on-per-try-timeout`: in place of the hedge policy's.
    pub hedge_on_per_try_timeout: Option<bool>,
}

impl Steering {
    /// Takes the steering headers out of a request; None if there are none.
    pub fn take(headers: &mut HeaderMap) -> Option<Self> {
        if !is_steered(headers) {
            return None;
        }
        let steering = Self {
            retry_on: retry_on(headers),
            max_retries: first(headers, &MAX_RETRIES).and_then(number),
            status_codes: list(headers, &STATUS_CODES).filter_map(status).collect(),
            header_names: list(headers, &HEADER_NAMES).filter_map(|name| name.parse().ok()).collect(),
            timeout: first(headers, &TIMEOUT).and_then(number).map(Duration::from_millis),
            per_try_timeout: first(headers, &PER_TRY_TIMEOUT).and_then(number).map(Duration::from_millis),
            hedge_on_per_try_timeout: first(headers, &HEDGE).and_then(|value| value.parse().ok()),
        };
        strip(headers);
        (steering != Self::default()).then_some(steering)
    }

    /// The policy of the route as this request wants it. A request that asks for a condition has a policy where the route
    /// has none.
    pub fn retry(&self, policy: Option<&Arc<RetryPolicy>>) -> Option<Arc<RetryPolicy>> {
        if policy.is_none() && self.retry_on.is_none() && self.per_try_timeout.is_none() {
            return None;
        }
        let mut merged = policy.map(|policy| RetryPolicy::clone(policy)).unwrap_or_default();
        merged.on = merged.on.union(self.retry_on.unwrap_or_default());
        merged.num_retries = self.max_retries.unwrap_or(merged.num_retries);
        merged.status_codes.extend(&self.status_codes);
        merged.retriable_headers.extend(self.header_names.iter().map(present));
        if let Some(timeout) = self.per_try_timeout {
            merged.per_try_timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
        }
        Some(Arc::new(merged))
    }
}

/// Takes the steering headers out of a request unread: whoever sent it is not believed.
pub fn strip(headers: &mut HeaderMap) {
    if is_steered(headers) {
        for name in OURS {
            headers.remove(name);
        }
    }
}

/// Whether any header can be one of Envoy's: most requests have none, and one look at each name tells.
fn is_steered(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

fn first<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    first(headers, name).unwrap_or_default().split(',').map(str::trim).take(MOST_ENTRIES)
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    parse_number(text.as_bytes())
}

fn status(text: &str) -> Option<StatusCode> {
    StatusCode::from_u16(number(text)?).ok()
}

/// Each header has its own words: gRPC's conditions in Envoy's header mean nothing, and the other way round.
fn retry_on(headers: &HeaderMap) -> Option<RetryOn> {
    let http = first(headers, &RETRY_ON).map(|list| RetryOn::parse(list).http_only());
    let grpc = first(headers, &RETRY_GRPC_ON).map(|list| RetryOn::parse(list).grpc_only());
    match (http, grpc) {
        (None, None) => None,
        (http, grpc) => Some(http.unwrap_or_default().union(grpc.unwrap_or_default())),
    }
}

fn present(name: &HeaderName) -> HeaderMatch {
    HeaderMatch {
        name: MatchName::Header(name.clone()),
        test: HeaderTest::Present(true),
        invert: false,
        treat_missing_as_empty: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn take(lines: &[(&'static str, &'static str)]) -> Option<Steering> {
        Steering::take(&mut map(lines))
    }

    #[test]
    fn steering_headers_are_taken_out_read_or_not() {
        let mut headers =
            map(&[("x-envoy-retry-on", "5xx"), ("x-envoy-expected-rq-timeout-ms", "5"), ("x-other", "1")]);
        let mut unread = headers.clone();
        assert_eq!(Steering::take(&mut headers).unwrap().retry_on, Some(RetryOn::FIVE_XX));
        strip(&mut unread);
        for left in [headers, unread] {
            assert_eq!(left.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
        }
        let mut others = map(&[("x-envoy-decorator-operation", "op"), ("x-envoy-attempt-count", "1")]);
        assert_eq!(Steering::take(&mut others), None);
        assert_eq!(others.len(), 2, "what does not steer stays");
    }

    #[test]
    fn what_is_malformed_is_not_said() {
        for value in ["", "-1", "1.5", "abc", "99999999999999999999"] {
            assert_eq!(take(&[("x-envoy-max-retries", value), ("x-envoy-upstream-rq-timeout-ms", value)]), None);
        }
        let codes = take(&[("x-envoy-retriable-status-codes", "x, 503 ,99")]).unwrap().status_codes;
        assert_eq!(codes, [StatusCode::SERVICE_UNAVAILABLE]);
        assert_eq!(take(&[("x-envoy-hedge-on-per-try-timeout", "1")]), None);
    }

    #[test]
    fn each_list_of_conditions_has_its_own_words() {
        let on = |name, list| take(&[(name, list)]).unwrap().retry_on.unwrap();
        assert_eq!(on("x-envoy-retry-on", " 5xx , unavailable,5XX"), RetryOn::FIVE_XX);
        assert_eq!(on("x-envoy-retry-grpc-on", "5xx,unavailable"), RetryOn::GRPC_UNAVAILABLE);
    }

    #[test]
    fn a_request_adds_conditions_and_replaces_numbers() {
        let steering = take(&[
            ("x-envoy-retry-on", "reset"),
            ("x-envoy-max-retries", "4"),
            ("x-envoy-retriable-header-names", "x-a, x-b"),
            ("x-envoy-upstream-rq-per-try-timeout-ms", "250"),
        ])
        .unwrap();
        let configured = Arc::new(RetryPolicy { on: RetryOn::FIVE_XX, num_retries: 1, ..RetryPolicy::default() });
        let merged = steering.retry(Some(&configured)).unwrap();
        assert_eq!(merged.on, RetryOn::FIVE_XX.union(RetryOn::RESET));
        assert_eq!((merged.num_retries, merged.retriable_headers.len()), (4, 2));
        assert_eq!(merged.per_try_timeout, Some(Duration::from_millis(250)));
        assert_eq!(steering.retry(None).unwrap().on, RetryOn::RESET, "a policy of the request's own");
    }

    #[test]
    fn a_number_of_retries_alone_is_no_policy() {
        let steering = take(&[("x-envoy-max-retries", "4")]).unwrap();
        assert_eq!(steering.retry(None), None);
        let per_try = take(&[("x-envoy-upstream-rq-per-try-timeout-ms", "0")]).unwrap();
        assert_eq!(per_try.retry(None).unwrap().per_try_timeout, None, "zero is no limit");
    }
}
