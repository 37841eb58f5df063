//! Which bucket a request takes from.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::*;
use crate::model::matcher::MatchName;
use crate::model::{Fraction, HostRules, LimitAction, LimitDescriptor, LimitRule, LocalRateLimit, TokenBucket};
use crate::route::RequestFacts;
use crate::route::format::FormatFacts;

const HOUR: Duration = Duration::from_secs(3600);

fn holds(max: u32) -> TokenBucket {
    TokenBucket { max, per_fill: 1, interval: HOUR }
}

/// Keys and values, and what the bucket holds.
type Limited<'a> = (&'a [(&'a str, Option<&'a str>)], u32);

fn policy(default: Option<u32>, descriptors: &[Limited<'_>]) -> LocalRateLimit {
    let entry = |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
    let descriptors = descriptors.iter().map(|(entries, max)| LimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        bucket: holds(*max),
        shadow: false,
    });
    LocalRateLimit {
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: default.map(holds),
        enabled: Fraction::ALWAYS,
        enforced: Fraction::ALWAYS,
        headers: Default::default(),
        descriptors: descriptors.collect(),
        stage: 0,
        host_rules: HostRules::Override,
        always_default: true,
        say_what_is_left: false,
        resource_exhausted: false,
        rules: Vec::new(),
        most_dynamic: 2,
    }
}

fn said(entries: &[(&str, &str)]) -> Vec<Descriptor> {
    vec![entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()]
}

fn count(limiter: &Limiter, descriptors: &[Descriptor], now: Instant) -> usize {
    (0..100).filter(|_| limiter.judge(descriptors, now).allowed).count()
}

#[test]
fn requests_take_from_their_own_bucket_and_from_the_one_for_all() {
    let now = Instant::now();
    let limits = policy(Some(5), &[(&[("user", Some("bob"))], 1), (&[("user", Some("ann"))], 3)]);
    let limiter = Limiter::new(&limits, now);
    assert_eq!(count(&limiter, &said(&[("user", "bob")]), now), 1);
    assert_eq!(count(&limiter, &said(&[("user", "ann")]), now), 3);
    assert_eq!(count(&limiter, &said(&[("user", "eve")]), now), 1, "what bob and ann have left of it");
    assert_eq!(count(&limiter, &[], now), 0);
}

#[test]
fn the_bucket_for_all_may_be_for_the_others_only() {
    let now = Instant::now();
    let limits = LocalRateLimit { always_default: false, ..policy(Some(2), &[(&[("user", Some("ann"))], 3)]) };
    let limiter = Limiter::new(&limits, now);
    assert_eq!(count(&limiter, &said(&[("user", "ann")]), now), 3);
    assert_eq!(count(&limiter, &said(&[("user", "eve")]), now), 2);
    let none = Limiter::new(&policy(None, &[]), now);
    assert_eq!(count(&none, &[], now), 100, "no bucket is no limit");
}

#[test]
fn a_descriptor_is_for_requests_that_are_described_just_so() {
    let now = Instant::now();
    let limiter = Limiter::new(&policy(None, &[(&[("a", Some("1")), ("b", Some("2"))], 0)]), now);
    for other in
        [&[("a", "1")][..], &[("b", "2"), ("a", "1")], &[("a", "1"), ("b", "2"), ("c", "3")], &[("a", "1"), ("b", "3")]]
    {
        assert!(limiter.judge(&said(other), now).allowed, "{other:?}");
    }
    assert!(!limiter.judge(&said(&[("a", "1"), ("b", "2")]), now).allowed);
}

#[test]
fn each_value_of_an_open_entry_has_its_own_bucket() {
    let now = Instant::now();
    let limiter = Limiter::new(&policy(None, &[(&[("peer", None)], 3)]), now);
    for peer in ["spiffe://a/one", "spiffe://a/two"] {
        assert_eq!(count(&limiter, &said(&[("peer", peer)]), now), 3, "{peer}");
    }
}

#[test]
fn who_makes_up_values_pushes_nobody_out_who_has_less_left() {
    let now = Instant::now();
    let limiter = Limiter::new(&policy(None, &[(&[("peer", None)], 10)]), now);
    assert_eq!(count(&limiter, &said(&[("peer", "tenant")]), now), 10);
    for number in 0..50 {
        assert!(limiter.judge(&said(&[("peer", &format!("made up {number}"))]), now).allowed);
    }
    assert_eq!(count(&limiter, &said(&[("peer", "tenant")]), now), 0, "its empty bucket is still there");
}

#[test]
fn a_shadow_refuses_nobody_and_says_what_is_left() {
    let now = Instant::now();
    let mut limits = policy(None, &[(&[("a", Some("1"))], 1)]);
    limits.descriptors[0].shadow = true;
    let limiter = Limiter::new(&limits, now);
    let left = |judged: Judgement| judged.left.map(|left| (left.limit, left.remaining));
    assert_eq!(left(limiter.judge(&said(&[("a", "1")]), now)), Some((1, 0)));
    assert!(limiter.judge(&said(&[("a", "1")]), now).allowed);
}

fn header(name: &str, key: &str, skip_if_absent: bool) -> LimitAction {
    LimitAction::Header { name: MatchName::Header(name.parse().unwrap()), key: key.into(), skip_if_absent }
}

fn describe_by(actions: Vec<LimitAction>) -> Vec<Descriptor> {
    let headers: HeaderMap =
        [("x-user", "bob")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).into_iter().collect();
    let request = RequestFacts {
        method: &Method::GET,
        scheme: "http",
        authority: "a",
        path: "/x?q=7",
        headers: &headers,
        is_grpc: false,
        tls: None,
        source_ip: Some([10, 1, 2, 3].into()),
        is_internal: false,
        channel_id: 0,
        metadata: None,
    };
    let facts = FormatFacts { request, version: Version::HTTP_11, remote: None, local: None, peer: None, status: None };
    let limits =
        LocalRateLimit { rules: vec![LimitRule { stage: 0, actions }], ..policy(None, &[(&[("x", None)], 1)]) };
    describe(&limits, Rules::default(), &facts, Some("blue"))
}

#[test]
fn actions_describe_a_request_and_one_that_cannot_describes_nothing() {
    let generic = |value, default: &str| LimitAction::Generic {
        key: "generic_key".into(),
        value: HeaderValue::from_static(value),
        default: default.into(),
    };
    let query = |name: &str| LimitAction::Query { name: name.into(), key: "q".into(), skip_if_absent: false };
    let rows: Vec<(LimitAction, Option<(&str, &str)>)> = vec![
        (LimitAction::DestinationCluster, Some(("destination_cluster", "blue"))),
        (header("x-user", "user", false), Some(("user", "bob"))),
        (header("x-none", "user", false), None),
        (LimitAction::RemoteAddress, Some(("remote_address", "10.1.2.3"))),
        (LimitAction::MaskedRemoteAddress { v4: 16, v6: 64 }, Some(("masked_remote_address", "10.1.0.0/16"))),
        (generic("fixed", ""), Some(("generic_key", "fixed"))),
        (generic("u-%REQ(x-user)%", ""), Some(("generic_key", "u-bob"))),
        (generic("%DOWNSTREAM_PEER_URI_SAN%", "nobody"), Some(("generic_key", "nobody"))),
        (query("q"), Some(("q", "7"))),
        (query("z"), None),
    ];
    for (action, want) in rows {
        let got = describe_by(vec![action.clone()]);
        assert_eq!(got, want.map(|entry| said(&[entry])).unwrap_or_default(), "{action:?}");
    }
    let skipped = describe_by(vec![header("x-none", "a", true), header("x-user", "user", false)]);
    assert_eq!(skipped, said(&[("user", "bob")]));
    assert!(describe_by(vec![header("x-none", "a", true)]).is_empty(), "nothing is left to be described by");
}

#[test]
fn rules_of_the_virtual_host_count_where_the_route_has_none_or_asks_for_both() {
    let headers = HeaderMap::new();
    let request = RequestFacts {
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
    let facts = FormatFacts { request, version: Version::HTTP_11, remote: None, local: None, peer: None, status: None };
    let rule = |value, stage| LimitRule {
        stage,
        actions: vec![LimitAction::Generic {
            key: "k".into(),
            value: HeaderValue::from_static(value),
            default: String::new(),
        }],
    };
    let (route, host) = ([rule("route", 0), rule("later", 1)], [rule("host", 0)]);
    let both = Rules { route: &route, host: &host, include_host: false };
    let run = |host_rules, rules| {
        let limits = LocalRateLimit { host_rules, ..policy(None, &[(&[("k", None)], 1)]) };
        let all = describe(&limits, rules, &facts, None);
        all.into_iter().map(|mut one| one.remove(0).1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(run(HostRules::Override, both), "route");
    assert_eq!(run(HostRules::Override, Rules { route: &[], ..both }), "host");
    assert_eq!(run(HostRules::Include, both), "route host");
    assert_eq!(run(HostRules::Ignore, Rules { route: &[], ..both }), "");
    assert_eq!(run(HostRules::Ignore, Rules { include_host: true, ..both }), "route host");
}
