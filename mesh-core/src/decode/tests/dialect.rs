//! Where gRPC and Envoy do not agree: each resource under the rules of either. What Envoy says of each, Envoy 1.40 was asked.

#![allow(clippy::needless_pass_by_value, reason = "JSON goes from hand to hand")]

use serde_json::{Value, json};

use super::*;
use crate::decode::Dialect;
use crate::model::matcher::MatchName;
use crate::model::{
    Action, BodyLimit, Domain, Forward, HashSource, HeaderTest, Listener, PathRewrite, RouteTable, UnsupportedEffect,
};
use crate::source::file::resource_from_json;

fn decode(dialect: Dialect, json: &Value) -> Decoded {
    let resource = resource_from_json(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    decoder().with_dialect(dialect).decode(&resource.key.type_url, &resource.bytes)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                if value.is_null() {
                    into.remove(&name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (into, from) => *into = from,
    }
}

/// A table whose one virtual host has these fields, and whose one route has those.
fn one_host(host: Value, route: Value) -> Value {
    let mut hosts = json!({"name": "host", "domains": ["*"]});
    let mut routes = json!({"match": {"prefix": "/"}, "route": {"cluster": "blue"}});
    merge(&mut hosts, host);
    merge(&mut routes, route);
    hosts["routes"] = json!([routes]);
    json!({"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "routes", "virtual_hosts": [hosts]})
}

fn route(fields: Value) -> Value {
    one_host(json!({}), fields)
}

fn action(fields: Value) -> Value {
    route(json!({"route": fields}))
}

fn header(fields: Value) -> Value {
    route(json!({"match": {"headers": [fields]}}))
}

fn added(key: &str, value: &str) -> Value {
    route(json!({"response_headers_to_add": [{"header": {"key": key, "value": value}}]}))
}

fn cluster(fields: Value) -> Value {
    let mut cluster = json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "blue", "type": "STATIC",
        "load_assignment": {"cluster_name": "blue", "endpoints": []},
    });
    merge(&mut cluster, fields);
    cluster
}

/// A client's Listener with these filters before its router.
fn listener(mut filters: Vec<Value>) -> Value {
    let package = "type.googleapis.com/envoy.extensions.filters";
    filters.push(json!({"name": "router", "typed_config": {"@type": format!("{package}.http.router.v3.Router")}}));
    let kind = format!("{package}.network.http_connection_manager.v3.HttpConnectionManager");
    let mut routes = route(json!({}));
    merge(&mut routes, json!({"@type": null}));
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "listener",
        "api_listener": {"api_listener": {"@type": kind, "route_config": routes, "http_filters": filters}},
    })
}

fn filter(name: &str, kind: &str, fields: Value) -> Value {
    let mut config = json!({"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")});
    merge(&mut config, fields);
    json!({"name": name, "typed_config": config})
}

/// A route that overrides a filter by the wrapper that can turn it off.
fn overriding(mut config: Value) -> Value {
    merge(&mut config, json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"}));
    route(json!({"typed_per_filter_config": {"cors": config}}))
}

fn is_taken(dialect: Dialect, json: &Value) -> bool {
    matches!(decode(dialect, json), Decoded::Ok { .. })
}

#[test]
fn what_grpc_refuses_and_envoy_takes() {
    let cors = || filter("cors", "cors.v3.Cors", json!({}));
    for json in [
        header(json!({"name": "a"})),
        header(json!({"name": "a b", "present_match": true})),
        header(json!({"name": ":nope", "present_match": true})),
        header(json!({"name": "é", "exact_match": "x"})),
        header(json!({"name": "a", "range_match": {"start": 5, "end": 1}})),
        one_host(json!({"domains": [""]}), json!({})),
        one_host(json!({"domains": ["**"]}), json!({})),
        one_host(json!({"domains": ["*.a.*", "a*b", "a.**"]}), json!({})),
        one_host(json!({"per_request_buffer_limit_bytes": 5, "request_body_buffer_limit": 6}), json!({})),
        action(json!({"retry_policy": {"retry_on": "5xx", "num_retries": 0}})),
        action(json!({"hash_policy": [{"header": {"header_name": "a b"}}]})),
        action(json!({"host_rewrite_header": "a b"})),
        action(json!({"host_rewrite_header": ""})),
        action(json!({"regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "b\\9"}})),
        action(json!({"regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "b\\x"}})),
        action(json!({"request_mirror_policies": [{"cluster_header": "a b"}]})),
        route(json!({"request_headers_to_remove": ["a b"]})),
        added("a b", "v"),
        listener(vec![cors(), cors()]),
    ] {
        assert!(!is_taken(Dialect::Grpc, &json), "{json}");
        assert!(is_taken(Dialect::Envoy, &json), "{json}: {:?}", decode(Dialect::Envoy, &json));
    }
}

#[test]
fn what_envoy_refuses_and_grpc_does_not_look_at() {
    let retry = |fields: Value| {
        let mut policy = json!({"retry_on": "5xx"});
        merge(&mut policy, fields);
        action(json!({"retry_policy": policy}))
    };
    let limit = |fields: Value| {
        let mut config = json!({"stat_prefix": "x", "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}});
        merge(&mut config, fields);
        listener(vec![filter("limit", "local_ratelimit.v3.LocalRateLimit", config)])
    };
    let assignment = |policy: Value| cluster(json!({"load_assignment": {"policy": policy}}));
    let round_robin = "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
    let nameless = json!({"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}});
    let previous_hosts = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    let priorities =
        "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    let redirected = |policy: Value| action(json!({"internal_redirect_policy": policy}));
    let previous = "type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig";
    for json in [
        one_host(json!({"name": ""}), json!({})),
        one_host(json!({"virtual_clusters": [{"headers": [{"name": "a", "present_match": true}]}]}), json!({})),
        one_host(json!({"virtual_clusters": [{"name": "x"}]}), json!({})),
        route(json!({"route": null})),
        route(json!({"decorator": {"operation": ""}})),
        route(json!({"request_headers_to_add": vec![json!({"header": {"key": "a", "value": "b"}}); 1001]})),
        route(json!({"match": {"runtime_fraction": {"runtime_key": "x"}}})),
        header(json!({"name": "a", "string_match": {"safe_regex": {"regex": "a"}, "ignore_case": true}})),
        route(json!({"match": {"prefix": null, "safe_regex": {"regex": "a{1000}"}}})),
        action(json!({"priority": 9})),
        action(json!({"cluster": null})),
        action(json!({"max_stream_duration": {"max_stream_duration": "9223372037s"}})),
        action(json!({"early_data_policy": nameless})),
        action(json!({"upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]})),
        action(json!({"upgrade_configs": [{"upgrade_type": "websocket", "connect_config": {}}]})),
        redirected(json!({"redirect_response_codes": [301, 302, 303, 307, 308, 302]})),
        redirected(json!({"response_headers_to_copy": ["a", "a"]})),
        redirected(json!({"predicates": [{"typed_config": {"@type": previous}}]})),
        action(json!({"hash_policy": [{}]})),
        action(json!({"hash_policy": [{"filter_state": {"key": ""}}]})),
        action(json!({"hash_policy": [{"cookie": {"name": "a", "attributes": [{"name": ""}]}}]})),
        action(json!({"host_rewrite": "%FOO%"})),
        retry(json!({"retry_host_predicate": [{"name": "foo"}]})),
        // By name alone, as before there were types.
        retry(json!({"retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}]})),
        retry(json!({"retry_host_predicate": [{"typed_config": {"@type": previous_hosts}}]})),
        retry(json!({"retry_priority": {"name": "envoy.retry_priorities.previous_priorities"}})),
        retry(json!({"retry_priority": {"typed_config": {"@type": priorities, "update_frequency": 1}}})),
        retry(json!({"retry_priority": {"name": "foo"}})),
        retry(json!({"retry_options_predicates": [{"name": "x"}]})),
        added("x", "%FOO%"),
        added("x", "%REQ()%"),
        added("x", "%PROTOCOL:3%"),
        limit(json!({"status": {"code": 999}})),
        limit(json!({"enable_x_ratelimit_headers": 9})),
        assignment(json!({"drop_overloads": [{"category": "x", "drop_percentage": {"numerator": 500}}]})),
        assignment(json!({"endpoint_stale_after": "0s"})),
        cluster(json!({"load_assignment": {"cluster_name": ""}})),
        cluster(json!({"outlier_detection": {"max_ejection_time": "1s", "base_ejection_time": "2s"}})),
        cluster(json!({"circuit_breakers": {"thresholds": [{"priority": 9}]}})),
        cluster(json!({"lb_subset_config": {}, "load_balancing_policy": {"policies": [
            {"typed_extension_config": {"name": "x", "typed_config": {"@type": round_robin}}}]}})),
        cluster(json!({"health_checks": [{"timeout": "1s"}]})),
        cluster(json!({"common_lb_config": {"zone_aware_lb_config": {"routing_enabled": {"value": 101}}}})),
        cluster(json!({"http2_protocol_options": {"max_concurrent_streams": 0}})),
    ] {
        assert!(is_taken(Dialect::Grpc, &json), "{json}: {:?}", decode(Dialect::Grpc, &json));
        assert!(!is_taken(Dialect::Envoy, &json), "{json}");
    }
}

fn envoys(json: &Value) -> Arc<RouteTable> {
    taken(decode(Dialect::Envoy, json))
}

fn forward(table: &RouteTable) -> &Forward {
    match &table.virtual_hosts[0].routes[0].action {
        Action::Forward(forward) => forward,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_envoy_alone_takes_means_what_it_means_there() {
    let table = envoys(&header(json!({"name": "a", "invert_match": true})));
    let wanted = &table.virtual_hosts[0].routes[0].matches.headers[0];
    assert_eq!((&wanted.test, wanted.invert), (&HeaderTest::Present(true), true));
    let table = envoys(&header(json!({"name": "A b", "present_match": true})));
    let wanted = &table.virtual_hosts[0].routes[0].matches.headers[0];
    assert_eq!(wanted.name, MatchName::Impossible("A b".to_owned()));

    let domains = json!({"domains": ["", "**", "*.a.*", "A*b", "a.**", "*", "b.*"]});
    let domains = envoys(&one_host(domains, json!({}))).virtual_hosts[0].domains.clone();
    let [exact, suffix, prefix] = [Domain::Exact, Domain::Suffix, Domain::Prefix];
    let text = str::to_owned;
    let expected = [
        exact(text("")),
        suffix(text("*")),
        suffix(text(".a.*")),
        exact(text("a*b")),
        prefix(text("a.*")),
        Domain::Any,
        prefix(text("b.")),
    ];
    assert_eq!(domains, expected);

    let both = json!({"per_request_buffer_limit_bytes": 5, "request_body_buffer_limit": 6});
    assert_eq!(envoys(&one_host(both, json!({}))).virtual_hosts[0].routes[0].body_limit, Some(BodyLimit::Exactly(6)));

    let table = envoys(&action(json!({"retry_policy": {"retry_on": "5xx", "num_retries": 0}})));
    assert_eq!(forward(&table).retry.as_ref().map(|retry| retry.num_retries), Some(0));
    let table = envoys(&action(json!({"hash_policy": [{"header": {"header_name": "a b"}}]})));
    assert_eq!(forward(&table).hash[0].source, HashSource::Nothing);
    assert!(
        forward(&envoys(&action(json!({"request_mirror_policies": [{"cluster_header": "a b"}]})))).mirrors.is_empty()
    );

    // Envoy would send it, which would end the stream: its requests fail with a code instead.
    let table = envoys(&added("a b", "v"));
    let note = &table.virtual_hosts[0].routes[0].unsupported[0];
    assert_eq!((note.effect, note.field.ends_with("header.key")), (UnsupportedEffect::FailsRequests, true));
    assert!(
        envoys(&route(json!({"request_headers_to_remove": ["a b"]}))).virtual_hosts[0].routes[0].headers.is_empty()
    );
}

/// RE2 writes nothing for a group that the pattern does not have, and no more after what it does not understand.
#[test]
fn a_substitution_that_re2_can_not_do_is_done_as_far_as_it_goes() {
    for (written, done) in
        [("x\\1y\\9z", "x\\1yz"), ("a\\\\b", "a\\\\b"), ("a\\xb", "a"), ("ab\\", "ab"), ("\\0é", "\\0é")]
    {
        let rewrite = json!({"pattern": {"regex": "(a)"}, "substitution": written});
        let table = envoys(&action(json!({"regex_rewrite": rewrite})));
        let Some(PathRewrite::Regex(rewrite)) = &forward(&table).path_rewrite else { panic!("{written}") };
        assert_eq!(rewrite.substitution, done, "{written}");
    }
}

#[test]
fn filters_of_registered_types_are_read_by_the_same_rules() {
    let fault = filter("fault", "fault.v3.HTTPFault", json!({"headers": [{"name": "a"}]}));
    assert!(!is_taken(Dialect::Grpc, &listener(vec![fault.clone()])));
    let taken: Arc<Listener> = taken(decode(Dialect::Envoy, &listener(vec![fault])));
    assert_eq!(taken.connections()[0].filters.len(), 1);
}

/// In either: what Envoy bounds and gRPC has no word of is bounded; what only lacks a feature is taken.
#[test]
fn most_resources_mean_the_same_to_both() {
    for (json, expected) in [
        (header(json!({"name": "a", "prefix_match": ""})), false),
        (header(json!({"name": "", "present_match": true})), false),
        (one_host(json!({"domains": []}), json!({})), false),
        (route(json!({"match": {"prefix": null, "safe_regex": {"regex": "(a"}}})), false),
        (route(json!({"match": {"prefix": null, "path_separated_prefix": "api"}})), true),
        (action(json!({"cluster_header": "a b", "cluster": null})), false),
        (added("content-length", "5"), true),
        (added("host", "x"), false),
        (overriding(json!({"disabled": true})), true),
        (overriding(json!({})), false),
    ] {
        for dialect in [Dialect::Grpc, Dialect::Envoy] {
            assert_eq!(is_taken(dialect, &json), expected, "{dialect:?} {json}");
        }
    }
}

/// gRPC caps both sizes.
#[test]
fn a_ring_is_as_large_as_grpc_lets_it_be() {
    use crate::balance::RingHashConfig;
    use crate::model::Cluster;
    let sizes = |dialect, fields: Value| {
        let cluster = cluster(json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": fields}));
        let cluster: Arc<Cluster> = taken(decode(dialect, &cluster));
        let ring = downcast::<RingHashConfig>(&*cluster.policy);
        (ring.min_size, ring.max_size)
    };
    let large = || json!({"minimum_ring_size": 5000, "maximum_ring_size": 8_388_608});
    assert_eq!(sizes(Dialect::Grpc, json!({})), (1024, 4096));
    assert_eq!(sizes(Dialect::Grpc, large()), (4096, 4096));
    assert_eq!(sizes(Dialect::Grpc, json!({"minimum_ring_size": 1, "maximum_ring_size": 7})), (1, 7));
    assert_eq!(sizes(Dialect::Envoy, json!({})), (1024, RingHashConfig::LARGEST));
    assert_eq!(sizes(Dialect::Envoy, large()), (5000, RingHashConfig::LARGEST));
}

/// A server's Listener whose connection manager has these fields.
fn server(fields: Value) -> Value {
    let mut manager = listener(vec![])["api_listener"]["api_listener"].take();
    merge(&mut manager, fields);
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "listener",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

/// gRFC A41 has no address of a client but the connection's. Envoy leaves paths as they are; Istio tells its sidecars to
/// normalise them, and gRPC nothing.
#[test]
fn what_a_server_means_that_is_silent_about_clients_and_paths() {
    let meant = |dialect, json: &Value| {
        let listener: Arc<Listener> = taken(decode(dialect, json));
        let http = listener.connections()[0];
        (http.origin.believes_header, http.normalize_path)
    };
    let silent = server(json!({}));
    assert_eq!(meant(Dialect::Grpc, &silent), (false, true));
    assert_eq!(meant(Dialect::Envoy, &silent), (true, false));
    for dialect in [Dialect::Grpc, Dialect::Envoy] {
        for said in [true, false] {
            assert_eq!(meant(dialect, &server(json!({"normalize_path": said}))).1, said, "{dialect:?}");
        }
        assert!(!meant(dialect, &listener(vec![])).1, "a client's paths are its application's: {dialect:?}");
    }
}

/// Where Envoy and gRPC would let in different clients.
#[test]
fn a_range_of_ipv4_written_as_ipv6_is_refused_where_it_matches_nobody() {
    let filter = |prefix: &str, length: u32| {
        json!({"name": "rbac", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"policies": {"p": {
                "permissions": [{"any": true}],
                "principals": [{"remote_ip": {"address_prefix": prefix, "prefix_len": length}}],
            }}},
        }})
    };
    for (prefix, length, taken) in
        [("::ffff:10.0.0.0", 104, false), ("::ffff:10.0.0.0", 8, true), ("10.0.0.0", 8, true), ("::1", 128, true)]
    {
        let filters = listener(vec![filter(prefix, length)])["api_listener"]["api_listener"]["http_filters"].take();
        let json = server(json!({"http_filters": filters}));
        assert!(is_taken(Dialect::Grpc, &json), "{json}: {:?}", decode(Dialect::Grpc, &json));
        assert_eq!(is_taken(Dialect::Envoy, &json), taken, "{prefix}/{length}");
    }
}
