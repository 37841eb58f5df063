//! Authorization policies: a good one spoiled by its fields, and judged with requests made of the rest.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use arbitrary::{Result, Unstructured};
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::google::protobuf::Any;
use mesh_core::decode::{DecodeResource, Decoded, Dialect};
use mesh_core::model::{Listener, Metadata, Rbac, RbacAction, RbacRules};
use mesh_core::policy::rbac::RbacFacts;
use mesh_core::resource::LISTENER;
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::resource::{decoder, facts, request_of};
use crate::generate;

const CONFIG: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

pub(crate) fn rbac(data: &[u8]) {
    let mut u = Unstructured::new(data);
    // Where the bytes end, so does the case.
    if let Ok(listener) = spoiled(&mut u) {
        for dialect in [Dialect::Grpc, Dialect::Envoy] {
            judge(dialect, &listener, &mut u);
        }
    }
}

/// Whether the policy that these bytes make is taken.
pub(crate) fn is_taken(data: &[u8]) -> bool {
    let listener = spoiled(&mut Unstructured::new(data));
    listener.is_ok_and(|bytes| matches!(decoder().decode(LISTENER, &bytes), Decoded::Ok { .. }))
}

fn policy() -> Value {
    let name = |text: &str| json!({"exact": text, "ignore_case": true});
    let metadata =
        json!({"filter": "jwt", "path": [{"key": "a"}], "value": {"list_match": {"one_of": {"bool_match": true}}}});
    json!({
        "permissions": [{"and_rules": {"rules": [
            {"or_rules": {"rules": [
                {"header": {"name": "x", "string_match": {"safe_regex": {"regex": "(a|b)+"}}}},
                {"header": {"name": ":path", "range_match": {"start": 1, "end": 9}, "invert_match": true}},
                {"url_path": {"path": {"prefix": "/a"}}},
                {"metadata": metadata},
            ]}},
            {"not_rule": {"destination_port_range": {"start": 1, "end": 80}}},
            {"destination_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}},
            {"requested_server_name": name("a.test")},
        ]}}, {"any": true}],
        "principals": [{"or_ids": {"ids": [
            {"authenticated": {"principal_name": name("spiffe://td/a")}},
            {"and_ids": {"ids": [{"remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}, {"any": true}]}},
            {"not_id": {"direct_remote_ip": {"address_prefix": "fd00::", "prefix_len": 64}}},
            {"header": {"name": "host", "present_match": true}},
        ]}}],
    })
}

fn spoiled(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let config = json!({
        "rules": {"action": "ALLOW", "policies": {"p": policy(), "q": policy()}},
        "shadow_rules": {"action": "DENY", "policies": {"p": policy()}},
    });
    let mut config = DynamicMessage::deserialize(generate::descriptor(CONFIG), config).expect("it is a policy");
    generate::spoil(&mut config, u)?;
    let filter = |name: &str, type_url: &str, value| hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(any(type_url, value))),
        ..Default::default()
    };
    let manager = hcm::HttpConnectionManager {
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(Default::default())),
        http_filters: vec![filter("rbac", CONFIG, config.encode_to_vec()), filter("router", ROUTER, Vec::new())],
        ..Default::default()
    };
    let network = pb::Filter {
        name: "http".to_owned(),
        config_type: Some(pb::filter::ConfigType::TypedConfig(any(MANAGER, manager.encode_to_vec()))),
    };
    let address = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(80)),
        ..Default::default()
    };
    let listener = pb::Listener {
        name: "sample".to_owned(),
        address: Some(Address { address: Some(Kind::SocketAddress(address)) }),
        default_filter_chain: Some(pb::FilterChain { filters: vec![network], ..Default::default() }),
        ..Default::default()
    };
    Ok(listener.encode_to_vec())
}

fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/{type_url}"), value }
}

/// A policy is taken or refused for a reason; and of what is taken, nobody passes who is denied when judged again.
fn judge(dialect: Dialect, listener: &[u8], u: &mut Unstructured<'_>) {
    let value = match decoder().with_dialect(dialect).decode(LISTENER, listener) {
        Decoded::Ok { value, .. } => value,
        Decoded::Err { faults, .. } => {
            return assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.rule.is_empty()));
        }
    };
    let listener = value.downcast_ref::<Listener>().expect("the model");
    for filter in listener.connections().iter().flat_map(|connection| &connection.filters) {
        let config: &dyn std::any::Any = &*filter.config;
        let Some(rbac) = config.downcast_ref::<Rbac>() else { continue };
        for rules in rbac.rules.iter().chain(&rbac.shadow) {
            ask(rules, u);
        }
    }
}

fn ask(rules: &RbacRules, u: &mut Unstructured<'_>) {
    let Ok((authority, path, headers)) = request_of(u) else { return };
    let metadata = Metadata::from([("jwt".to_owned(), json!({"a": [true]}))]);
    let facts = RbacFacts {
        request: facts(&authority, &path, &headers),
        tls: true,
        peer: None,
        server_name: Some(&authority),
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        destination: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
        metadata: &metadata,
        route_metadata: &metadata,
    };
    let verdict = rules.judge(&facts);
    assert_eq!(verdict, rules.judge(&facts));
    let matched = verdict.policy.is_some();
    assert_eq!(
        verdict.allowed,
        match rules.action {
            RbacAction::Allow => matched,
            RbacAction::Deny => !matched,
            RbacAction::Log => true,
        }
    );
    assert!(verdict.audit_line("rbac", &path, None).contains("rpc_method"));
}
