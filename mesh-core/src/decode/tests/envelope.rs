//! Rules 2 and 4: what every resource must have. Rules 1, 3, 5, 6 and 7 are the stream engine's.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;

use super::*;
use crate::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};

const TYPES: [&str; 4] = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT];

#[test]
fn rule_2_bytes_that_are_no_message_have_no_name() {
    for type_url in TYPES {
        match decoder().decode(type_url, &[0x0a, 0x05, b'a']) {
            Decoded::Err { name: None, faults } => assert!(faults[0].rule.contains("cannot be decoded"), "{faults:?}"),
            other => panic!("{type_url}: {other:?}"),
        }
    }
}

#[test]
fn rule_4_a_resource_needs_a_name() {
    for (type_url, named) in [
        (ROUTE_CONFIGURATION, RouteConfiguration { name: "x".to_owned(), ..Default::default() }.encode_to_vec()),
        (
            CLUSTER_LOAD_ASSIGNMENT,
            ClusterLoadAssignment { cluster_name: "x".to_owned(), ..Default::default() }.encode_to_vec(),
        ),
    ] {
        assert!(matches!(decoder().decode(type_url, &named), Decoded::Ok { name, .. } if &*name == "x"));
    }
    for type_url in TYPES {
        match decoder().decode(type_url, &[]) {
            Decoded::Err { name: None, faults } => assert_eq!((faults.len(), &*faults[0].path), (1, "name")),
            other => panic!("{type_url}: {other:?}"),
        }
    }
}

#[test]
fn a_refused_resource_keeps_its_name() {
    let listener = Listener { name: "l".to_owned(), ..Default::default() };
    let cluster = Cluster { name: "c".to_owned(), lb_policy: 77, ..Default::default() };
    for (type_url, bytes, expected) in
        [(LISTENER, listener.encode_to_vec(), "l"), (CLUSTER, cluster.encode_to_vec(), "c")]
    {
        match decoder().decode(type_url, &bytes) {
            Decoded::Err { name: Some(name), .. } => assert_eq!(&*name, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_type_that_is_not_known_is_refused() {
    let faults = refused(decoder().decode("envoy.config.core.v3.Node", &[]));
    assert!(faults[0].contains("envoy.config.core.v3.Node"), "{faults:?}");
}

#[test]
fn rule_7_fields_that_are_not_known_are_ignored() {
    let mut bytes = RouteConfiguration { name: "x".to_owned(), ..Default::default() }.encode_to_vec();
    // Field 4,000 as a varint.
    bytes.extend([0x80, 0xfa, 0x01, 0x01]);
    assert!(matches!(decoder().decode(ROUTE_CONFIGURATION, &bytes), Decoded::Ok { .. }));
}
