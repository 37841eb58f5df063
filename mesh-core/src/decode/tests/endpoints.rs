//! Rules 131 to 145: endpoints.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use pb::cluster_load_assignment::Policy;
use pb::cluster_load_assignment::policy::DropOverload;
use pb::lb_endpoint::HostIdentifier;

use super::*;
use crate::model::{Endpoints, Fraction, Health};
use crate::resource::CLUSTER_LOAD_ASSIGNMENT;

fn endpoint(ip: &str, port: u32) -> pb::LbEndpoint {
    pb::LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(pb::Endpoint {
            address: Some(socket(ip, port)),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn locality(zone: &str, priority: u32, endpoints: Vec<pb::LbEndpoint>) -> pb::LocalityLbEndpoints {
    pb::LocalityLbEndpoints {
        locality: Some(core::Locality { zone: zone.to_owned(), ..Default::default() }),
        load_balancing_weight: u32_value(1),
        priority,
        lb_endpoints: endpoints,
        ..Default::default()
    }
}

fn assignment() -> Part<pb::ClusterLoadAssignment> {
    let base = pb::ClusterLoadAssignment {
        cluster_name: "blue".to_owned(),
        endpoints: vec![
            locality("a", 0, vec![endpoint("10.0.0.1", 80), endpoint("10.0.0.2", 80)]),
            locality("b", 1, vec![endpoint("10.0.0.3", 80)]),
        ],
        ..Default::default()
    };
    Part { type_url: CLUSTER_LOAD_ASSIGNMENT, base, wrap: |value| value.encode_to_vec(), path: "" }
}

fn first(value: &mut pb::ClusterLoadAssignment) -> &mut pb::Endpoint {
    match &mut value.endpoints[0].lb_endpoints[0].host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        other => panic!("{other:?}"),
    }
}

fn more(address: Option<core::Address>) -> pb::endpoint::AdditionalAddress {
    pb::endpoint::AdditionalAddress { address }
}

fn drop_overload(category: &str, share: Option<FractionalPercent>) -> Option<Policy> {
    let drop = DropOverload { category: category.to_owned(), drop_percentage: share };
    Some(Policy { drop_overloads: vec![drop], ..Default::default() })
}

/// gRFCs A27 and A61.
#[test]
pub(super) fn rules_132_to_140_localities_and_endpoints() {
    assignment().refuses(&[
        (132, "endpoints[0].locality", |value| value.endpoints[0].locality = None),
        (133, "endpoints[1].locality", |value| {
            value.endpoints[1].locality = value.endpoints[0].locality.clone();
            value.endpoints[1].priority = 0;
        }),
        (134, "endpoints", |value| value.endpoints[1].priority = 2),
        (134, "endpoints", |value| value.endpoints[0].priority = 2),
        // The gap is looked for after the skipping.
        (134, "endpoints", |value| value.endpoints[0].load_balancing_weight = None),
        (135, "endpoints", |value| {
            value.endpoints[1].priority = 0;
            value.endpoints[1].load_balancing_weight = u32_value(u32::MAX);
        }),
        (136, "endpoints[0].lb_endpoints[0].endpoint", |value| {
            value.endpoints[0].lb_endpoints[0].host_identifier = None;
        }),
        (136, "endpoints[0].lb_endpoints[0].endpoint.address", |value| first(value).address = None),
        (136, "endpoints[0].lb_endpoints[0].endpoint.address", |value| {
            let pipe = core::address::Address::Pipe(core::Pipe::default());
            first(value).address = Some(core::Address { address: Some(pipe) });
        }),
        (136, "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address", |value| {
            first(value).address = Some(socket("localhost", 80));
        }),
        (136, "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value", |value| {
            first(value).address = Some(socket("10.0.0.1", 65536));
        }),
        (137, "endpoints[0].lb_endpoints[0].endpoint.additional_addresses[0].address", |value| {
            first(value).additional_addresses = vec![more(None)];
        }),
        (
            137,
            "endpoints[0].lb_endpoints[0].endpoint.additional_addresses[1].address.socket_address.address",
            |value| {
                first(value).additional_addresses = vec![more(Some(socket("::1", 1))), more(Some(socket("x", 1)))];
            },
        ),
        (138, "endpoints[0].lb_endpoints[1].endpoint.address", |value| {
            value.endpoints[0].lb_endpoints[1] = endpoint("10.0.0.1", 80);
        }),
        // In another locality, and among the additional ones.
        (138, "endpoints[1].lb_endpoints[0].endpoint.address", |value| {
            first(value).additional_addresses = vec![more(Some(socket("10.0.0.3", 80)))];
        }),
        (139, "endpoints[0].lb_endpoints[0].load_balancing_weight", |value| {
            value.endpoints[0].lb_endpoints[0].load_balancing_weight = u32_value(0);
        }),
        (140, "endpoints[0].lb_endpoints", |value| {
            value.endpoints[0].lb_endpoints[0].load_balancing_weight = u32_value(u32::MAX);
        }),
    ]);
    assignment().takes(&[
        (133, "the same locality in another priority", |value| {
            value.endpoints[1].locality = value.endpoints[0].locality.clone();
        }),
        (135, "the largest sum", |value| {
            value.endpoints[1].priority = 0;
            value.endpoints[1].load_balancing_weight = u32_value(u32::MAX - 1);
        }),
        (138, "another port", |value| value.endpoints[0].lb_endpoints[1] = endpoint("10.0.0.1", 81)),
        (140, "the largest sum", |value| {
            value.endpoints[0].lb_endpoints[0].load_balancing_weight = u32_value(u32::MAX - 1);
        }),
        (137, "another address", |value| first(value).additional_addresses = vec![more(Some(socket("::1", 1)))]),
    ]);
}

#[test]
pub(super) fn rule_131_a_locality_without_weight_is_skipped_whatever_is_in_it() {
    let value: Arc<Endpoints> = assignment().value(|value| {
        let mut broken = locality("c", 7, vec![pb::LbEndpoint::default()]);
        broken.locality = None;
        broken.load_balancing_weight = None;
        value.endpoints.push(broken.clone());
        broken.load_balancing_weight = u32_value(0);
        value.endpoints.push(broken);
    });
    assert_eq!((value.localities.len(), value.len()), (2, 3));
    table::shown(131, Answer::Taken);
}

#[test]
pub(super) fn rules_142_and_145_drops_and_collections() {
    assignment().refuses(&[
        (142, "policy.drop_overloads[0].category", |value| {
            value.policy = drop_overload("", Some(FractionalPercent { numerator: 1, denominator: 0 }));
        }),
        (142, "policy.drop_overloads[0].drop_percentage", |value| value.policy = drop_overload("lb", None)),
        (142, "policy.drop_overloads[0].drop_percentage.denominator", |value| {
            value.policy = drop_overload("lb", Some(FractionalPercent { numerator: 1, denominator: 3 }));
        }),
        // A "we can't": what a collection holds is not known, and an empty locality would send its traffic elsewhere.
        (145, "endpoints[0].leds_cluster_locality_config", |value| {
            let config = pb::LedsClusterLocalityConfig::default();
            value.endpoints[0].lb_config = Some(pb::locality_lb_endpoints::LbConfig::LedsClusterLocalityConfig(config));
        }),
    ]);
    let value: Arc<Endpoints> = assignment().value(|value| {
        value.policy = drop_overload("lb", Some(FractionalPercent { numerator: 150, denominator: 0 }));
    });
    assert_eq!(value.drops[0].category, "lb");
    assert_eq!(value.drops[0].fraction, Fraction { numerator: 100, denominator: 100 }, "capped to always");
    table::shown(142, Answer::Taken);
}

#[test]
pub(super) fn rules_143_and_144_what_is_not_read() {
    assignment().takes(&[
        (143, "no endpoints at all", |value| value.endpoints.clear()),
        (143, "no factor", |value| {
            value.policy.get_or_insert_default().overprovisioning_factor = u32_value(0);
        }),
        (143, "an age", |value| value.policy.get_or_insert_default().endpoint_stale_after = seconds(-1)),
        (143, "endpoints by name", |value| {
            value.named_endpoints.insert("x".to_owned(), pb::Endpoint::default());
        }),
        (144, "an address for a proxy that is none", |value| {
            let metadata = value.endpoints[0].lb_endpoints[0].metadata.get_or_insert_default();
            let key = "envoy.http11_proxy_transport_socket.proxy_address".to_owned();
            metadata.typed_filter_metadata.insert(key, garbage("envoy.config.core.v3.Address"));
        }),
        (144, "a hash key that is a number", |value| {
            let number = protobuf::Value { kind: Some(protobuf::value::Kind::NumberValue(7.0)) };
            let fields = protobuf::Struct { fields: [("hash_key".to_owned(), number)].into() };
            let metadata = value.endpoints[0].lb_endpoints[0].metadata.get_or_insert_default();
            metadata.filter_metadata.insert("envoy.lb".to_owned(), fields);
        }),
    ]);
}

#[test]
fn an_assignment_becomes_what_it_says() {
    let value: Arc<Endpoints> = assignment().value(|value| {
        value.endpoints[0].load_balancing_weight = u32_value(7);
        value.endpoints[0].locality =
            Some(core::Locality { region: "r".to_owned(), zone: "z".to_owned(), sub_zone: "s".to_owned() });
        first(value).hostname = "one.example".to_owned();
        first(value).additional_addresses = vec![more(Some(socket("::1", 81)))];
        value.endpoints[0].lb_endpoints[0].load_balancing_weight = u32_value(9);
        value.endpoints[0].lb_endpoints[0].health_status = 3;
    });
    let [near, far] = &value.localities[..] else { panic!("{value:?}") };
    assert_eq!(near.locality.to_string(), "{region=\"r\", zone=\"z\", sub_zone=\"s\"}");
    assert_eq!((near.weight, near.priority, far.weight, far.priority), (7, 0, 1, 1));
    let [one, two] = &near.endpoints[..] else { panic!("{near:?}") };
    assert_eq!((one.address.to_string().as_str(), one.weight, &*one.hostname), ("10.0.0.1:80", 9, "one.example"));
    assert_eq!((one.additional[0].to_string().as_str(), one.health), ("[::1]:81", Health::Draining));
    assert_eq!((two.weight, two.health), (1, Health::Unknown));
    assert_eq!(value.overprovisioning_factor, 140);
}

#[test]
pub(super) fn rule_141_who_takes_requests() {
    let all = [
        (0, Health::Unknown, true),
        (1, Health::Healthy, true),
        (2, Health::Unhealthy, false),
        (3, Health::Draining, false),
        (4, Health::Timeout, false),
        (5, Health::Degraded, false),
        // Of a later version: not healthy.
        (99, Health::Unhealthy, false),
    ];
    for (number, health, takes) in all {
        let mut value = assignment().base;
        value.endpoints[0].lb_endpoints[0].health_status = number;
        let value: Arc<Endpoints> = taken(decoder().decode(CLUSTER_LOAD_ASSIGNMENT, &value.encode_to_vec()));
        let found = value.localities[0].endpoints[0].health;
        assert_eq!((found, found.takes_requests()), (health, takes), "{number}");
    }
    table::shown(141, Answer::Taken);
}

/// An assignment that says something everywhere.
pub(super) fn rich() -> Vec<u8> {
    let mut value = assignment().base;
    value.policy = drop_overload("lb", Some(FractionalPercent { numerator: 1, denominator: 1 }));
    first(&mut value).additional_addresses = vec![more(Some(socket("::1", 81)))];
    value.endpoints[0].lb_endpoints[0].load_balancing_weight = u32_value(3);
    value.encode_to_vec()
}

/// An assignment with these weights of localities (and of their endpoints) and these priorities.
pub(super) fn weighted(weights: &[Option<u32>], priorities: &[u32]) -> Vec<u8> {
    let one = |(index, (weight, priority)): (usize, (&Option<u32>, &u32))| {
        let mut one = endpoint("10.0.0.1", 1 + u32::try_from(index).expect("few"));
        one.load_balancing_weight = weight.and_then(u32_value);
        let mut value = locality(&format!("z{index}"), *priority, vec![one]);
        value.load_balancing_weight = weight.and_then(u32_value);
        value
    };
    let endpoints = weights.iter().zip(priorities).enumerate().map(one).collect();
    let cluster_name = "blue".to_owned();
    pb::ClusterLoadAssignment { cluster_name, endpoints, ..Default::default() }.encode_to_vec()
}

/// An endpoint is decoded when its turn comes: what cannot be has a name and a place by then.
#[test]
fn an_endpoint_that_cannot_be_decoded_is_a_fault_at_its_place() {
    let good = locality("a", 0, vec![endpoint("10.0.0.1", 80)]).encode_to_vec();
    // The second endpoint is one byte that is no field.
    let broken = [&good[..], &[0x12, 1, 0xff]].concat();
    let mut bytes = vec![0x0a, 4];
    bytes.extend(b"blue");
    bytes.extend([0x12, u8::try_from(broken.len()).unwrap()]);
    bytes.extend(broken);
    bytes.extend([0x12, 1, 0xff]);
    match decoder().decode(CLUSTER_LOAD_ASSIGNMENT, &bytes) {
        Decoded::Err { name, faults } => {
            assert_eq!(name.as_deref(), Some("blue"));
            let paths: Vec<&str> = faults.iter().map(|fault| &*fault.path).collect();
            assert_eq!(paths, ["endpoints[0].lb_endpoints[1]", "endpoints[1]"], "{faults:?}");
        }
        other => panic!("{other:?}"),
    }
}
