//! Request hashes, seen through a ring: which of five endpoints Envoy 1.40 sends each request to.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::*;
use crate::balance::{Candidate, CandidateState, Pick, PickInput, Picker, PolicyConfig, RingHashConfig};
use crate::model::{ByteRegex, Endpoint, HashPolicy, HashSource, Health, Locality, RegexRewrite};
use crate::route::hash::{RequestHash, hash_of, join, request_hash};

fn header(name: &'static str) -> HashPolicy {
    let source = HashSource::Header { name: HeaderName::from_static(name), rewrite: None };
    HashPolicy { source, terminal: false }
}

fn ring() -> Arc<dyn Picker> {
    let candidates: Vec<Arc<Candidate>> = (0..5)
        .map(|number| {
            let hash_key = serde_json::json!({ "hash_key": format!("host-{number}") });
            let state = Arc::new(CandidateState::default());
            state.set_ready();
            let endpoint = Endpoint {
                address: ([127, 0, 0, 1], number).into(),
                additional: Vec::new(),
                weight: 1,
                health: Health::Healthy,
                hostname: "".into(),
                metadata: BTreeMap::from([("envoy.lb".into(), hash_key)]),
            };
            let locality = Arc::new(Locality::default());
            Arc::new(Candidate {
                endpoint: Arc::new(endpoint),
                locality,
                priority: 0,
                locality_weight: 1,
                state,
                observer: None,
            })
        })
        .collect();
    RingHashConfig::default().build(&candidates, None, 0)
}

fn endpoint(ring: &Arc<dyn Picker>, policies: &[HashPolicy], facts: &RequestFacts<'_>) -> usize {
    let hash = request_hash(policies, facts).value;
    assert!(hash.is_some(), "{policies:?} on {facts:?}");
    let input = PickInput { hash, tried: &[], override_host: None, metadata: None, random: 0 };
    match ring.pick(&input) {
        Pick::Candidate(index) => index,
        other => panic!("{other:?}"),
    }
}

/// gRFC A42.
#[test]
fn hashes_agree_with_envoy() {
    let ring = ring();
    let policy = |source| HashPolicy { source, terminal: false };
    let rewrite = RegexRewrite { pattern: ByteRegex::new("^user-(.*)$").unwrap(), substitution: r"\1".into() };
    let rewritten = policy(HashSource::Header { name: HeaderName::from_static("x-key"), rewrite: Some(rewrite) });
    let cookie = policy(HashSource::Cookie { name: "u".into(), ttl: None, path: String::new() });
    let query = policy(HashSource::Query("k".into()));
    let terminal = HashPolicy { terminal: true, ..header("x-a") };
    let get = Request::get;
    let cases: Vec<(Vec<HashPolicy>, Request, usize)> = vec![
        (vec![header("x-key")], get("/").with("x-key", "a"), 2),
        (vec![header("x-key")], get("/").with("x-key", ""), 0),
        (vec![header("x-key")], get("/").with("x-key", "x").with("x-key", "y"), 3),
        (vec![header("x-key")], get("/").with("x-key", "y").with("x-key", "x"), 3),
        (vec![header("x-key")], get("/").with("x-key", "x,y"), 2),
        (vec![rewritten.clone()], get("/").with("x-key", "user-1"), 2),
        (vec![rewritten.clone()], get("/").with("x-key", "user-2"), 3),
        (vec![rewritten], get("/").with("x-key", "other"), 2),
        (vec![query.clone()], get("/?k=2"), 3),
        (vec![query.clone()], get("/?j=1&k=1"), 2),
        (vec![query], get("/?K=1&k=2"), 3),
        (vec![cookie.clone()], get("/").with("cookie", "u=2"), 3),
        (vec![cookie.clone()], get("/").with("cookie", "u=\"1\""), 2),
        (vec![cookie], get("/").with("cookie", "xu=2; u=1"), 2),
        (vec![header("x-a"), header("x-b")], get("/").with("x-a", "1").with("x-b", "2"), 3),
        (vec![header("x-a"), header("x-b")], get("/").with("x-a", "1").with("x-b", "3"), 1),
        (vec![header("x-a"), header("x-b")], get("/").with("x-a", "1"), 2),
        (vec![terminal.clone(), header("x-b")], get("/").with("x-a", "2").with("x-b", "1"), 3),
        (vec![terminal, header("x-b")], get("/").with("x-b", "2"), 3),
    ];
    for (policies, request, expected) in &cases {
        assert_eq!(endpoint(&ring, policies, &request.facts()), *expected, "{policies:?} on {:?}", request.headers);
    }
    let request = get("/");
    let facts = RequestFacts { source_ip: Some(IpAddr::from([127, 0, 0, 1])), ..request.facts() };
    assert_eq!(endpoint(&ring, &[policy(HashSource::SourceIp)], &facts), 2);
}

#[test]
fn hashes_are_joined_by_rotating() {
    assert_eq!(join(None, None), None);
    assert_eq!(join(None, Some(5)), Some(5));
    assert_eq!(join(Some(5), None), Some(5));
    assert_eq!(join(Some(1 << 63), Some(2)), Some(3), "rotl64(h, 1) ^ h' (gRFC A42)");
}

/// gRFC A42.
#[test]
fn grpc_hashes_headers_and_the_channel_only() {
    let request = Request::get("/?k=1").with("cookie", "u=1").with("x-bin", "AA").with("x-key", "a").grpc();
    let policy = |source| [HashPolicy { source, terminal: false }];
    let hash = |policies: &[HashPolicy]| request_hash(policies, &request.facts()).value;
    assert_eq!(hash(&policy(HashSource::Query("k".into()))), None);
    assert_eq!(hash(&policy(HashSource::Cookie { name: "u".into(), ttl: None, path: String::new() })), None);
    assert_eq!(hash(&policy(HashSource::SourceIp)), None);
    assert_eq!(hash(&[header("x-bin")]), None, "binary metadata is not there");
    assert_eq!(hash(&[header("x-key")]), Some(hash_of(b"a")));
    assert_eq!(hash(&policy(HashSource::ChannelId)), Some(77));
}

#[test]
fn a_missing_cookie_with_a_life_is_to_be_made_up() {
    let ttl = Duration::from_secs(60);
    let source = HashSource::Cookie { name: "u".into(), ttl: Some(ttl), path: "/p".into() };
    let policies = [HashPolicy { source, terminal: false }];
    let missing = Request::get("/");
    let RequestHash { value, missing_cookie } = request_hash(&policies, &missing.facts());
    let cookie = missing_cookie.expect("it is missing");
    assert_eq!((value, cookie.name, cookie.ttl, cookie.path), (None, "u", ttl, "/p"));
    let there = Request::get("/").with("cookie", "u=1");
    assert_eq!(request_hash(&policies, &there.facts()).missing_cookie, None);
}
