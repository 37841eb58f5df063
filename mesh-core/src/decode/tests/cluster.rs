//! Rules 91 to 104, 116 and 123 to 128: clusters.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstreams;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::UInt32Value;
use pb::circuit_breakers::Thresholds;
use pb::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig,
};
use upstreams::HttpProtocolOptions;
use upstreams::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config};

use super::*;
use crate::model::cluster::{FailurePercentage, RetryBudget, SuccessRate};
use crate::model::{
    CircuitBreakers, Cluster, DiscoveryKind, DnsFamily, DnsHost, EndpointMetric, HttpProtocol, LoadPolicy,
    UnsupportedEffect,
};
use crate::resource::CLUSTER;

pub(super) fn eds() -> pb::Cluster {
    pb::Cluster {
        name: "blue".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        ..Default::default()
    }
}

pub(super) fn cluster() -> Part<pb::Cluster> {
    Part { type_url: CLUSTER, base: eds(), wrap: |cluster| cluster.encode_to_vec(), path: "" }
}

fn config(cluster: &mut pb::Cluster) -> &mut EdsClusterConfig {
    cluster.eds_cluster_config.as_mut().expect("the base has one")
}

/// Endpoints of these addresses in one locality.
fn addresses(list: &[core::Address]) -> Option<endpoint::ClusterLoadAssignment> {
    let one = |address: &core::Address| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address.clone()),
            ..Default::default()
        })),
        ..Default::default()
    };
    let lb_endpoints = list.iter().map(one).collect();
    let endpoints = vec![endpoint::LocalityLbEndpoints { lb_endpoints, ..Default::default() }];
    Some(endpoint::ClusterLoadAssignment { cluster_name: "blue".to_owned(), endpoints, ..Default::default() })
}

fn with_type(kind: DiscoveryType, load_assignment: Option<endpoint::ClusterLoadAssignment>) -> pb::Cluster {
    pb::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        eds_cluster_config: None,
        load_assignment,
        ..eds()
    }
}

fn logical_dns() -> Part<pb::Cluster> {
    let base = with_type(DiscoveryType::LogicalDns, addresses(&[socket("blue.test", 80)]));
    Part { base, ..cluster() }
}

fn assignment(cluster: &mut pb::Cluster) -> &mut endpoint::ClusterLoadAssignment {
    cluster.load_assignment.as_mut().expect("the base has one")
}

fn first_socket(cluster: &mut pb::Cluster) -> &mut core::SocketAddress {
    let endpoint = &mut assignment(cluster).endpoints[0].lb_endpoints[0];
    let Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &mut endpoint.host_identifier else {
        panic!("the base has one");
    };
    match &mut endpoint.address.as_mut().unwrap().address {
        Some(core::address::Address::SocketAddress(socket)) => socket,
        other => panic!("{other:?}"),
    }
}

/// gRFC A27.
#[test]
pub(super) fn rules_91_to_94_discovery() {
    cluster().refuses(&[
        (91, "type", |cluster| *cluster = with_type(DiscoveryType::OriginalDst, None)),
        (91, "type", |cluster| cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(77))),
        (92, "eds_cluster_config", |cluster| cluster.eds_cluster_config = None),
        (93, "eds_cluster_config.eds_config", |cluster| config(cluster).eds_config = None),
        (93, "eds_cluster_config.eds_config", |cluster| config(cluster).eds_config = Some(elsewhere())),
    ]);
    let mut federated = eds();
    federated.name = "xdstp://a/envoy.config.cluster.v3.Cluster/x".to_owned();
    config(&mut federated).service_name = "xdstp://a/envoy.config.endpoint.v3.ClusterLoadAssignment/x".to_owned();
    let federated = Part { base: federated, ..cluster() };
    federated.takes(&[(94, "with a name for its endpoints", |_| {})]);
    federated.refuses(&[(94, "eds_cluster_config.service_name", |cluster| config(cluster).service_name.clear())]);
    // gRPC can't.
    cluster().takes(&[
        (91, "endpoints in the cluster", |cluster| {
            *cluster = with_type(DiscoveryType::Static, addresses(&[socket("127.0.0.1", 80)]));
        }),
        (91, "any number of names", |cluster| {
            *cluster = with_type(DiscoveryType::StrictDns, addresses(&[socket("a", 1), socket("b", 2)]));
        }),
    ]);
}

/// gRFC A37.
#[test]
pub(super) fn rules_95_to_101_logical_dns() {
    logical_dns().refuses(&[
        (95, "load_assignment", |cluster| cluster.load_assignment = None),
        (96, "load_assignment.endpoints", |cluster| assignment(cluster).endpoints.clear()),
        (96, "load_assignment.endpoints", |cluster| {
            let again = assignment(cluster).endpoints[0].clone();
            assignment(cluster).endpoints.push(again);
        }),
        (97, "load_assignment.endpoints[0].lb_endpoints", |cluster| {
            assignment(cluster).endpoints[0].lb_endpoints.clear();
        }),
        (97, "load_assignment.endpoints[0].lb_endpoints", |cluster| {
            cluster.load_assignment = addresses(&[socket("a", 1), socket("b", 1)]);
        }),
        (98, "load_assignment.endpoints[0].lb_endpoints[0].endpoint", |cluster| {
            assignment(cluster).endpoints[0].lb_endpoints[0].host_identifier = None;
        }),
        (98, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address", |cluster| {
            cluster.load_assignment = addresses(&[core::Address { address: None }]);
        }),
        (99, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address", |cluster| {
            first_socket(cluster).address.clear();
        }),
        (100, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value", |cluster| {
            first_socket(cluster).port_specifier = None;
        }),
        (100, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value", |cluster| {
            let named = core::socket_address::PortSpecifier::NamedPort("http".to_owned());
            first_socket(cluster).port_specifier = Some(named);
        }),
        (
            101,
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.resolver_name",
            |cluster| {
                first_socket(cluster).resolver_name = "mine".to_owned();
            },
        ),
    ]);
}

/// The server that the resource came from.
fn this_server() -> core::ConfigSource {
    let specifier = core::config_source::ConfigSourceSpecifier::Self_(core::SelfConfigSource::default());
    core::ConfigSource { config_source_specifier: Some(specifier), ..Default::default() }
}

fn aggregate(names: &[&str]) -> pb::Cluster {
    let clusters = names.iter().map(|name| (*name).to_owned()).collect();
    let typed_config = Some(any(&ClusterConfig { clusters }));
    pb::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.aggregate".to_owned(),
            typed_config,
        })),
        eds_cluster_config: None,
        ..eds()
    }
}

/// gRFC A37.
#[test]
pub(super) fn rules_102_to_104_aggregates_and_load_reports() {
    Part { base: aggregate(&["a", "b"]), ..cluster() }.refuses(&[
        (102, "cluster_type.typed_config", |cluster| {
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType::default()));
        }),
        (102, "cluster_type.typed_config", |cluster| {
            let custom = CustomClusterType { name: "x".to_owned(), typed_config: Some(any(&eds())) };
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
        }),
        (103, "cluster_type.typed_config.clusters", |cluster| *cluster = aggregate(&[])),
        (103, "cluster_type.typed_config.clusters[1]", |cluster| *cluster = aggregate(&["a", ""])),
        (104, "lrs_server", |cluster| cluster.lrs_server = Some(ads())),
        (104, "lrs_server", |cluster| cluster.lrs_server = Some(core::ConfigSource::default())),
    ]);
    cluster().takes(&[(104, "self", |cluster| cluster.lrs_server = Some(this_server()))]);
}

#[test]
fn discovery_becomes_what_it_says() {
    let kind = |cluster: pb::Cluster| {
        let cluster: Arc<Cluster> = taken(decoder().decode(CLUSTER, &cluster.encode_to_vec()));
        cluster.discovery.clone()
    };
    assert!(matches!(kind(eds()), DiscoveryKind::Eds { service_name } if &*service_name == "blue"));
    let mut named = eds();
    config(&mut named).service_name = "other".to_owned();
    assert!(matches!(kind(named), DiscoveryKind::Eds { service_name } if &*service_name == "other"));
    let DiscoveryKind::Aggregate(names) = kind(aggregate(&["a", "b"])) else { panic!("no aggregate") };
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
    // gRFC A47: a name that is spelled in another way is the same one.
    let DiscoveryKind::Aggregate(names) = kind(aggregate(&["xdstp://a/t/x?b=2&a=1"])) else { panic!("no aggregate") };
    assert_eq!(&*names[0], "xdstp://a/t/x?a=1&b=2");
    // STATIC is what a cluster is that says nothing.
    let nothing = pb::Cluster { cluster_discovery_type: None, ..with_type(DiscoveryType::Static, None) };
    assert!(matches!(kind(nothing), DiscoveryKind::Static(endpoints) if endpoints.is_empty()));
}

/// gRFC A37, and Envoy's `STRICT_DNS`.
#[test]
fn names_are_read_with_all_that_is_said_of_them() {
    let read = |cluster: &pb::Cluster| {
        let cluster: Arc<Cluster> = taken(decoder().decode(CLUSTER, &cluster.encode_to_vec()));
        match &cluster.discovery {
            DiscoveryKind::LogicalDns(found) | DiscoveryKind::StrictDns(found) => found.clone(),
            other => panic!("{other:?}"),
        }
    };
    let host = |host: &str, port| DnsHost { host: host.to_owned(), port };
    let mut logical = logical_dns().base;
    let mut labelled = assignment(&mut logical).endpoints[0].clone();
    labelled.load_balancing_weight = Some(UInt32Value { value: 0 });
    labelled.lb_endpoints[0].metadata = Some(mode("istio"));
    assignment(&mut logical).endpoints = vec![labelled];
    let found = read(&logical);
    assert_eq!((&found.hosts[..], found.refresh), (&[host("blue.test", 80)][..], None), "gRPC asks when it must");
    let endpoint = &found.like.localities[0].endpoints[0];
    assert_eq!((&*endpoint.hostname, endpoint.weight), ("blue.test", 1));
    assert!(endpoint.metadata.contains_key("envoy.transport_socket_match"), "TLS may depend on it");

    let mut strict = with_type(DiscoveryType::StrictDns, addresses(&[socket("a", 1), socket("b", 2)]));
    let second = &mut assignment(&mut strict).endpoints[0].lb_endpoints[1];
    second.load_balancing_weight = Some(UInt32Value { value: 5 });
    let found = read(&strict);
    assert_eq!(found.hosts, [host("a", 1), host("b", 2)]);
    assert_eq!(found.refresh, Some(Duration::from_secs(5)), "Envoy's default");
    let named: Vec<_> = found.like.localities[0].endpoints.iter().map(|one| (&*one.hostname, one.weight)).collect();
    assert_eq!(named, [("a", 1), ("b", 5)]);
    strict.dns_refresh_rate = Some(protobuf::Duration { seconds: 60, nanos: 0 });
    strict.dns_lookup_family = DnsLookupFamily::V4Only as i32;
    assert_eq!((read(&strict).refresh, read(&strict).family), (Some(Duration::from_secs(60)), DnsFamily::V4Only));
    strict.dns_refresh_rate = Some(protobuf::Duration { seconds: 0, nanos: 2_000_000 });
    assert_eq!(read(&strict).refresh, Some(Duration::from_secs(1)), "no sooner, whatever is said");
}

/// What an endpoint says of its TLS.
fn mode(value: &str) -> core::Metadata {
    let kind = Some(protobuf::value::Kind::StringValue(value.to_owned()));
    let fields = [("tlsMode".to_owned(), protobuf::Value { kind })].into();
    core::Metadata {
        filter_metadata: [("envoy.transport_socket_match".to_owned(), protobuf::Struct { fields })].into(),
        ..Default::default()
    }
}

/// Envoy's rules hold for endpoints inside a cluster, as there is no EDS that gRPC would read.
#[test]
fn endpoints_of_a_static_cluster_follow_envoy() {
    let mut base = with_type(DiscoveryType::Static, addresses(&[socket("127.0.0.1", 1)]));
    let again = assignment(&mut base).endpoints[0].clone();
    assignment(&mut base).endpoints.push(endpoint::LocalityLbEndpoints { priority: 5, ..again });
    let part = Part { base, ..cluster() };
    // Rules 131 to 138: no locality, no weight, a gap, and the same locality and address twice.
    let value: Arc<Cluster> = part.value(|_| {});
    let DiscoveryKind::Static(endpoints) = &value.discovery else { panic!("{value:?}") };
    let found: Vec<(u32, u32)> = endpoints.localities.iter().map(|it| (it.priority, it.weight)).collect();
    assert_eq!(found, [(0, 1), (1, 1)], "the gap is closed");
    part.takes(&[(135, "a sum beyond 32 bits", |cluster| {
        for locality in &mut assignment(cluster).endpoints {
            locality.load_balancing_weight = u32_value(u32::MAX);
        }
    })]);
    part.refuses(&[
        (131, "load_assignment.endpoints[0].load_balancing_weight", |cluster| {
            assignment(cluster).endpoints[0].load_balancing_weight = u32_value(0);
        }),
        (136, "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value", |cluster| {
            first_socket(cluster).port_specifier = Some(core::socket_address::PortSpecifier::PortValue(70_000));
        }),
        (142, "load_assignment.policy.drop_overloads[0].category", |cluster| {
            use endpoint::cluster_load_assignment::policy::DropOverload;
            let drop_percentage = Some(Default::default());
            let drop = DropOverload { drop_percentage, ..Default::default() };
            assignment(cluster).policy.get_or_insert_default().drop_overloads.push(drop);
        }),
        (143, "load_assignment.policy.overprovisioning_factor", |cluster| {
            assignment(cluster).policy.get_or_insert_default().overprovisioning_factor = u32_value(0);
        }),
    ]);
}

fn outlier(cluster: &mut pb::Cluster) -> &mut pb::OutlierDetection {
    cluster.outlier_detection.get_or_insert_default()
}

/// gRFC A50.
#[test]
pub(super) fn rules_123_and_124_outlier_detection() {
    cluster().refuses(&[
        (123, "outlier_detection.interval", |cluster| outlier(cluster).interval = seconds(-1)),
        (123, "outlier_detection.base_ejection_time", |cluster| outlier(cluster).base_ejection_time = seconds(-1)),
        (123, "outlier_detection.max_ejection_time", |cluster| {
            outlier(cluster).max_ejection_time = seconds(315_576_000_001);
        }),
        // Envoy's.
        (123, "outlier_detection.interval", |cluster| outlier(cluster).interval = seconds(0)),
        (124, "outlier_detection.max_ejection_percent", |cluster| {
            outlier(cluster).max_ejection_percent = u32_value(101);
        }),
        (124, "outlier_detection.enforcing_success_rate", |cluster| {
            outlier(cluster).enforcing_success_rate = u32_value(101);
        }),
        (124, "outlier_detection.enforcing_failure_percentage", |cluster| {
            outlier(cluster).enforcing_failure_percentage = u32_value(101);
        }),
        (124, "outlier_detection.failure_percentage_threshold", |cluster| {
            outlier(cluster).failure_percentage_threshold = u32_value(101);
        }),
    ]);
    cluster().takes(&[
        (123, "the longest", |cluster| outlier(cluster).max_ejection_time = seconds(9_223_372_035)),
        (124, "all of them", |cluster| outlier(cluster).max_ejection_percent = u32_value(100)),
    ]);
}

#[test]
fn outlier_detection_has_every_default() {
    let value: Arc<Cluster> = cluster().value(|cluster| outlier(cluster).interval = None);
    let found = value.outlier.expect("there is one");
    let times = (found.interval, found.base_ejection_time, found.max_ejection_time);
    assert_eq!(times, (Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(300)));
    let rate = SuccessRate { stdev_factor: 1900, enforcement: 100, minimum_hosts: 5, request_volume: 100 };
    assert_eq!((found.max_ejection_percent, found.success_rate, found.failure_percentage), (10, Some(rate), None));
    assert_eq!((found.consecutive_5xx, found.consecutive_gateway_failure), (5, 0));

    let value: Arc<Cluster> = cluster().value(|cluster| {
        let outlier = outlier(cluster);
        outlier.base_ejection_time = seconds(400);
        outlier.enforcing_success_rate = u32_value(0);
        outlier.enforcing_failure_percentage = u32_value(50);
        outlier.enforcing_consecutive_5xx = u32_value(0);
    });
    let found = value.outlier.expect("there is one");
    assert_eq!(found.max_ejection_time, Duration::from_secs(400), "as long as the base at least");
    let failures = FailurePercentage { threshold: 85, enforcement: 50, minimum_hosts: 5, request_volume: 50 };
    assert_eq!((found.success_rate, found.failure_percentage), (None, Some(failures)));
    assert_eq!(found.consecutive_5xx, 0);
    assert!(cluster().value::<Cluster>(|_| {}).outlier.is_none(), "off unless it is asked for");
}

fn protocols(options: Option<UpstreamProtocolOptions>) -> HttpProtocolOptions {
    HttpProtocolOptions { upstream_protocol_options: options, ..Default::default() }
}

const TYPED: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

#[test]
pub(super) fn rule_125_upstream_protocols() {
    cluster().refuses(&[
        (125, "upstream_config.typed_config", |cluster| cluster.upstream_config = Some(extension(&eds()))),
        (125, "upstream_config.typed_config", |cluster| {
            cluster.upstream_config = Some(core::TypedExtensionConfig::default());
        }),
        (125, "upstream_config.typed_config.common_http_protocol_options.idle_timeout", |cluster| {
            let mut options = protocols(None);
            options.common_http_protocol_options.get_or_insert_default().idle_timeout = seconds(-1);
            cluster.upstream_config = Some(extension(&options));
        }),
        // Envoy's.
        (
            125,
            "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].explicit_http_config",
            |cluster| {
                let options = protocols(Some(UpstreamProtocolOptions::ExplicitHttpConfig(Default::default())));
                cluster.typed_extension_protocol_options.insert(TYPED.to_owned(), any(&options));
            },
        ),
        // Security: a check of the peer's name that is not made.
        (
            125,
            "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].upstream_http_protocol_options.auto_san_validation",
            |cluster| {
                let mut options = protocols(None);
                options.upstream_http_protocol_options.get_or_insert_default().auto_san_validation = true;
                cluster.typed_extension_protocol_options.insert(TYPED.to_owned(), any(&options));
            },
        ),
    ]);
    cluster().takes(&[(125, "an hour", |cluster| {
        let mut options = protocols(None);
        options.common_http_protocol_options.get_or_insert_default().idle_timeout = seconds(3600);
        cluster.upstream_config = Some(extension(&options));
    })]);
}

#[test]
pub(super) fn rules_127_129_and_130_what_is_not_read() {
    use envoy_types::pb::envoy::extensions::filters::http::gcp_authn::v3::Audience;
    cluster().takes(&[
        (127, "an audience of nobody", |cluster| {
            let metadata = &mut cluster.metadata.get_or_insert_default().typed_filter_metadata;
            metadata.insert("gcp".to_owned(), any(&Audience::default()));
        }),
        (129, "an unknown status", |cluster| {
            let statuses = core::HealthStatusSet { statuses: vec![99] };
            cluster.common_lb_config.get_or_insert_default().override_host_status = Some(statuses);
        }),
        (130, "an unknown metric", |cluster| cluster.lrs_report_endpoint_metrics = vec!["nonsense".to_owned()]),
    ]);
}

#[test]
fn the_protocol_is_what_the_newest_field_says() {
    use explicit_http_config::ProtocolConfig;
    let explicit = |protocol_config: ProtocolConfig| {
        let config = ExplicitHttpConfig { protocol_config: Some(protocol_config) };
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config))
    };
    for (options, expected) in [
        (None, HttpProtocol::Default),
        (explicit(ProtocolConfig::HttpProtocolOptions(Default::default())), HttpProtocol::Http1),
        (explicit(ProtocolConfig::Http2ProtocolOptions(Default::default())), HttpProtocol::Http2),
        (Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(Default::default())), HttpProtocol::SameAsRequest),
        (Some(UpstreamProtocolOptions::AutoConfig(Default::default())), HttpProtocol::Alpn),
    ] {
        let mut cluster = eds();
        cluster.typed_extension_protocol_options.insert(TYPED.to_owned(), any(&protocols(options)));
        let cluster: Arc<Cluster> = taken(decoder().decode(CLUSTER, &cluster.encode_to_vec()));
        assert_eq!(cluster.protocol, expected);
    }
    let old: Arc<Cluster> = cluster().value(|cluster| cluster.http2_protocol_options = Some(Default::default()));
    assert_eq!(old.protocol, HttpProtocol::Http2);
}

fn thresholds(list: Vec<Thresholds>) -> Option<pb::CircuitBreakers> {
    Some(pb::CircuitBreakers { thresholds: list, ..Default::default() })
}

/// gRFC A32.
#[test]
pub(super) fn rules_126_and_128_circuit_breakers() {
    cluster().refuses(&[
        (126, "circuit_breakers.per_host_thresholds[0].max_connections", |cluster| {
            let none = Thresholds { max_connections: u32_value(0), ..Default::default() };
            cluster.circuit_breakers.get_or_insert_default().per_host_thresholds = vec![none];
        }),
        // Envoy's.
        (128, "circuit_breakers.thresholds[0].retry_budget.budget_percent.value", |cluster| {
            let budget = pb::circuit_breakers::thresholds::RetryBudget {
                budget_percent: Some(Percent { value: 100.5 }),
                ..Default::default()
            };
            cluster.circuit_breakers =
                thresholds(vec![Thresholds { retry_budget: Some(budget), ..Default::default() }]);
        }),
    ]);
    cluster().takes(&[
        (126, "one connection", |cluster| {
            let one = Thresholds { max_connections: u32_value(1), ..Default::default() };
            cluster.circuit_breakers.get_or_insert_default().per_host_thresholds = vec![one];
        }),
        (128, "no request at all", |cluster| {
            cluster.circuit_breakers =
                thresholds(vec![Thresholds { max_requests: u32_value(0), ..Default::default() }]);
        }),
    ]);
    let value: Arc<Cluster> = cluster().value(|_| {});
    assert_eq!(value.circuit_breakers, CircuitBreakers::default());
    let default = CircuitBreakers::default();
    assert_eq!((default.max_requests, default.max_connections, default.max_pending_requests), (1024, 1024, 1024));
    let value: Arc<Cluster> = cluster().value(|cluster| {
        cluster.circuit_breakers = thresholds(vec![
            Thresholds { priority: 1, max_requests: u32_value(1), ..Default::default() },
            Thresholds {
                max_requests: u32_value(7),
                max_retries: u32_value(2),
                retry_budget: Some(Default::default()),
                ..Default::default()
            },
            Thresholds { max_requests: u32_value(9), ..Default::default() },
        ]);
    });
    let found = value.circuit_breakers;
    assert_eq!((found.max_requests, found.max_retries, found.max_connections), (7, Some(2), 1024));
    assert_eq!(found.retry_budget, Some(RetryBudget { millionths: 200_000, min_concurrency: 3 }));
}

#[test]
fn envoys_times_and_shares() {
    cluster().refuses(&[
        (0, "connect_timeout", |cluster| cluster.connect_timeout = seconds(0)),
        (0, "connect_timeout", |cluster| cluster.connect_timeout = seconds(-1)),
        (0, "common_lb_config.healthy_panic_threshold.value", |cluster| {
            let healthy_panic_threshold = Some(Percent { value: 101.0 });
            cluster.common_lb_config = Some(CommonLbConfig { healthy_panic_threshold, ..Default::default() });
        }),
        (0, "common_lb_config.healthy_panic_threshold.value", |cluster| {
            let healthy_panic_threshold = Some(Percent { value: f64::NAN });
            cluster.common_lb_config = Some(CommonLbConfig { healthy_panic_threshold, ..Default::default() });
        }),
    ]);
}

#[test]
fn a_cluster_becomes_what_it_says() {
    let value: Arc<Cluster> = cluster().value(|_| {});
    assert_eq!((&*value.name, value.connect_timeout), ("blue", Duration::from_secs(5)));
    assert!(value.tls.is_none() && value.load.is_none() && value.unsupported.is_empty());
    assert!((value.panic_threshold.0 - 50.0).abs() < f64::EPSILON);
    let value: Arc<Cluster> = cluster().value(|cluster| {
        cluster.connect_timeout = millis(1500);
        cluster.lrs_server = Some(this_server());
        // Rule 130: what is not known is ignored.
        let metrics = ["named_metrics.a.b", "cpu_utilization", "speed", "named_metrics.", "named_metrics.*"];
        cluster.lrs_report_endpoint_metrics = metrics.map(str::to_owned).to_vec();
        config(cluster).service_name = "eds".to_owned();
        cluster.common_lb_config =
            Some(CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 0.0 }), ..Default::default() });
        cluster.filters.push(pb::Filter::default());
        cluster.health_checks.push(core::HealthCheck::default());
    });
    assert_eq!(value.connect_timeout, Duration::from_millis(1500));
    assert!(value.panic_threshold.0 == 0.0);
    let metrics = vec![EndpointMetric::Named("a.b".into()), EndpointMetric::Cpu, EndpointMetric::AllNamed];
    assert_eq!(value.load, Some(LoadPolicy { service_name: "eds".into(), metrics }));
    let notes: Vec<(&str, UnsupportedEffect)> =
        value.unsupported.iter().map(|note| (note.field.as_str(), note.effect)).collect();
    let expected = [("filters", UnsupportedEffect::FailsRequests), ("health_checks", UnsupportedEffect::LeftOut)];
    assert_eq!(notes, expected);
}

/// A cluster that says something everywhere.
pub(super) fn rich() -> Vec<u8> {
    let mut cluster = eds();
    outlier(&mut cluster).interval = seconds(1);
    cluster.circuit_breakers = thresholds(vec![Thresholds { max_requests: u32_value(7), ..Default::default() }]);
    cluster.transport_socket = Some(super::tls::upstream_socket(&super::tls::upstream().base));
    cluster.load_balancing_policy = Some(super::policies::nested(3));
    cluster.connect_timeout = millis(1500);
    cluster.encode_to_vec()
}
