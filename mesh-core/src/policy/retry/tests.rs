//! Verdicts on attempts. Those on HTTP are recorded behaviour of Envoy 1.40; those on gRPC are gRFC A6's and A44's text.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::*;
use crate::balance::mix;
use crate::model::cluster::RetryBudget;
use crate::model::matcher::MatchName;
use crate::model::{
    Backoff, CircuitBreakers, HeaderMatch, HeaderTest, Pattern, RateLimitedBackoff, ResetFormat, ResetHeader, RetryOn,
    RetryPolicy, StringMatch,
};
use crate::route::RequestFacts;

fn policy(on: &str, num_retries: u32) -> RetryPolicy {
    RetryPolicy { on: RetryOn::parse(on), num_retries, ..RetryPolicy::default() }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

fn attempts_on(policy: RetryPolicy, is_grpc: bool, method: &Method, headers: &HeaderMap) -> Attempts {
    let facts = RequestFacts {
        method,
        scheme: "http",
        authority: "a",
        path: "/",
        headers,
        is_grpc,
        tls: None,
        source_ip: None,
        is_internal: false,
        channel_id: 0,
        metadata: None,
    };
    Attempts::new(Some(&Arc::new(policy)), &facts)
}

fn attempts(policy: RetryPolicy, is_grpc: bool) -> Attempts {
    attempts_on(policy, is_grpc, &Method::GET, &HeaderMap::new())
}

const NOW: Now = Now { unix: Duration::from_secs(1000), random: 0 };

fn status(code: u16, headers: &HeaderMap) -> Outcome<'_> {
    Outcome::Response { status: StatusCode::from_u16(code).unwrap(), headers }
}

/// Which of these outcomes a word of `retry_on` names: statuses, then failures.
#[test]
fn http_conditions_name_what_they_name_in_envoy() {
    const CONNECT: Failure = Failure::Connect;
    const BEFORE: Failure = Failure::BeforeRequest;
    const REFUSED: Failure = Failure::Refused;
    const RESET: Failure = Failure::Reset { code: None };
    const TIMEOUT: Failure = Failure::PerTryTimeout;
    let cases: &[(&str, &[u16], &[Failure])] = &[
        ("5xx", &[500, 501, 502, 503, 504], &[CONNECT, BEFORE, REFUSED, RESET, TIMEOUT]),
        ("gateway-error", &[502, 503, 504], &[CONNECT, BEFORE, REFUSED, RESET, TIMEOUT]),
        ("reset", &[], &[CONNECT, BEFORE, REFUSED, RESET, TIMEOUT]),
        ("connect-failure", &[], &[CONNECT]),
        ("refused-stream", &[], &[REFUSED]),
        ("reset-before-request", &[], &[CONNECT, BEFORE]),
        ("retriable-4xx", &[409], &[]),
        ("retriable-status-codes", &[], &[]),
        ("retriable-headers", &[], &[]),
        ("envoy-ratelimited", &[], &[]),
        ("http3-post-connect-failure", &[], &[]),
        ("unavailable", &[], &[]),
        ("", &[], &[]),
        ("unknown-policy", &[], &[]),
        ("5xx,retriable-4xx", &[409, 500, 501, 502, 503, 504], &[CONNECT, BEFORE, REFUSED, RESET, TIMEOUT]),
        (" 5xx , reset ", &[500, 501, 502, 503, 504], &[CONNECT, BEFORE, REFUSED, RESET, TIMEOUT]),
        ("5XX", &[], &[]),
    ];
    for (on, statuses, failures) in cases {
        let policy = policy(on, 1);
        for code in [200, 400, 404, 409, 429, 500, 501, 502, 503, 504] {
            let none = HeaderMap::new();
            let retriable = is_http_retriable(&policy, &status(code, &none));
            assert_eq!(retriable, statuses.contains(&code), "{on} on {code}");
        }
        for failure in [CONNECT, BEFORE, REFUSED, RESET, TIMEOUT, Failure::Refusal] {
            let retriable = is_http_retriable(&policy, &Outcome::Failed(failure));
            assert_eq!(retriable, failures.contains(&failure), "{on} on {failure:?}");
        }
    }
}

/// gRFC A44.
#[test]
fn grpc_words_name_the_status_in_a_response_head() {
    let words = [
        ("cancelled", "1"),
        ("deadline-exceeded", "4"),
        ("resource-exhausted", "8"),
        ("internal", "13"),
        ("unavailable", "14"),
    ];
    for (word, number) in words {
        let policy = policy(word, 1);
        for (_, other) in words {
            let headers = headers(&[("grpc-status", other)]);
            assert_eq!(is_http_retriable(&policy, &status(200, &headers)), number == other, "{word} on {other}");
            assert_eq!(is_grpc_retriable(&policy, &status(200, &headers)), number == other, "{word} on {other}");
        }
    }
}

/// gRFC A44.
#[test]
fn grpc_reads_a_status_from_whatever_happened() {
    let unavailable = policy("unavailable,5xx", 1);
    let none = HeaderMap::new();
    let cases = [
        (status(503, &none), true, "HTTP 503 is UNAVAILABLE"),
        (status(429, &none), true, "so is 429"),
        (status(500, &none), false, "500 is UNKNOWN, and `5xx` says nothing of gRPC"),
        (status(200, &none), false, "a response that began is for good"),
        (Outcome::Failed(Failure::Connect), true, "no connection"),
        (Outcome::Failed(Failure::Reset { code: None }), true, "a lost connection"),
        (Outcome::Failed(Failure::Reset { code: Some(7) }), true, "REFUSED_STREAM"),
        (Outcome::Failed(Failure::Reset { code: Some(2) }), false, "INTERNAL_ERROR is INTERNAL"),
        (Outcome::Failed(Failure::Reset { code: Some(8) }), false, "CANCEL is CANCELLED"),
        (Outcome::Failed(Failure::Refusal), false, "drops and circuit breakers are never retried"),
    ];
    for (outcome, expected, why) in cases {
        assert_eq!(is_grpc_retriable(&unavailable, &outcome), expected, "{why}");
    }
}

#[test]
fn a_rate_limited_answer_is_retried_only_on_request() {
    let limited = headers(&[("x-envoy-ratelimited", "true")]);
    for (on, code, expected) in [
        ("5xx", 503, false),
        ("envoy-ratelimited", 503, true),
        ("envoy-ratelimited", 200, true),
        ("5xx,envoy-ratelimited", 200, true),
    ] {
        assert_eq!(is_http_retriable(&policy(on, 1), &status(code, &limited)), expected, "{on} on {code}");
    }
}

#[test]
fn codes_and_headers_of_the_policy_count_only_when_named() {
    let yes = HeaderMatch {
        name: MatchName::Header(HeaderName::from_static("x-retry")),
        test: HeaderTest::String(StringMatch { pattern: Pattern::Exact("yes".into()), ignore_case: false }),
        invert: false,
        treat_missing_as_empty: false,
    };
    let with = |on: &str, invert| RetryPolicy {
        status_codes: vec![StatusCode::IM_A_TEAPOT],
        retriable_headers: vec![HeaderMatch { invert, ..yes.clone() }],
        ..policy(on, 1)
    };
    let (yes, no, none) = (headers(&[("x-retry", "yes")]), headers(&[("x-retry", "no")]), HeaderMap::new());
    assert!(is_http_retriable(&with("retriable-status-codes", false), &status(418, &none)));
    assert!(!is_http_retriable(&with("retriable-status-codes", false), &status(503, &none)));
    assert!(!is_http_retriable(&with("5xx", false), &status(418, &none)));
    assert!(is_http_retriable(&with("retriable-headers", false), &status(200, &yes)));
    assert!(!is_http_retriable(&with("retriable-headers", false), &status(200, &no)));
    assert!(!is_http_retriable(&with("5xx", false), &status(200, &yes)));
    assert!(is_http_retriable(&with("retriable-headers", true), &status(200, &no)));
    assert!(!is_http_retriable(&with("retriable-headers", true), &status(200, &none)), "absent matches neither way");
}

#[test]
fn a_policy_can_ask_for_certain_requests() {
    let get_only = HeaderMatch {
        name: MatchName::Method,
        test: HeaderTest::String(StringMatch { pattern: Pattern::Exact("GET".into()), ignore_case: false }),
        invert: false,
        treat_missing_as_empty: false,
    };
    let none = HeaderMap::new();
    for (method, expected) in [(Method::GET, true), (Method::POST, false)] {
        let policy = RetryPolicy { retriable_request_headers: vec![get_only.clone()], ..policy("5xx", 1) };
        let mut attempts = attempts_on(policy, false, &method, &none);
        assert_eq!(attempts.may_retry(), expected);
        assert_eq!(matches!(attempts.next(&status(503, &none), NOW), Next::Retry(_)), expected, "{method}");
    }
}

/// How many attempts a call makes when each ends alike.
fn count(mut attempts: Attempts, outcome: &Outcome<'_>) -> (u32, Stop) {
    for made in 1.. {
        if let Next::Stop(stop) = attempts.next(outcome, NOW) {
            return (made, stop);
        }
    }
    unreachable!("attempts are counted")
}

/// gRFC A6.
#[test]
fn attempts_end() {
    let none = HeaderMap::new();
    let grpc = headers(&[("grpc-status", "14")]);
    for (num_retries, http, rpc) in [(0, 1, 1), (1, 2, 2), (4, 5, 5), (5, 6, 5), (100, 101, 5)] {
        let made = count(attempts(policy("5xx", num_retries), false), &status(503, &none));
        assert_eq!(made, (http, Stop::Exhausted), "HTTP, {num_retries} retries");
        let made = count(attempts(policy("unavailable", num_retries), true), &status(200, &grpc));
        assert_eq!(made, (rpc, Stop::Exhausted), "gRPC, {num_retries} retries: five attempts at most");
    }
    assert_eq!(count(attempts(policy("reset", 3), false), &status(503, &none)), (1, Stop::NotRetriable));
}

/// gRFC A6.
#[test]
fn what_was_never_seen_is_repeated_without_a_policy() {
    let nothing = HeaderMap::new();
    let mut attempts = attempts_on(policy("", 0), false, &Method::POST, &nothing);
    for failure in [Failure::Connect, Failure::BeforeRequest, Failure::Refused] {
        assert_eq!(attempts.next(&Outcome::Failed(failure), NOW), Next::Transparent, "{failure:?}");
    }
    let refused = Outcome::Failed(Failure::Refused);
    assert_eq!(attempts.next(&refused, NOW), Next::Stop(Stop::NotRetriable), "a refusal once only");
    assert_eq!(attempts.retries(), 0, "these do not count");
    let reset = Outcome::Failed(Failure::Reset { code: None });
    assert_eq!(attempts.next(&reset, NOW), Next::Stop(Stop::NotRetriable), "the server may have seen it");
    let (made, stop) = count(attempts, &Outcome::Failed(Failure::BeforeRequest));
    assert!(made < 100 && stop == Stop::NotRetriable, "no tight loop: {made}");
}

/// gRFC A6.
#[test]
fn a_server_can_push_back() {
    let none = [("grpc-status", "14")];
    let after = |millis: &'static str| headers(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", millis)]);
    let mut attempts = attempts(policy("unavailable", 4), true);
    let plain = headers(&none);
    let delay = |next| match next {
        Next::Retry(delay) => delay,
        other => panic!("{other:?}"),
    };
    assert_eq!(delay(attempts.next(&status(200, &plain), NOW)), Duration::from_millis(20), "25 ms less 20 %");
    assert_eq!(delay(attempts.next(&status(200, &plain), NOW)), Duration::from_millis(40));
    let asked = after("700");
    assert_eq!(delay(attempts.next(&status(200, &asked), NOW)), Duration::from_millis(700), "exactly as asked");
    assert_eq!(delay(attempts.next(&status(200, &plain), NOW)), Duration::from_millis(20), "backoff begins again");
    for never in ["-1", "x", ""] {
        let mut attempts = super::tests::attempts(policy("unavailable", 4), true);
        let headers = after(never);
        assert_eq!(attempts.next(&status(200, &headers), NOW), Next::Stop(Stop::PushedBack), "{never:?}");
    }
}

/// gRFC A6.
#[test]
fn a_grpc_server_is_told_of_earlier_attempts() {
    let unavailable = headers(&[("grpc-status", "14")]);
    let mut attempts = attempts(policy("unavailable", 2), true);
    let told = |attempts: &Attempts| {
        let mut headers = HeaderMap::new();
        attempts.tell_server(&mut headers);
        headers.get("grpc-previous-rpc-attempts").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(told(&attempts), None, "the first attempt says nothing");
    attempts.next(&Outcome::Failed(Failure::Connect), NOW);
    assert_eq!(told(&attempts), None, "transparent ones do not count");
    attempts.next(&status(200, &unavailable), NOW);
    assert_eq!(told(&attempts).as_deref(), Some("1"));
}

/// gRFC A6.
#[test]
fn backoff_doubles_to_its_maximum() {
    let backoff = Backoff { base: Duration::from_millis(25), max: Duration::from_millis(250) };
    for (nth, interval) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (40, 250), (u32::MAX, 250)] {
        let interval = Duration::from_millis(interval);
        for random in (0..200).map(mix).chain([0, u64::MAX]) {
            assert!(http_backoff(&backoff, nth, random) <= interval, "full jitter");
            let grpc = grpc_backoff(&backoff, nth, random);
            assert!(grpc >= interval.mul_f64(0.8) && grpc <= interval.mul_f64(1.2), "{grpc:?} of {interval:?}");
        }
    }
    assert_eq!(http_backoff(&backoff, 1, 0), Duration::ZERO);
    let mean: Duration = (0..2000).map(|n| http_backoff(&backoff, 3, mix(n))).sum::<Duration>() / 2000;
    assert!(mean.abs_diff(Duration::from_millis(50)) < Duration::from_millis(3), "{mean:?}");
    let endless = Backoff { base: Duration::MAX, max: Duration::MAX };
    let _ = grpc_backoff(&endless, 3, u64::MAX);
}

#[test]
fn a_response_can_say_when_to_come_back() {
    let reset = |name, format| ResetHeader { name: HeaderName::from_static(name), format };
    let policy = RateLimitedBackoff {
        reset_headers: vec![reset("retry-after", ResetFormat::Seconds), reset("x-reset", ResetFormat::UnixTimestamp)],
        max: Duration::from_secs(3),
    };
    let delay = |pairs: &[(&'static str, &str)], random| {
        reset_delay(&policy, &headers(pairs), Duration::from_secs(1000), random).map(|delay| delay.as_millis())
    };
    assert_eq!(delay(&[("retry-after", "1")], 0), Some(1000));
    assert_eq!(delay(&[("retry-after", "1")], u64::MAX / 2), Some(1250), "up to half as much again");
    assert_eq!(delay(&[("x-reset", "1002")], 0), Some(2000));
    assert_eq!(delay(&[("retry-after", "abc")], 0), None);
    assert_eq!(delay(&[("retry-after", "4")], 0), None, "longer than the maximum");
    assert_eq!(delay(&[("retry-after", "4"), ("x-reset", "1001")], 0), Some(1000), "the next header then");
    assert_eq!(delay(&[("x-reset", "999")], 0), None, "in the past");
    assert_eq!(delay(&[], 0), None);
    let mut attempts =
        attempts(RetryPolicy { rate_limited_backoff: Some(policy), ..super::tests::policy("5xx", 2) }, false);
    let after = headers(&[("retry-after", "1")]);
    assert_eq!(attempts.next(&status(503, &after), NOW), Next::Retry(Duration::from_secs(1)));
}

/// Amplification of `calls` calls that all fail and would all be retried once.
fn amplification(budget: &Arc<Budget>, limits: &CircuitBreakers, calls: u32) -> f64 {
    let mut sent = 0;
    for _ in 0..calls {
        budget.earn(limits);
        sent += 1;
        if budget.allow(limits, 1).is_some() {
            sent += 1;
        }
    }
    f64::from(sent) / f64::from(calls)
}

#[test]
fn the_default_bucket_keeps_retries_to_a_fifth() {
    let limits = CircuitBreakers::default();
    for calls in [30, 100, 1000, 100_000] {
        let budget = Arc::new(Budget::default());
        let got = amplification(&budget, &limits, calls);
        assert!(got <= 1.2 && got > 1.19 - 3.0 / f64::from(calls), "{calls} calls: {got}");
    }
    // A process that just started can retry.
    assert!(Arc::new(Budget::default()).allow(&limits, 1).is_some());
}

#[test]
fn a_long_quiet_time_does_not_pay_for_a_storm() {
    let limits = CircuitBreakers::default();
    let budget = Arc::new(Budget::default());
    for _ in 0..1_000_000 {
        budget.earn(&limits);
    }
    let retries = (0..1000).filter(|_| budget.allow(&limits, 1).is_some()).count();
    assert_eq!(retries, 10);
}

#[test]
fn an_xds_budget_counts_retries_as_active_requests() {
    let budget_of = |percent: u32, min_concurrency| CircuitBreakers {
        retry_budget: Some(RetryBudget { millionths: percent * 10_000, min_concurrency }),
        ..CircuitBreakers::default()
    };
    let limits = budget_of(20, 3);
    let budget = Arc::new(Budget::default());
    // 400 first attempts are under way; retries join the active requests until the budget says stop.
    let mut permits = Vec::new();
    while let Some(permit) = budget.allow(&limits, 400 + permits.len() as u32) {
        permits.push(permit);
    }
    assert_eq!(permits.len(), 99, "one less than 20 % of 500: under 1.25 attempts per request");
    drop(permits);
    assert_eq!(budget.active(), 0);
    let few: Vec<_> = std::iter::from_fn(|| budget.allow(&limits, 1)).collect();
    assert_eq!(few.len(), 3, "min_retry_concurrency");
}

#[test]
fn max_retries_limits_what_is_under_way() {
    let limits = CircuitBreakers { max_retries: Some(2), ..CircuitBreakers::default() };
    let budget = Arc::new(Budget::default());
    let first = budget.allow(&limits, 100).unwrap();
    let _second = budget.allow(&limits, 100).unwrap();
    assert!(budget.allow(&limits, 100).is_none());
    drop(first);
    assert!(budget.allow(&limits, 100).is_some());
    let none = CircuitBreakers { max_retries: Some(0), ..CircuitBreakers::default() };
    assert!(Arc::new(Budget::default()).allow(&none, 100).is_none());
}
