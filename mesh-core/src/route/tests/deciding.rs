//! Routes, weights and reasons.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, StatusCode};

use super::*;
use crate::model::matcher::MatchName;
use crate::model::{
    ByteRegex, DirectResponse, Fraction, HashPolicy, HashSource, HeaderMatch, HeaderTest, WeightedCluster,
    WeightedClusters,
};
use crate::route::{NoDecision, RouteIndex, WeightedPick};

fn index(routes: Vec<Arc<Route>>) -> RouteIndex {
    RouteIndex::new(Arc::new(table(vec![host("all", &["*"], routes)])))
}

fn prefix(path: &str) -> RouteMatch {
    at(PathMatch::Prefix(path.into()))
}

fn taken(index: &RouteIndex, request: &Request, random: u64) -> String {
    match index.decide(&request.authority, &request.facts(), random) {
        Ok(decision) => decision.cluster.map_or_else(|| decision.route.name.to_string(), |c| c.name.to_string()),
        Err(why) => why.to_string(),
    }
}

/// gRFC A28.
#[test]
fn the_first_route_that_matches_wins() {
    let index = index(vec![
        to("p-ab", prefix("/ab")),
        to("regex", at(PathMatch::Regex(ByteRegex::new("/a[c-d]").unwrap()))),
        to("p-a", prefix("/a")),
        to("x-abc", at(PathMatch::Exact("/abc".into()))),
        to("folded", RouteMatch { case_sensitive: false, ..at(PathMatch::Exact("/B".into())) }),
        to("all", prefix("/")),
    ]);
    for (path, expected) in
        [("/abc", "p-ab"), ("/a", "p-a"), ("/ac", "regex"), ("/b", "folded"), ("/B?x", "folded"), ("/c", "all")]
    {
        assert_eq!(taken(&index, &Request::get(path), 0), expected, "{path}");
    }
}

#[test]
fn a_virtual_host_does_not_fall_through_to_another() {
    let hosts =
        vec![host("one", &["one.test"], vec![to("a", prefix("/a"))]), host("star", &["*"], vec![to("s", prefix(""))])];
    let index = RouteIndex::new(Arc::new(table(hosts)));
    let request = Request { authority: "one.test".into(), ..Request::get("/b") };
    let why = index.decide("one.test", &request.facts(), 0).unwrap_err();
    assert!(matches!(why, NoDecision::NoRoute { ref host } if &*host.name == "one"), "{why:?}");
    // The virtual host of a fixed target does not depend on the request's authority.
    let decision = index.decide("other.test", &request.facts(), 0).unwrap();
    assert_eq!(&*decision.host.name, "star");
}

#[test]
fn actions_other_than_forwarding_have_no_cluster() {
    let direct = Action::Direct(DirectResponse { status: StatusCode::OK, body: "hi".into() });
    let index = index(vec![route("direct", any_path(), direct)]);
    let request = Request::get("/");
    let decision = index.decide("x", &request.facts(), 0).unwrap();
    assert_eq!(&*decision.route.name, "direct");
    assert_eq!(decision.cluster, None);
}

fn weighted(weights: &[u32], random_header: Option<&'static str>, use_hash: bool) -> WeightedClusters {
    let entry = |(number, weight): (usize, &u32)| WeightedCluster {
        header: None,
        name: ["a", "b", "c"][number].into(),
        weight: *weight,
        headers: HeaderMutations::default(),
        overrides: FilterOverrides::default(),
        metadata_match: None,
        host_rewrite: None,
    };
    WeightedClusters {
        clusters: weights.iter().enumerate().map(entry).collect(),
        total: weights.iter().sum(),
        random_header: random_header.map(HeaderName::from_static),
        use_hash,
    }
}

fn weighted_route(weighted: WeightedClusters) -> Arc<Route> {
    let choice = ClusterChoice::Weighted(Arc::new(weighted));
    route("w", any_path(), Action::Forward(Box::new(forward(choice))))
}

/// gRFC A28.
#[test]
fn weights_share_the_dice() {
    let index = index(vec![weighted_route(weighted(&[33, 33, 34], None, false))]);
    let mut counts = BTreeMap::<String, u32>::new();
    for random in 0..1000 {
        *counts.entry(taken(&index, &Request::get("/"), random)).or_default() += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".into(), 330), ("b".into(), 330), ("c".into(), 340)]));
}

#[test]
fn a_header_can_replace_the_dice_as_in_envoy() {
    let index_of = |weights: &[u32]| index(vec![weighted_route(weighted(weights, Some("x-rand"), false))]);
    type Values = &'static [(&'static str, &'static str)];
    let cases: &[(&[u32], Values)] = &[
        (
            &[10, 90],
            &[("0", "a"), ("2", "a"), ("10", "b"), ("66", "b"), ("100", "a"), ("1999999999", "b"), ("007", "a")],
        ),
        (&[1, 1, 1], &[("1", "b"), ("9", "a"), ("32", "c"), ("99", "a"), ("18446744073709551615", "a")]),
        (&[33, 33, 34], &[("65", "b"), ("99", "c"), ("101", "a"), ("2000000000", "a")]),
        (&[2_000_000_000, 2_000_000_000], &[("1999999999", "a"), ("2000000000", "b"), ("4000000000", "a")]),
    ];
    for (weights, values) in cases {
        for (value, expected) in *values {
            let request = Request::get("/").with("x-rand", value);
            assert_eq!(taken(&index_of(weights), &request, 3), *expected, "{weights:?} {value}");
        }
    }
}

#[test]
fn a_header_that_is_no_single_number_leaves_it_to_the_dice() {
    let index = index(vec![weighted_route(weighted(&[1, 1], Some("x-rand"), false))]);
    let requests = [
        Request::get("/").with("x-rand", "-1"),
        Request::get("/").with("x-rand", "18446744073709551616"),
        Request::get("/").with("x-rand", "x"),
        Request::get("/").with("x-rand", ""),
        Request::get("/").with("x-rand", "1").with("x-rand", "1"),
        Request::get("/"),
    ];
    for request in requests {
        assert_eq!(taken(&index, &request, 0), "a", "{:?}", request.headers);
        assert_eq!(taken(&index, &request, 1), "b", "{:?}", request.headers);
    }
}

#[test]
fn the_hash_can_replace_the_dice() {
    let mut forward = forward(ClusterChoice::Weighted(Arc::new(weighted(&[1, 1], None, true))));
    let source = HashSource::Header { name: HeaderName::from_static("x-user"), rewrite: None };
    forward.hash = vec![HashPolicy { source, terminal: false }];
    let index = index(vec![route("w", any_path(), Action::Forward(Box::new(forward)))]);
    let decide = |request: &Request, random| taken(&index, request, random);
    let users: Vec<Request> = (0..20).map(|user| Request::get("/").with("x-user", user.to_string())).collect();
    assert!(users.iter().all(|user| decide(user, 0) == decide(user, 1)), "the dice do not count");
    assert!(users.iter().any(|user| decide(user, 0) != decide(&users[0], 0)), "users differ");
    assert_ne!(decide(&Request::get("/"), 0), decide(&Request::get("/"), 1), "without a hash they do count");
}

#[test]
fn a_cluster_can_come_from_a_header() {
    let choice = ClusterChoice::Header(HeaderName::from_static("x-c"));
    let index = index(vec![route("h", any_path(), Action::Forward(Box::new(forward(choice))))]);
    assert_eq!(taken(&index, &Request::get("/").with("x-c", "a"), 0), "a");
    for request in [Request::get("/"), Request::get("/").with("x-c", ""), Request::get("/").with("x-c", b"\xff")] {
        let why = index.decide("x", &request.facts(), 0).unwrap_err();
        assert!(matches!(why, NoDecision::NoClusterHeader { .. }), "{why:?}");
    }
}

/// The order of context parameters means nothing: it is the cluster that the routes may name already.
#[test]
fn a47_a_cluster_from_a_header_is_known_by_its_one_spelling() {
    let choice = ClusterChoice::Header(HeaderName::from_static("x-c"));
    let index = index(vec![route("h", any_path(), Action::Forward(Box::new(forward(choice))))]);
    let request = Request::get("/").with("x-c", "xdstp://a/envoy.config.cluster.v3.Cluster/x?b=2&a=1");
    assert_eq!(taken(&index, &request, 0), "xdstp://a/envoy.config.cluster.v3.Cluster/x?a=1&b=2");
}

#[test]
fn one_number_serves_all_fractions_in_http_and_each_has_its_own_in_grpc() {
    let half = |name| {
        let fraction = Some(Fraction { numerator: 50, denominator: 100 });
        to(name, RouteMatch { fraction, ..any_path() })
    };
    let index = index(vec![half("a"), half("b"), to("c", any_path())]);
    let shares = |request: &Request| {
        let mut counts = BTreeMap::<String, i32>::new();
        for random in (0..4000).map(crate::balance::mix) {
            *counts.entry(taken(&index, request, random)).or_default() += 1;
        }
        ["a", "b", "c"].map(|name| counts.get(name).copied().unwrap_or(0))
    };
    let [a, b, c] = shares(&Request::get("/"));
    assert!((a - 2000).abs() < 150 && b == 0 && (c - 2000).abs() < 150, "Envoy: {a} {b} {c}");
    let [a, b, c] = shares(&Request::get("/").grpc());
    assert!((a - 2000).abs() < 150 && (b - 1000).abs() < 150 && (c - 1000).abs() < 150, "gRPC: {a} {b} {c}");
}

#[test]
fn an_explanation_names_every_route_tried_and_why_not() {
    let wants_header = RouteMatch {
        headers: vec![HeaderMatch {
            name: MatchName::Header(HeaderName::from_static("x-canary")),
            test: HeaderTest::Present(true),
            invert: false,
            treat_missing_as_empty: false,
        }],
        ..any_path()
    };
    let index = index(vec![
        to("admin", prefix("/admin")),
        to("canary", wants_header),
        to("grpc", RouteMatch { grpc_only: true, ..any_path() }),
        weighted_route(weighted(&[1, 3], None, false)),
        to("never reached", any_path()),
    ]);
    let request = Request::get("/x");
    let explanation = index.explain("x", &request.facts(), 6);
    let reasons: Vec<(&str, Option<bool>)> = explanation
        .tried
        .iter()
        .zip(["/admin", "x-canary", "gRPC", ""])
        .map(|(tried, part)| (&*tried.route, tried.mismatch.as_ref().map(|reason| reason.contains(part))))
        .collect();
    assert_eq!(reasons, [("admin", Some(true)), ("canary", Some(true)), ("grpc", Some(true)), ("w", None)]);
    assert_eq!(&*explanation.host.unwrap().name, "all");
    let cluster = explanation.decision.unwrap().cluster.unwrap();
    assert_eq!(cluster.weighted, Some(WeightedPick { index: 1, drawn: 2, total: 4 }));
}

/// A request looks at a handful of a thousand routes; what it looks at is counted, as time is not for tests.
#[test]
fn a_large_table_costs_little() {
    let regex = |pattern: String| at(PathMatch::Regex(ByteRegex::new(&pattern).unwrap()));
    let mut routes: Vec<Arc<Route>> =
        (0..25).map(|n| to(&format!("r{n}"), regex(format!("/svc{n}/v[0-9]+/.*")))).collect();
    routes.extend((0..25).map(|n| to(&format!("l{n}"), regex(format!(".*/file{n}[.]html")))));
    routes.extend((0..475).map(|n| to(&format!("p{n}"), prefix(&format!("/svc{n}/api/")))));
    routes.extend((0..475).map(|n| to(&format!("x{n}"), at(PathMatch::Exact(format!("/pkg.S{n}/Method"))))));
    routes.push(to("all", prefix("/")));
    let hosts =
        (0..500).map(|n| host(&format!("h{n}"), &[&format!("h{n}.test"), &format!("*.h{n}.test")], routes.clone()));
    let index = RouteIndex::new(Arc::new(table(hosts.collect())));
    for (path, expected, most) in [
        ("/svc7/api/x", "p7", 3),
        ("/svc7/v1/x", "r7", 1),
        ("/pkg.S474/Method", "x474", 1),
        ("/pkg.S474/Other", "all", 1),
        ("/a/file24.html", "l24", 25),
        ("/nothing", "all", 1),
    ] {
        let request = Request::get(path);
        let mut tried = 0;
        let host = index.hosts.find("a.h499.test").unwrap();
        let found = index.paths[host].candidates(path.as_bytes(), |position| {
            tried += 1;
            routes[position].matches.mismatch(&request.facts(), 0).is_none().then_some(&*routes[position].name)
        });
        assert_eq!(found, Some(expected), "{path}");
        assert!(tried <= most, "{path}: {tried} routes tried");
    }
}

fn two_hosts(vhost_header: Option<&'static str>) -> RouteIndex {
    let hosts = vec![
        host("one", &["one.test"], vec![to("one", prefix("/"))]),
        host("star", &["*"], vec![to("star", prefix("/"))]),
    ];
    RouteIndex::new(Arc::new(RouteTable { vhost_header: vhost_header.map(HeaderName::from_static), ..table(hosts) }))
}

/// Envoy: the header's first value is the host; without the header there is none. gRPC knows only the authority.
#[test]
fn a_header_may_choose_the_virtual_host() {
    let index = two_hosts(Some("x-vhost"));
    let ask = |authority: &str, headers: &[(&str, &str)]| {
        let mut request = Request { authority: authority.into(), ..Request::get("/") };
        for (name, value) in headers {
            request = request.with(name, value);
        }
        taken(&index, &request, 0)
    };
    let none = NoDecision::NoVirtualHost.to_string();
    assert_eq!(ask("star.test", &[("x-vhost", "ONE.test")]), "one");
    assert_eq!(ask("one.test", &[("x-vhost", "two.test")]), "star");
    assert_eq!(ask("star.test", &[("x-vhost", "one.test"), ("x-vhost", "two.test")]), "one");
    assert_eq!(ask("one.test", &[("x-vhost", "")]), "star");
    assert_eq!(ask("one.test", &[]), none);
    let grpc = Request { authority: "one.test".into(), ..Request::get("/") }.grpc().with("x-vhost", "two.test");
    assert_eq!(taken(&index, &grpc, 0), "one");
    let hosts = vec![host("only", &["*"], vec![to("only", prefix("/"))])];
    let only = RouteIndex::new(Arc::new(RouteTable {
        vhost_header: Some(HeaderName::from_static("x-vhost")),
        ..table(hosts)
    }));
    assert_eq!(taken(&only, &Request::get("/"), 0), "only", "there is no other");
}

/// Envoy asks for TLS before it looks at routes; gRPC knows no such thing.
#[test]
fn a_virtual_host_may_require_tls() {
    use crate::model::TlsRequirement::{All, ExternalOnly, None as Nothing};
    let ask = |require_tls, request: &Request, scheme: &'static str, is_internal: bool| {
        let mut host = Arc::unwrap_or_clone(host("v", &["*"], vec![to("a", prefix("/"))]));
        host.require_tls = require_tls;
        let index = RouteIndex::new(Arc::new(table(vec![Arc::new(host)])));
        let facts = crate::route::RequestFacts { scheme, is_internal, ..request.facts() };
        matches!(index.decide("v", &facts, 0).unwrap().route.action, Action::RequireTls)
    };
    let plain = Request::get("/nowhere");
    let forwarded = |proto: &str| Request::get("/").with("x-forwarded-proto", proto);
    for required in [ExternalOnly, All] {
        assert!(ask(required, &Request::get("/"), "http", false));
        assert!(!ask(required, &Request::get("/"), "https", false));
        assert!(!ask(required, &forwarded("https"), "http", false), "the header says how it came");
        assert!(ask(required, &forwarded("http"), "https", false));
        assert_eq!(ask(required, &Request::get("/"), "http", true), required == All, "an internal caller");
        assert!(!ask(required, &Request::get("/").grpc(), "http", false));
    }
    assert!(ask(All, &plain, "http", false), "whether or not a route takes it");
    assert!(!ask(Nothing, &Request::get("/"), "http", false));
}
