//! Rules 8 to 15 of a client's Listener, and 29 to 39 of a server's.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use hcm::http_connection_manager::{RouteSpecifier, StripPortMode, UpgradeConfig};

use super::*;
use crate::model::listener::EscapedSlashes;
use crate::model::{
    HeadRules, HttpConnection, Listener, ListenerKind, RouteSource, SourceType, Underscores, UnsupportedEffect,
};
use crate::resource::LISTENER;

fn client(manager: &hcm::HttpConnectionManager) -> pb::Listener {
    pb::Listener {
        name: "greeter".to_owned(),
        api_listener: Some(pb::ApiListener { api_listener: Some(any(manager)) }),
        ..Default::default()
    }
}

pub(super) const API: &str = "api_listener.api_listener";

pub(super) fn client_manager() -> Part<hcm::HttpConnectionManager> {
    let wrap = |manager| client(&manager).encode_to_vec();
    Part { type_url: LISTENER, base: manager(), wrap, path: API }
}

fn client_listener() -> Part<pb::Listener> {
    Part { type_url: LISTENER, base: client(&manager()), wrap: |listener| listener.encode_to_vec(), path: "" }
}

pub(super) fn chain(manager: &hcm::HttpConnectionManager) -> pb::FilterChain {
    pb::FilterChain { filters: vec![network_filter("hcm", any(manager))], ..Default::default() }
}

fn network_filter(name: &str, config: Any) -> pb::Filter {
    pb::Filter { name: name.to_owned(), config_type: Some(pb::filter::ConfigType::TypedConfig(config)) }
}

pub(super) fn server(chain: pb::FilterChain) -> pb::Listener {
    pb::Listener {
        name: "server".to_owned(),
        address: Some(socket("127.0.0.1", 8080)),
        filter_chains: vec![chain],
        ..Default::default()
    }
}

fn server_listener() -> Part<pb::Listener> {
    Part { type_url: LISTENER, base: server(chain(&manager())), wrap: |listener| listener.encode_to_vec(), path: "" }
}

/// The connection manager of a server.
pub(super) fn server_manager() -> Part<hcm::HttpConnectionManager> {
    let wrap = |manager| server(chain(&manager)).encode_to_vec();
    Part { type_url: LISTENER, base: manager(), wrap, path: "filter_chains[0].filters[0].typed_config" }
}

fn first_match(listener: &mut pb::Listener) -> &mut pb::FilterChainMatch {
    listener.filter_chains[0].filter_chain_match.get_or_insert_default()
}

fn range(address: &str, length: Option<u32>) -> core::CidrRange {
    core::CidrRange { address_prefix: address.to_owned(), prefix_len: length.and_then(u32_value) }
}

fn rds(manager: &mut hcm::HttpConnectionManager) -> &mut hcm::Rds {
    match &mut manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => rds,
        _ => panic!("the base has RDS"),
    }
}

#[test]
pub(super) fn rule_8_an_api_listener_is_a_connection_manager() {
    client_listener().refuses(&[
        (8, API, |listener| listener.api_listener = Some(pb::ApiListener { api_listener: None })),
        (8, API, |listener| {
            listener.api_listener = Some(pb::ApiListener { api_listener: Some(any(&pb::Listener::default())) });
        }),
        (8, API, |listener| {
            let type_url = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
            listener.api_listener = Some(pb::ApiListener { api_listener: Some(garbage(type_url)) });
        }),
    ]);
    // istiod sends an address with it; what is a server's is not looked at.
    client_listener().takes(&[(8, "an address beside it", |listener| listener.address = Some(socket("0.0.0.0", 80)))]);
}

#[test]
fn whom_a_server_believes_about_a_requests_origin() {
    let listener: Arc<Listener> = server_manager().value(|manager| {
        manager.use_remote_address = Some(protobuf::BoolValue { value: true });
        manager.internal_address_config.get_or_insert_default().cidr_ranges.push(range("10.1.2.3", Some(8)));
        manager.common_http_protocol_options.get_or_insert_default().headers_with_underscores_action = 2;
    });
    let http = listener.connections()[0];
    assert!(
        http.origin.is_internal([10, 9, 9, 9].into(), false) && !http.origin.is_internal([11, 0, 0, 1].into(), false)
    );
    assert!(!http.origin.is_internal([10, 9, 9, 9].into(), true), "it was passed on");
    assert_eq!((http.underscores, http.unsupported.len()), (Underscores::Drop, 0));
    server_manager().refuses(&[
        (0, "internal_address_config.cidr_ranges[0].address_prefix", |manager| {
            manager.internal_address_config.get_or_insert_default().cidr_ranges.push(range("inside", None));
        }),
        (0, "common_http_protocol_options.headers_with_underscores_action", |manager| {
            manager.common_http_protocol_options.get_or_insert_default().headers_with_underscores_action = 3;
        }),
    ]);
}

#[test]
pub(super) fn rule_28_a_listener_for_the_other_side() {
    // Each is good for itself; that nobody can be served by the wrong one is the graph's to say.
    client_listener().takes(&[(28, "a client's", |_| {})]);
    server_listener().takes(&[(28, "a server's", |_| {})]);
}

#[test]
pub(super) fn rules_9_to_15_of_a_connection_manager() {
    client_manager().refuses(&[
        (10, "original_ip_detection_extensions", |manager| {
            manager.original_ip_detection_extensions.push(core::TypedExtensionConfig::default());
        }),
        (11, "", |manager| manager.route_specifier = None),
        (11, "scoped_routes", |manager| {
            manager.route_specifier = Some(RouteSpecifier::ScopedRoutes(hcm::ScopedRoutes::default()));
        }),
        (12, "rds.config_source", |manager| rds(manager).config_source = None),
        (12, "rds.config_source", |manager| rds(manager).config_source = Some(elsewhere())),
        (13, "rds.route_config_name", |manager| rds(manager).route_config_name.clear()),
        (14, "route_config.virtual_hosts[0].domains", |manager| {
            let virtual_hosts = vec![route::VirtualHost::default()];
            let table = route::RouteConfiguration { virtual_hosts, ..Default::default() };
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(table));
        }),
        (15, "common_http_protocol_options.max_stream_duration", |manager| {
            manager.common_http_protocol_options.get_or_insert_default().max_stream_duration = seconds(-1);
        }),
        (15, "common_http_protocol_options.max_stream_duration", |manager| {
            let duration = protobuf::Duration { seconds: 1, nanos: 1_000_000_000 };
            manager.common_http_protocol_options.get_or_insert_default().max_stream_duration = Some(duration);
        }),
        (15, "path_with_escaped_slashes_action", |manager| manager.path_with_escaped_slashes_action = 9),
    ]);
    client_manager().takes(&[
        (9, "trusted hops, which gRPC can't", |manager| manager.xff_num_trusted_hops = 1),
        (12, "self is this stream too", |manager| {
            let specifier = core::config_source::ConfigSourceSpecifier::Self_(core::SelfConfigSource::default());
            rds(manager).config_source =
                Some(core::ConfigSource { config_source_specifier: Some(specifier), ..Default::default() });
        }),
        (4, "an inline table needs no name", |manager| {
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(route::RouteConfiguration::default()));
        }),
        (15, "the longest duration", |manager| {
            manager.common_http_protocol_options.get_or_insert_default().max_stream_duration = seconds(315_576_000_000);
        }),
    ]);
}

fn connection(listener: &Listener) -> &HttpConnection {
    listener.connections()[0]
}

#[test]
fn a_connection_manager_becomes_what_it_says() {
    let plain: Arc<Listener> = client_manager().value(|_| {});
    assert!(matches!(&plain.kind, ListenerKind::Client(_)));
    let http = connection(&plain);
    assert!(matches!(&http.routes, RouteSource::Rds(name) if &**name == "routes"));
    assert!(http.filters.is_empty(), "the router is left out");
    assert_eq!((http.max_stream_duration, http.normalize_path, http.merge_slashes), (None, false, false));
    assert_eq!((http.escaped_slashes, http.strip_any_host_port), (EscapedSlashes::Keep, false));
    assert!(http.unsupported.is_empty());

    let full: Arc<Listener> = client_manager().value(|manager| {
        manager.common_http_protocol_options.get_or_insert_default().max_stream_duration = millis(1500);
        manager.common_http_protocol_options.get_or_insert_default().headers_with_underscores_action = 1;
        manager.normalize_path = bool_value(true);
        manager.merge_slashes = true;
        manager.path_with_escaped_slashes_action = 4;
        manager.strip_port_mode = Some(StripPortMode::StripAnyHostPort(true));
        manager.strip_trailing_host_dot = true;
        manager.stream_idle_timeout = seconds(5);
        manager.local_reply_config = Some(hcm::LocalReplyConfig::default());
    });
    let http = connection(&full);
    assert_eq!(http.max_stream_duration, Some(Duration::from_millis(1500)));
    assert!(http.normalize_path && http.merge_slashes && http.strip_any_host_port && http.strip_trailing_host_dot);
    assert_eq!(http.escaped_slashes, EscapedSlashes::UnescapeAndForward);
    let unsupported: Vec<String> = http.unsupported.iter().map(|it| format!("{} {:?}", it.field, it.effect)).collect();
    let here = |field: &str, effect: &str| format!("{API}.{field} {effect}");
    assert_eq!(
        unsupported,
        [
            here("common_http_protocol_options.headers_with_underscores_action", "FailsRequests"),
            here("local_reply_config", "FailsRequests"),
            here("stream_idle_timeout", "LeftOut"),
        ]
    );
}

#[test]
fn a_server_hears_what_heads_and_upgrades_may_be() {
    let listener: Arc<Listener> = server_manager().value(|manager| {
        manager.max_request_headers_kb = u32_value(8192);
        manager.common_http_protocol_options.get_or_insert_default().max_headers_count = u32_value(1);
        manager.http_protocol_options.get_or_insert_default().allow_custom_methods = true;
        manager.http2_protocol_options.get_or_insert_default().max_concurrent_streams = u32_value(7);
        manager.upgrade_configs =
            vec![upgrade("websocket", None), upgrade("off", Some(false)), upgrade("on", Some(true))];
    });
    let http = connection(&listener);
    let head =
        HeadRules { max_headers: Some(1), max_bytes: Some(8192 * 1024), max_streams: Some(7), custom_methods: true };
    assert_eq!((http.head, http.upgrades.join(" ").as_str()), (head, "websocket on"));
    server_manager().refuses(&[
        (0, "max_request_headers_kb", |manager| manager.max_request_headers_kb = u32_value(0)),
        (0, "max_request_headers_kb", |manager| manager.max_request_headers_kb = u32_value(8193)),
        (0, "common_http_protocol_options.max_headers_count", |manager| {
            manager.common_http_protocol_options.get_or_insert_default().max_headers_count = u32_value(0);
        }),
        (0, "http2_protocol_options.max_concurrent_streams", |manager| {
            manager.http2_protocol_options.get_or_insert_default().max_concurrent_streams = u32_value(0);
        }),
        (0, "upgrade_configs[0].filters", |manager| {
            let filters = vec![hcm::HttpFilter::default()];
            manager.upgrade_configs = vec![UpgradeConfig { filters, ..upgrade("x", None) }];
        }),
    ]);
}

/// What a Listener says of its connections and has no effect is told of; a client has other means for the last.
#[test]
fn what_a_server_does_not_do_is_noted() {
    let ask = |manager: &mut hcm::HttpConnectionManager| {
        let options = manager.common_http_protocol_options.get_or_insert_default();
        options.idle_timeout = seconds(1);
        options.max_connection_duration = seconds(2);
        options.max_requests_per_connection = u32_value(3);
        options.max_stream_duration = seconds(4);
    };
    let listener: Arc<Listener> = server_manager().value(ask);
    let notes: Vec<_> = connection(&listener).unsupported.iter().map(|note| (&*note.field, note.effect)).collect();
    let at = |field| format!("{}.common_http_protocol_options.{field}", server_manager().path);
    let fields =
        ["idle_timeout", "max_connection_duration", "max_requests_per_connection", "max_stream_duration"].map(at);
    assert_eq!(notes, fields.each_ref().map(|field| (&**field, UnsupportedEffect::LeftOut)));
    let zero: Arc<Listener> = server_manager().value(|manager| {
        let options = manager.common_http_protocol_options.get_or_insert_default();
        options.idle_timeout = seconds(0);
        options.max_requests_per_connection = u32_value(0);
    });
    assert!(connection(&zero).unsupported.is_empty(), "no limit is asked for");
    let client: Arc<Listener> = client_manager().value(ask);
    assert!(connection(&client).unsupported.is_empty());
}

#[test]
fn chains_say_the_same_as_long_as_nothing_in_them_changes() {
    let of = |listener: &Listener| match &listener.kind {
        ListenerKind::Server(server) => server.chains[0].clone(),
        other => panic!("{other:?}"),
    };
    let first = of(&server_manager().value(|_| {}));
    assert!(first.says_the_same(&of(&server_manager().value(|_| {}))));
    let manager = of(&server_manager().value(|manager| manager.merge_slashes = true));
    let matches = of(&server_listener().value(|listener| first_match(listener).source_ports = vec![1]));
    for other in [manager, matches, Arc::new(crate::model::FilterChain { encoded: None, ..(*first).clone() })] {
        assert!(!first.says_the_same(&other), "{other:?}");
        assert!(other.encoded.is_some() || !other.says_the_same(&other), "what was not decoded is like no other");
    }
}

fn upgrade(name: &str, enabled: Option<bool>) -> UpgradeConfig {
    let enabled = enabled.and_then(bool_value);
    UpgradeConfig { upgrade_type: name.to_owned(), filters: Vec::new(), enabled }
}

fn inspector(folder: &str, message: &str) -> pb::ListenerFilter {
    let folder = if message == "OriginalDst" { folder.to_owned() } else { format!("{folder}_inspector") };
    let type_url = format!("{TYPE_URL_PREFIX}envoy.extensions.filters.listener.{folder}.v3.{message}");
    let config = pb::listener_filter::ConfigType::TypedConfig(Any { type_url, ..Default::default() });
    pb::ListenerFilter { name: folder, config_type: Some(config), ..Default::default() }
}

/// What is looked at, for how long, and how much of it: Envoy's defaults, and ours where they are lower.
#[test]
fn an_inspection_is_bounded() {
    let read = |change: fn(&mut pb::Listener)| {
        let listener: Arc<crate::model::Listener> = server_listener().value(change);
        let crate::model::ListenerKind::Server(server) = &listener.kind else { panic!("{listener:?}") };
        server.inspection
    };
    assert_eq!(read(|_| {}), None);
    let both = read(|listener| {
        listener.listener_filters = vec![inspector("http", "HttpInspector"), inspector("tls", "TlsInspector")];
    });
    let timeout = std::time::Duration::from_secs(15);
    assert_eq!(both, Some(crate::model::Inspection { tls: true, http: true, timeout, max_client_hello: 16384 }));
    let other = read(|listener| {
        listener.listener_filters = vec![inspector("http", "HttpInspector")];
        listener.listener_filters_timeout = seconds(2);
    });
    assert_eq!(other.map(|it| (it.tls, it.timeout.as_secs())), Some((false, 2)));
}

/// gRFC A36.
#[test]
pub(super) fn rules_29_to_36_of_a_servers_listener() {
    server_listener().refuses(&[
        (29, "listener_filters[0].typed_config", |listener| {
            listener.listener_filters.push(pb::ListenerFilter::default());
        }),
        (29, "listener_filters[1].typed_config", |listener| {
            listener.listener_filters =
                vec![inspector("tls", "TlsInspector"), inspector("original_dst", "OriginalDst")];
        }),
        (29, "listener_filters[0].filter_disabled", |listener| {
            let filter_disabled = Some(Default::default());
            let filter = pb::ListenerFilter { filter_disabled, ..inspector("tls", "TlsInspector") };
            listener.listener_filters = vec![filter];
        }),
        (29, "filter_chains[0].filter_chain_match.server_names", |listener| {
            listener.listener_filters = vec![inspector("tls", "TlsInspector")];
            first_match(listener).server_names = vec!["*.a.test".to_owned(), "a*.test".to_owned()];
        }),
        (30, "use_original_dst", |listener| listener.use_original_dst = bool_value(true)),
        (31, "address", |listener| listener.address = None),
        (31, "address", |listener| listener.address = Some(core::Address { address: None })),
        (31, "address", |listener| {
            let pipe = core::address::Address::Pipe(core::Pipe { path: "/x".to_owned(), mode: 0 });
            listener.address = Some(core::Address { address: Some(pipe) });
        }),
        (31, "address.socket_address.protocol", |listener| {
            if let Some(core::address::Address::SocketAddress(socket)) = &mut listener.address.as_mut().unwrap().address
            {
                socket.protocol = 1;
            }
        }),
        (31, "address.socket_address.port_value", |listener| listener.address = Some(socket("127.0.0.1", 65536))),
        (32, "filter_chains", |listener| listener.filter_chains.clear()),
        (33, "default_filter_chain.filters", |listener| {
            listener.default_filter_chain = Some(pb::FilterChain::default());
        }),
        // One that can never match is checked too.
        (33, "filter_chains[0].filters", |listener| {
            first_match(listener).destination_port = u32_value(1);
            listener.filter_chains[0].filters.clear();
        }),
        (34, "filter_chains[0].filters[0].name", |listener| listener.filter_chains[0].filters[0].name.clear()),
        (34, "filter_chains[0].filters[1].name filter_chains[0].filters", |listener| {
            let again = listener.filter_chains[0].filters[0].clone();
            listener.filter_chains[0].filters.push(again);
        }),
        (35, "filter_chains[0].filters", |listener| {
            listener.filter_chains[0].filters.push(network_filter("another", any(&manager())));
        }),
        (35, "filter_chains[0].filters[0].typed_config", |listener| {
            listener.filter_chains[0].filters = vec![network_filter("tcp", any(&pb::Listener::default()))];
        }),
        (35, "filter_chains[0].filters[0].typed_config", |listener| {
            listener.filter_chains[0].filters[0].config_type = None;
        }),
        // It decides who gets in.
        (35, "filter_chains[0].filters[0].typed_config filter_chains[0].filters", |listener| {
            let rbac = network_filter("envoy.filters.network.rbac", any(&NetworkRbac::default()));
            listener.filter_chains[0].filters.insert(0, rbac);
        }),
    ]);
    server_manager().refuses(&[
        (36, "original_ip_detection_extensions", |manager| {
            manager.original_ip_detection_extensions.push(core::TypedExtensionConfig::default());
        }),
        (36, "", |manager| manager.route_specifier = None),
        (36, "rds.config_source", |manager| rds(manager).config_source = Some(elsewhere())),
        (36, "http_filters", |manager| manager.http_filters.clear()),
    ]);
    server_listener().takes(&[
        (29, "what looks at the first bytes", |listener| {
            listener.listener_filters = vec![inspector("tls", "TlsInspector"), inspector("http", "HttpInspector")];
            first_match(listener).server_names = vec!["*.a.test".to_owned()];
        }),
        (30, "false is the default", |listener| listener.use_original_dst = bool_value(false)),
        (31, "port 0 is any port", |listener| listener.address = Some(socket("::", 0))),
        (32, "the default chain is enough", |listener| {
            listener.default_filter_chain = listener.filter_chains.pop();
        }),
    ]);
}

/// gRFC A36.
#[test]
pub(super) fn rules_37_to_39_of_a_filter_chain_match() {
    server_listener().refuses(&[
        (37, "filter_chains[0].filter_chain_match.prefix_ranges[0].address_prefix", |listener| {
            first_match(listener).prefix_ranges.push(range("localhost", Some(8)));
        }),
        (37, "filter_chains[0].filter_chain_match.source_prefix_ranges[1].address_prefix", |listener| {
            first_match(listener).source_prefix_ranges = vec![range("::1", Some(128)), range("", None)];
        }),
        (38, "filter_chains[0].filter_chain_match.source_type", |listener| first_match(listener).source_type = 7),
        (39, "filter_chains[1].filter_chain_match", |listener| {
            let again = listener.filter_chains[0].clone();
            listener.filter_chains.push(again);
        }),
        // The same after masking, and only in one combination of each.
        (39, "filter_chains[1].filter_chain_match", |listener| {
            let mut other = listener.filter_chains[0].clone();
            first_match(listener).prefix_ranges = vec![range("10.1.2.3", Some(8)), range("11.0.0.0", Some(8))];
            first_match(listener).source_ports = vec![1, 2];
            let matches = other.filter_chain_match.get_or_insert_default();
            matches.prefix_ranges = vec![range("12.0.0.0", Some(8)), range("10.9.9.9", Some(8))];
            matches.source_ports = vec![2, 3];
            listener.filter_chains.push(other);
        }),
        // Chains that can never match take part.
        (39, "filter_chains[1].filter_chain_match", |listener| {
            first_match(listener).server_names = vec!["a".to_owned()];
            let again = listener.filter_chains[0].clone();
            listener.filter_chains.push(again);
        }),
        // Absent is 0.
        (39, "filter_chains[1].filter_chain_match", |listener| {
            let mut other = listener.filter_chains[0].clone();
            first_match(listener).prefix_ranges = vec![range("0.0.0.0", None)];
            other.filter_chain_match.get_or_insert_default().prefix_ranges = vec![range("0.0.0.0", Some(0))];
            listener.filter_chains.push(other);
        }),
        (39, "filter_chains[0].filter_chain_match.address_suffix", |listener| {
            first_match(listener).address_suffix = "1".to_owned();
        }),
    ]);
    server_listener().takes(&[
        (37, "a length beyond the address is all of it (A36)", |listener| {
            first_match(listener).prefix_ranges = vec![range("10.0.0.1", Some(33)), range("::1", Some(1000))];
        }),
        (39, "0.0.0.0/0 is not the same as nothing", |listener| {
            let other = listener.filter_chains[0].clone();
            first_match(listener).prefix_ranges = vec![range("0.0.0.0", Some(0))];
            listener.filter_chains.push(other);
        }),
        (39, "one chain may say the same twice", |listener| {
            first_match(listener).prefix_ranges = vec![range("10.0.0.1", Some(8)), range("10.0.0.2", Some(8))];
        }),
        (39, "another port", |listener| {
            let mut other = listener.filter_chains[0].clone();
            first_match(listener).source_ports = vec![1];
            other.filter_chain_match.get_or_insert_default().source_ports = vec![2];
            listener.filter_chains.push(other);
        }),
    ]);
}

#[test]
fn a_hostile_number_of_ways_is_refused() {
    let faults = server_listener().decode(|listener| {
        let matches = first_match(listener);
        matches.source_ports = (0..1000).collect();
        matches.prefix_ranges =
            (0..1000u32).map(|n| range(&std::net::Ipv4Addr::from(n << 8).to_string(), Some(24))).collect();
    });
    assert!(refused(faults)[0].contains("ways"));
}

#[test]
fn a_servers_listener_becomes_what_it_says() {
    let listener: Arc<Listener> = server_listener().value(|listener| {
        listener.filter_chains[0].name = "first".to_owned();
        let matches = first_match(listener);
        matches.prefix_ranges = vec![range("10.1.2.3", Some(16))];
        matches.source_prefix_ranges = vec![range("10.0.0.1", Some(99))];
        matches.source_ports = vec![4711];
        matches.source_type = 1;
        matches.transport_protocol = "raw_buffer".to_owned();
        listener.default_filter_chain = Some(chain(&manager()));
    });
    let ListenerKind::Server(server) = &listener.kind else { panic!("{listener:?}") };
    assert_eq!(server.address.to_string(), "127.0.0.1:8080");
    let matches = &server.chains[0].matches;
    assert_eq!(&*server.chains[0].name, "first");
    assert_eq!(matches.destination[0].to_string(), "10.1.0.0/16");
    assert_eq!(matches.source[0].to_string(), "10.0.0.1/32");
    assert_eq!((matches.source_ports.as_slice(), matches.source_type), (&[4711][..], SourceType::SameIpOrLoopback));
    assert_eq!(matches.transport_protocol, "raw_buffer");
    assert!(server.chains[0].tls.is_none() && server.default_chain.is_some());
}
