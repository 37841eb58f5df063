//! Which fault a request gets (gRFC A33, Envoy's fault filter).

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::model::{FaultDelayAmount, FaultOutcome, FaultPolicy, Fraction};
use crate::route::matcher::parse_number;
use crate::route::{Binary, RequestFacts};

const DOWNSTREAM_NODE: &str = "x-envoy-downstream-service-node";
const DELAY: &str = "x-envoy-fault-delay-request";
const DELAY_SHARE: &str = "x-envoy-fault-delay-request-percentage";
const ABORT: &str = "x-envoy-fault-abort-request";
const ABORT_GRPC: &str = "x-envoy-fault-abort-grpc-request";
const ABORT_SHARE: &str = "x-envoy-fault-abort-request-percentage";
const THROUGHPUT: &str = "x-envoy-fault-throughput-response";
const THROUGHPUT_SHARE: &str = "x-envoy-fault-throughput-response-percentage";

/// UNKNOWN, for a code that gRPC does not have.
const UNKNOWN: u8 = 2;

/// What is done to one request: first the delay, then the abort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fault {
    /// It waits so long.
    pub delay: Option<Duration>,
    /// It is answered so, and goes no further.
    pub abort: Option<Abort>,
    /// Its response's body comes no faster than so many bytes per second.
    pub response_rate: Option<u64>,
}

impl Fault {
    /// Whether nothing is done.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// With what a request is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC status.
    Grpc(u8),
}

/// Three draws of chance, one for each kind of fault: they are independent.
pub type Draws = [u64; 3];

/// What `policy` does to a request that goes to `cluster`. `max_active` is for whoever counts.
pub fn fault(policy: &FaultPolicy, facts: &RequestFacts<'_>, cluster: Option<&str>, draws: Draws) -> Fault {
    if policy.is_inert() || !selects(policy, facts, cluster) {
        return Fault::default();
    }
    let headers = facts.headers;
    Fault {
        delay: delay(policy, headers, draws[0]),
        abort: abort(policy, headers, draws[1]),
        response_rate: response_rate(policy, headers, draws[2]),
    }
}

fn selects(policy: &FaultPolicy, facts: &RequestFacts<'_>, cluster: Option<&str>) -> bool {
    let nodes = &policy.downstream_nodes;
    let is_node = |node: &[u8]| nodes.iter().any(|known| known.as_bytes() == node);
    policy.upstream_cluster.as_deref().is_none_or(|wanted| cluster == Some(wanted))
        && (nodes.is_empty() || facts.headers.get(DOWNSTREAM_NODE).is_some_and(|node| is_node(node.as_bytes())))
        && policy.headers.iter().all(|header| header.is_match(facts, Binary::Visible))
}

fn delay(policy: &FaultPolicy, headers: &HeaderMap, draw: u64) -> Option<Duration> {
    let delay = policy.delay?;
    let (amount, share) = match delay.amount {
        FaultDelayAmount::Fixed(amount) => (amount, delay.share),
        FaultDelayAmount::Header => {
            (Duration::from_millis(number(headers, DELAY)?), lowered(delay.share, headers, DELAY_SHARE))
        }
    };
    (share.contains(draw) && !amount.is_zero()).then_some(amount)
}

fn abort(policy: &FaultPolicy, headers: &HeaderMap, draw: u64) -> Option<Abort> {
    let abort = policy.abort?;
    let (outcome, share) = match abort.outcome {
        FaultOutcome::Http(status) => (Abort::Http(status), abort.share),
        FaultOutcome::Grpc(code) => (Abort::Grpc(grpc(code)), abort.share),
        FaultOutcome::Header => (asked(headers)?, lowered(abort.share, headers, ABORT_SHARE)),
    };
    share.contains(draw).then_some(outcome)
}

fn response_rate(policy: &FaultPolicy, headers: &HeaderMap, draw: u64) -> Option<u64> {
    let limit = policy.rate_limit?;
    let kib = limit.kib_per_second.or_else(|| number(headers, THROUGHPUT)).filter(|rate| *rate > 0)?;
    lowered(limit.share, headers, THROUGHPUT_SHARE).contains(draw).then(|| kib.saturating_mul(1024))
}

/// The abort that the request asks for itself. The HTTP status wins.
fn asked(headers: &HeaderMap) -> Option<Abort> {
    let status = number(headers, ABORT).filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).map(Abort::Http);
    status.or_else(|| number(headers, ABORT_GRPC).map(|code| Abort::Grpc(grpc(code))))
}

/// A request may lower its share, never raise it. One that says nonsense changes nothing.
fn lowered(share: Fraction, headers: &HeaderMap, name: &str) -> Fraction {
    match number::<u32>(headers, name) {
        Some(asked) => Fraction { numerator: share.numerator.min(asked), ..share },
        None => share,
    }
}

fn number<N: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<N> {
    parse_number(headers.get(name)?.as_bytes())
}

fn grpc(code: u32) -> u8 {
    u8::try_from(code).ok().filter(|code| *code <= 16).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::model::matcher::MatchName;
    use crate::model::{FaultAbort, FaultDelay, FaultRateLimit, HeaderMatch, HeaderTest};

    type Headers<'a> = &'a [(&'static str, &'static str)];

    const HALF: Fraction = Fraction { numerator: 50, denominator: 100 };
    const MS: Duration = Duration::from_millis(5);

    fn run(policy: &FaultPolicy, headers: Headers<'_>, draws: Draws) -> Fault {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let facts = RequestFacts {
            method: &Method::GET,
            scheme: "http",
            authority: "a",
            path: "/",
            headers: &headers,
            is_grpc: false,
            tls: None,
            source_ip: None,
            is_internal: false,
            channel_id: 0,
            metadata: None,
        };
        fault(policy, &facts, Some("one"), draws)
    }

    fn aborting(outcome: FaultOutcome, share: Fraction) -> FaultPolicy {
        FaultPolicy { abort: Some(FaultAbort { outcome, share }), ..FaultPolicy::default() }
    }

    fn delaying(amount: FaultDelayAmount, share: Fraction) -> FaultPolicy {
        FaultPolicy { delay: Some(FaultDelay { amount, share }), ..FaultPolicy::default() }
    }

    #[test]
    fn a33_delay_and_abort_are_drawn_apart() {
        let teapot = Abort::Http(StatusCode::IM_A_TEAPOT);
        let policy = FaultPolicy {
            delay: delaying(FaultDelayAmount::Fixed(MS), HALF).delay,
            ..aborting(FaultOutcome::Http(StatusCode::IM_A_TEAPOT), HALF)
        };
        for (draws, delay, abort) in [
            ([49, 50, 0], Some(MS), None),
            ([50, 49, 0], None, Some(teapot)),
            ([0, 0, 0], Some(MS), Some(teapot)),
            ([99, 99, 0], None, None),
        ] {
            assert_eq!(run(&policy, &[], draws), Fault { delay, abort, response_rate: None }, "{draws:?}");
        }
        assert!(run(&FaultPolicy::default(), &[], [0; 3]).is_none());
    }

    #[test]
    fn a33_a_request_can_ask_for_its_fault_and_only_lower_its_share() {
        let policy = aborting(FaultOutcome::Header, HALF);
        let unavailable = Some(Abort::Http(StatusCode::SERVICE_UNAVAILABLE));
        let rows: &[(Headers<'_>, u64, Option<Abort>)] = &[
            (&[], 0, None),
            (&[(ABORT, "503")], 49, unavailable),
            (&[(ABORT, "503")], 50, None),
            (&[(ABORT, "503"), (ABORT_GRPC, "7")], 0, unavailable),
            (&[(ABORT_GRPC, "7")], 0, Some(Abort::Grpc(7))),
            (&[(ABORT_GRPC, "17")], 0, Some(Abort::Grpc(UNKNOWN))),
            (&[(ABORT, "199")], 0, None),
            (&[(ABORT, "600")], 0, None),
            (&[(ABORT, "soon")], 0, None),
            (&[(ABORT, "503"), (ABORT_SHARE, "10")], 10, None),
            (&[(ABORT, "503"), (ABORT_SHARE, "100")], 50, None),
            (&[(ABORT, "503"), (ABORT_SHARE, "all")], 49, unavailable),
        ];
        for (headers, draw, want) in rows {
            assert_eq!(run(&policy, headers, [0, *draw, 0]).abort, *want, "{headers:?} {draw}");
        }
        let policy = delaying(FaultDelayAmount::Header, Fraction::ALWAYS);
        assert_eq!(run(&policy, &[(DELAY, "5")], [0; 3]).delay, Some(MS));
        for headers in [&[(DELAY, "0")][..], &[(DELAY, "-5")], &[(DELAY, "5"), (DELAY_SHARE, "0")], &[]] {
            assert_eq!(run(&policy, headers, [0; 3]).delay, None, "{headers:?}");
        }
    }

    #[test]
    fn only_the_selected_requests_get_a_fault() {
        let all = aborting(FaultOutcome::Grpc(14), Fraction::ALWAYS);
        let header = HeaderMatch {
            name: MatchName::Header("x-fault".parse().unwrap()),
            test: HeaderTest::Present(true),
            invert: false,
            treat_missing_as_empty: false,
        };
        let here = FaultPolicy { upstream_cluster: Some("one".into()), ..all.clone() };
        let elsewhere = FaultPolicy { upstream_cluster: Some("two".into()), ..all.clone() };
        let node = FaultPolicy { downstream_nodes: vec!["n1".to_owned()], ..all.clone() };
        let marked = FaultPolicy { headers: vec![header], ..all.clone() };
        let rows: &[(&FaultPolicy, Headers<'_>, bool)] = &[
            (&all, &[], true),
            (&here, &[], true),
            (&elsewhere, &[], false),
            (&node, &[(DOWNSTREAM_NODE, "n1")], true),
            (&node, &[(DOWNSTREAM_NODE, "n2")], false),
            (&node, &[], false),
            (&marked, &[("x-fault", "1")], true),
            (&marked, &[], false),
        ];
        for (policy, headers, want) in rows {
            assert_eq!(!run(policy, headers, [0; 3]).is_none(), *want, "{policy:?} {headers:?}");
        }
    }

    #[test]
    fn a_response_is_slowed_down_where_a_rate_is_known() {
        let limited = |kib_per_second| FaultPolicy {
            rate_limit: Some(FaultRateLimit { kib_per_second, share: HALF }),
            ..FaultPolicy::default()
        };
        assert_eq!(run(&limited(Some(1)), &[], [0, 0, 49]).response_rate, Some(1024));
        assert_eq!(run(&limited(Some(1)), &[], [0, 0, 50]).response_rate, None);
        assert_eq!(run(&limited(None), &[], [0; 3]).response_rate, None);
        assert_eq!(run(&limited(None), &[(THROUGHPUT, "8")], [0; 3]).response_rate, Some(8192));
        assert_eq!(run(&limited(None), &[(THROUGHPUT, "0")], [0; 3]).response_rate, None);
    }
}
