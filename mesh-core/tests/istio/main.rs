//! What a real istiod sent, and what each resource became. `client.txt` went to a gRPC client, `server.txt` to a gRPC server
//! under several policies: proto-JSON, one resource after another under a `#####` line for each response.
#![cfg(feature = "file")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::balance::{RingHashConfig, RoundRobinConfig, WrrLocality};
use mesh_core::decode::{DecodeResource, Decoded, Decoder, FaultFilter, Registry};
use mesh_core::model::matcher::MatchName;
use mesh_core::model::{
    Action, AppendAction, CertificateRef, Cluster, ClusterChoice, DiscoveryKind, Domain, Endpoints, FaultDelayAmount,
    FaultOutcome, FaultPolicy, FilterOverride, Forward, Fraction, HashSource, HeaderTest, Health, HostRewrite,
    HttpFilter, Listener, ListenerKind, Name, PathMatch, PathRewrite, Pattern, QueryTest, Rbac, RbacAction, RbacRules,
    RetryOn, RouteSource, RouteTable, SanMatch, StringMatch, TrustRoots, UnsupportedEffect,
};
use mesh_core::policy::rbac::RbacFacts;
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};
use mesh_core::route::RequestFacts;
use mesh_core::source::file::resource_from_json;

const CLIENT: &str = include_str!("client.txt");
const SERVER: &str = include_str!("server.txt");

/// istiod's own bootstrap has one provider, `default`.
fn decoder() -> Decoder {
    Decoder::new(Arc::new(Registry::standard()), [Name::from("default")])
}

/// Every resource of a capture, decoded, by type and name.
fn decode(capture: &str) -> BTreeMap<(Name, Name), Decoded> {
    let decoder = decoder();
    let mut all = BTreeMap::new();
    for response in capture.split("##### ").skip(1) {
        let (_head, resources) = response.split_once('\n').expect("a response has a head");
        for json in serde_json::Deserializer::from_str(resources).into_iter() {
            let json: serde_json::Value = json.expect("the capture is JSON");
            let encoded = resource_from_json(&json).expect("the capture is proto-JSON");
            let decoded = decoder.decode(&encoded.key.type_url, &encoded.bytes);
            let before = all.insert((encoded.key.type_url, encoded.key.name), decoded);
            assert!(before.is_none(), "the same resource twice");
        }
    }
    all
}

fn client<T: Send + Sync + 'static>(type_url: &str, name: &str) -> Arc<T> {
    match &decode(CLIENT)[&(type_url.into(), name.into())] {
        Decoded::Ok { value, .. } => value.clone().downcast().expect("the model of another type"),
        Decoded::Err { faults, .. } => panic!("{name}: {faults:?}"),
    }
}

#[test]
fn everything_that_a_client_got_is_taken() {
    let mut counts: BTreeMap<Name, usize> = BTreeMap::new();
    for ((type_url, name), decoded) in decode(CLIENT) {
        match decoded {
            Decoded::Ok { name: found, .. } => assert_eq!(found, name),
            Decoded::Err { faults, .. } => panic!("{type_url} {name}: {faults:?}"),
        }
        *counts.entry(type_url).or_default() += 1;
    }
    let counts: Vec<(&str, usize)> = counts.iter().map(|(type_url, count)| (&**type_url, *count)).collect();
    assert_eq!(counts, [(CLUSTER, 4), (CLUSTER_LOAD_ASSIGNMENT, 3), (LISTENER, 11), (ROUTE_CONFIGURATION, 1)]);
}

#[test]
fn a_listener_became_a_client_with_faults_and_routes_over_rds() {
    for (name, routes) in [
        ("echo:80", "outbound|80||echo.default.svc.cluster.local"),
        ("echo.default.svc.cluster.local:7070", "outbound|7070||echo.default.svc.cluster.local"),
        ("api.example.com:443", "outbound|443||api.example.com"),
    ] {
        let listener: Arc<Listener> = client(LISTENER, name);
        let ListenerKind::Client(http) = &listener.kind else { panic!("{listener:?}") };
        assert!(matches!(&http.routes, RouteSource::Rds(found) if &**found == routes), "{:?}", http.routes);
        let [fault] = &http.filters[..] else { panic!("{:?}", http.filters) };
        assert_eq!((&*fault.name, &*fault.type_url), ("envoy.filters.http.fault", FaultFilter::TYPE_URL));
        let config = (&*fault.config as &dyn std::any::Any).downcast_ref::<FaultPolicy>().expect("it is one");
        assert!(config.is_inert(), "faults come with routes");
        assert!(http.unsupported.is_empty(), "{:?}", http.unsupported);
    }
}

fn routes() -> Arc<RouteTable> {
    client(ROUTE_CONFIGURATION, "outbound|80||echo.default.svc.cluster.local")
}

fn forward(action: &Action) -> &Forward {
    match action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch { pattern: Pattern::Exact(text.to_owned()), ignore_case: false }
}

#[test]
fn the_virtual_hosts_became_their_domains() {
    let table = routes();
    let [echo, api] = &table.virtual_hosts[..] else { panic!("{table:?}") };
    let domain = |name: &str| Domain::Exact(name.to_owned());
    assert_eq!((echo.domains.len(), &echo.domains[2]), (10, &domain("echo")));
    assert_eq!(api.domains, [domain("api.example.com"), domain("api.example.com:80")]);
    assert!(echo.request_attempt_count && !echo.response_attempt_count);
    assert_eq!((echo.routes.len(), api.routes.len()), (3, 1));
}

#[test]
fn the_canary_route_became_everything_it_asks_for() {
    let table = routes();
    let route = &table.virtual_hosts[0].routes[0];
    assert_eq!(&*route.name, "canary");
    assert_eq!(route.matches.path, PathMatch::Prefix("/foo".to_owned()));
    assert!(route.matches.case_sensitive);
    assert_eq!(route.matches.headers[0].name, MatchName::Header(http::HeaderName::from_static("x-canary")));
    assert_eq!(route.matches.headers[0].test, HeaderTest::String(exact("1")));
    assert_eq!((&*route.matches.query[0].name, &route.matches.query[0].test), ("q", &QueryTest::String(exact("a"))));
    let forward = forward(&route.action);
    let v2 = "outbound|80|v2|echo.default.svc.cluster.local";
    assert!(matches!(&forward.cluster, ClusterChoice::Cluster(name) if &**name == v2));
    assert_eq!(forward.path_rewrite, Some(PathRewrite::Prefix("/bar".to_owned())));
    assert_eq!(forward.host_rewrite, Some(HostRewrite::Literal("other.example".to_owned())));
    assert_eq!((forward.timeout, forward.max_stream_duration.max), (seconds(2), seconds(2)));
    assert!(matches!(&forward.hash[0].source, HashSource::Header { name, rewrite: None } if name == "x-user"));
    let cors = forward.cors.as_ref().expect("there is one");
    assert_eq!((&cors.allow_origins[0], &*cors.allow_methods), (&exact("https://x"), "GET"));
    let [mirror] = &forward.mirrors[..] else { panic!("{:?}", forward.mirrors) };
    assert_eq!(mirror.fraction, Fraction { numerator: 200_000, denominator: 1_000_000 });
    // `append: false` is the older spelling of "overwrite".
    assert_eq!(route.headers.request_append[0].action, AppendAction::OverwriteOrAdd);
    assert_eq!(route.headers.response_append[0].action, AppendAction::AppendOrAdd);
    assert_eq!(route.operation.as_deref(), Some("echo.default.svc.cluster.local:80/foo*"));
    assert!(route.metadata["istio"]["config"].as_str().expect("it is text").contains("virtual-service/echo"));
    // Whether the copies are traced apart is a side effect.
    let notes: Vec<(&str, UnsupportedEffect)> =
        route.unsupported.iter().map(|note| (note.field.as_str(), note.effect)).collect();
    let sampled = "virtual_hosts[0].routes[0].route.request_mirror_policies[0].trace_sampled";
    assert_eq!(notes, [(sampled, UnsupportedEffect::LeftOut)]);
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn its_retries_and_faults_became_policies() {
    let table = routes();
    let route = &table.virtual_hosts[0].routes[0];
    let retry = forward(&route.action).retry.clone().expect("there is one");
    let on = [RetryOn::FIVE_XX, RetryOn::RESET, RetryOn::GRPC_CANCELLED, RetryOn::RETRIABLE_STATUS_CODES];
    assert_eq!(retry.on, on.into_iter().fold(RetryOn::NONE, RetryOn::union));
    assert_eq!((retry.num_retries, retry.per_try_timeout), (3, Some(Duration::from_millis(500))));
    assert_eq!(retry.status_codes, [http::StatusCode::SERVICE_UNAVAILABLE]);
    assert!(retry.avoid_previous_hosts && retry.host_selection_attempts == 5);
    let FilterOverride::Config { config, .. } = &route.overrides["envoy.filters.http.fault"] else {
        panic!("{:?}", route.overrides)
    };
    let fault = (&**config as &dyn std::any::Any).downcast_ref::<FaultPolicy>().expect("it is one");
    let (delay, abort) = (fault.delay.expect("there is one"), fault.abort.expect("there is one"));
    assert_eq!(delay.amount, FaultDelayAmount::Fixed(Duration::from_secs(1)));
    assert_eq!(delay.share, Fraction { numerator: 100_000, denominator: 1_000_000 });
    assert_eq!(abort.outcome, FaultOutcome::Http(http::StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(abort.share, Fraction { numerator: 50_000, denominator: 1_000_000 });
}

#[test]
fn the_other_routes_became_a_redirect_a_split_and_a_default() {
    let table = routes();
    let [_, redirect, split] = &table.virtual_hosts[0].routes[..] else { panic!("{table:?}") };
    assert_eq!(redirect.matches.path, PathMatch::Exact("/redir".to_owned()));
    let Action::Redirect(to) = &redirect.action else { panic!("{redirect:?}") };
    assert_eq!((&to.path, to.status.as_u16()), (&Some(PathRewrite::Full("/new".to_owned())), 302));

    let forwarding = forward(&split.action);
    let ClusterChoice::Weighted(weighted) = &forwarding.cluster else { panic!("{split:?}") };
    let list: Vec<(&str, u32)> = weighted.clusters.iter().map(|it| (&*it.name, it.weight)).collect();
    let [v1, v2] = ["outbound|80|v1|echo.default.svc.cluster.local", "outbound|80|v2|echo.default.svc.cluster.local"];
    assert_eq!((list, weighted.total), (vec![(v1, 80), (v2, 20)], 100));
    assert_eq!((forwarding.timeout, forwarding.max_stream_duration.max), (seconds(0), seconds(0)), "no timeout");
    assert_eq!(forwarding.retry.as_ref().expect("istiod's default").num_retries, 2);

    let default = forward(&table.virtual_hosts[1].routes[0].action);
    assert!(matches!(&default.cluster, ClusterChoice::Cluster(name) if &**name == "outbound|80||api.example.com"));
    assert_eq!(default.max_stream_duration.grpc_header_max, seconds(0));
}

fn reference(certificate: &str) -> CertificateRef {
    CertificateRef { instance: "default".into(), certificate: certificate.into() }
}

fn policy<T: 'static>(policy: &dyn mesh_core::balance::PolicyConfig) -> &T {
    (policy as &dyn std::any::Any).downcast_ref().expect("another policy")
}

#[test]
fn the_clusters_became_eds_over_mtls() {
    for name in [
        "outbound|80||echo.default.svc.cluster.local",
        "outbound|80|v1|echo.default.svc.cluster.local",
        "outbound|80|v2|echo.default.svc.cluster.local",
    ] {
        let cluster: Arc<Cluster> = client(CLUSTER, name);
        assert!(matches!(&cluster.discovery, DiscoveryKind::Eds { service_name } if &**service_name == name));
        // In the older spelling of all three.
        let tls = cluster.tls.as_ref().expect("it has TLS");
        assert_eq!(tls.identity, Some(reference("default")));
        assert_eq!(tls.roots, TrustRoots::Provider(reference("ROOTCA")));
        let matcher = exact("spiffe://cluster.local/ns/default/sa/echo");
        assert_eq!(tls.sans, [SanMatch { kind: None, matcher }]);
        assert!(cluster.unsupported.is_empty(), "{:?}", cluster.unsupported);
    }
    let plain: Arc<Cluster> = client(CLUSTER, "outbound|443||api.example.com");
    assert!(plain.tls.is_none());
    policy::<RoundRobinConfig>(&*policy::<WrrLocality>(&*plain.policy).child);
    let hashed: Arc<Cluster> = client(CLUSTER, "outbound|80|v2|echo.default.svc.cluster.local");
    assert_eq!(policy::<RingHashConfig>(&*hashed.policy).min_size, 1024);
}

#[test]
fn the_assignments_became_localities() {
    let both: Arc<Endpoints> = client(CLUSTER_LOAD_ASSIGNMENT, "outbound|80||echo.default.svc.cluster.local");
    let found: Vec<(&str, u32, u32, String, u32, Health)> = both
        .localities
        .iter()
        .map(|it| {
            let endpoint = &it.endpoints[0];
            (&*it.locality.zone, it.weight, it.priority, endpoint.address.to_string(), endpoint.weight, endpoint.health)
        })
        .collect();
    let expected = [
        ("zone1", 1, 0, "127.0.1.1:8080".to_owned(), 1, Health::Healthy),
        ("zone2", 3, 0, "127.0.1.2:8080".to_owned(), 3, Health::Healthy),
    ];
    assert_eq!(found, expected);
    let mode = &both.localities[0].endpoints[0].metadata["envoy.transport_socket_match"]["tlsMode"];
    assert_eq!(mode, "istio");
    let empty: Arc<Endpoints> = client(CLUSTER_LOAD_ASSIGNMENT, "outbound|443||api.example.com");
    assert!(empty.is_empty() && empty.drops.is_empty());
}

/// The Listeners of a server, by name.
fn listeners() -> BTreeMap<Name, Arc<Listener>> {
    let taken = decode(SERVER).into_iter().map(|((_, name), decoded)| match decoded {
        Decoded::Ok { value, .. } => (name, value.downcast().expect("it is a Listener")),
        Decoded::Err { faults, .. } => panic!("{faults:?}"),
    });
    taken.collect()
}

#[test]
fn a_servers_listener_became_a_chain_with_mtls() {
    let all = listeners();
    assert_eq!(all.len(), 2);
    let listener = &all["xds.istio.io/grpc/lds/inbound/0.0.0.0:17070"];
    let ListenerKind::Server(server) = &listener.kind else { panic!("{listener:?}") };
    assert_eq!(server.address.to_string(), "0.0.0.0:17070");
    let [chain] = &server.chains[..] else { panic!("{server:?}") };
    assert_eq!((&*chain.name, server.default_chain.is_none()), ("inbound-mtls", true));
    let tls = chain.tls.as_ref().expect("it has TLS");
    assert_eq!(
        (&tls.identity, &tls.client_roots),
        (&reference("default"), &Some(TrustRoots::Provider(reference("ROOTCA"))))
    );
    assert!(tls.require_client_certificate);
    let RouteSource::Inline(table) = &chain.http.routes else { panic!("{chain:?}") };
    assert_eq!(table.virtual_hosts[0].domains, [Domain::Any]);
    assert!(matches!(table.virtual_hosts[0].routes[0].action, Action::NonForwarding));
}

/// Its AuthorizationPolicies: what is denied goes first, then what is allowed.
#[test]
fn its_authorization_became_two_filters() {
    let all = listeners();
    let filters = &all["xds.istio.io/grpc/lds/inbound/0.0.0.0:17070"].connections()[0].filters;
    let [deny, allow] = &filters[..] else { panic!("{filters:?}") };
    let rules = |filter: &HttpFilter| {
        let config: &dyn std::any::Any = &*filter.config;
        config.downcast_ref::<Rbac>().expect("it is RBAC's").rules.clone().expect("it has rules")
    };
    let names = |rules: &RbacRules| rules.policies.iter().map(|policy| policy.name.to_string()).collect::<Vec<_>>();
    let (deny, allow) = (rules(deny), rules(allow));
    assert_eq!((deny.action, names(&deny)), (RbacAction::Deny, vec!["default-deny-bad-0".to_owned()]));
    assert_eq!((allow.action, names(&allow)), (RbacAction::Allow, vec!["default-allow-foo-0".to_owned()]));
    // Who has no name and is in 10.1.0.0/16 is denied; and who has no name is not allowed.
    for (client, denied) in [("10.1.2.3", true), ("10.2.2.3", false)] {
        let (headers, none) = (http::HeaderMap::new(), BTreeMap::new());
        let facts = RbacFacts {
            request: RequestFacts {
                method: &http::Method::GET,
                scheme: "https",
                authority: "echo.default.svc",
                path: "/api/x",
                headers: &headers,
                is_grpc: false,
                tls: None,
                source_ip: None,
                is_internal: false,
                channel_id: 0,
                metadata: None,
            },
            tls: true,
            peer: None,
            server_name: None,
            source: client.parse().expect("an address"),
            client: client.parse().expect("an address"),
            destination: "10.0.0.1:17070".parse().expect("an address"),
            metadata: &none,
            route_metadata: &none,
        };
        assert_eq!((deny.judge(&facts).allowed, allow.judge(&facts).allowed), (!denied, false), "{client}");
    }
}
