//! Rule 116: TLS that depends on the endpoint.

use envoy_types::pb::envoy::config::cluster::v3::{self as pb, cluster::TransportSocketMatch};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::cluster::cluster;
use super::tls::{upstream, upstream_socket};
use super::*;
use crate::model::cluster::TLS_MATCH;
use crate::model::{Cluster, Endpoint, Health, LocalityEndpoints, Metadata};

fn to_mode(mode: &str, transport_socket: core::TransportSocket) -> TransportSocketMatch {
    let mode = Value { kind: Some(Kind::StringValue(mode.to_owned())) };
    TransportSocketMatch {
        name: "tlsMode-istio".to_owned(),
        r#match: Some(Struct { fields: [("tlsMode".to_owned(), mode)].into() }),
        transport_socket: Some(transport_socket),
    }
}

fn to_everyone(transport_socket: core::TransportSocket) -> TransportSocketMatch {
    TransportSocketMatch { name: "everyone".to_owned(), r#match: None, transport_socket: Some(transport_socket) }
}

/// TLS that asks for this server name, by which it is known here.
fn tls(sni: &str) -> core::TransportSocket {
    upstream_socket(&UpstreamTlsContext { sni: sni.to_owned(), ..upstream().base })
}

fn plaintext() -> core::TransportSocket {
    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(any(&RawBuffer::default())));
    core::TransportSocket { name: "envoy.transport_sockets.raw_buffer".to_owned(), config_type }
}

/// As istiod writes it: mTLS to the endpoints that have it, plaintext to all others.
fn auto_mtls(cluster: &mut pb::Cluster) {
    cluster.transport_socket_matches = vec![to_mode("istio", tls("istio")), to_everyone(plaintext())];
}

#[test]
pub(super) fn rule_116_tls_by_endpoint() {
    cluster().refuses(&[
        (116, "transport_socket_matches[0].name transport_socket_matches[0].transport_socket", |cluster| {
            cluster.transport_socket_matches.push(TransportSocketMatch::default());
        }),
        (116, "transport_socket_matches[1].transport_socket.typed_config.common_tls_context", |cluster| {
            auto_mtls(cluster);
            cluster.transport_socket_matches[1].transport_socket =
                Some(upstream_socket(&UpstreamTlsContext::default()));
        }),
        // A tunnel, say.
        (116, "transport_socket_matches[1].transport_socket.typed_config", |cluster| {
            auto_mtls(cluster);
            let config = any(&core::Node::default());
            let config_type = Some(core::transport_socket::ConfigType::TypedConfig(config));
            let other = core::TransportSocket { config_type, ..Default::default() };
            cluster.transport_socket_matches[1].transport_socket = Some(other);
        }),
        (116, "transport_socket_matches", |cluster| {
            cluster.transport_socket_matches = vec![to_mode("istio", tls("istio")); 257];
        }),
        (116, "transport_socket_matcher", |cluster| cluster.transport_socket_matcher = Some(Default::default())),
    ]);
    cluster().takes(&[(116, "TLS where an endpoint says so", auto_mtls)]);
}

fn says(mode: Option<&str>) -> Metadata {
    let said = mode.map(|mode| (TLS_MATCH.to_owned(), serde_json::json!({"tlsMode": mode, "more": 1})));
    said.into_iter().collect()
}

/// The server name that is asked of an endpoint which, and whose locality, say this; None is plaintext.
fn chosen(cluster: &Cluster, endpoint: Option<&str>, locality: Option<&str>) -> Option<String> {
    let endpoint = Endpoint {
        address: ([127, 0, 0, 1], 80).into(),
        additional: Vec::new(),
        weight: 1,
        health: Health::Unknown,
        hostname: "".into(),
        metadata: says(endpoint),
    };
    let metadata = says(locality);
    let endpoints = Box::new([endpoint.clone()]);
    let locality = LocalityEndpoints { locality: Arc::default(), priority: 0, weight: 1, metadata, endpoints };
    cluster.tls_of(&endpoint, &locality).map(|tls| tls.sni.clone().expect("they all have one"))
}

fn each(cluster: &Cluster) -> Vec<Option<&str>> {
    cluster.each_tls().map(|tls| tls.and_then(|tls| tls.sni.as_deref())).collect()
}

#[test]
fn auto_mtls_is_for_the_endpoints_that_say_so() {
    let auto: Arc<Cluster> = cluster().value(auto_mtls);
    assert_eq!(chosen(&auto, Some("istio"), None).as_deref(), Some("istio"));
    assert_eq!(chosen(&auto, Some("disabled"), None), None);
    assert_eq!(chosen(&auto, None, None), None);
    assert_eq!(each(&auto), [Some("istio"), None]);
}

#[test]
fn the_first_match_wins_and_what_none_takes_gets_the_clusters_own() {
    let value: Arc<Cluster> = cluster().value(|cluster| {
        cluster.transport_socket = Some(tls("own"));
        cluster.transport_socket_matches =
            vec![to_mode("a", tls("first")), to_mode("a", tls("second")), to_mode("b", plaintext())];
    });
    assert_eq!(chosen(&value, Some("a"), None).as_deref(), Some("first"));
    assert_eq!(chosen(&value, Some("b"), None), None);
    assert_eq!(chosen(&value, Some("c"), None).as_deref(), Some("own"));
    assert_eq!(chosen(&value, None, None).as_deref(), Some("own"));
    assert_eq!(each(&value), [Some("first"), Some("second"), None, Some("own")]);
    let everyone: Arc<Cluster> = cluster().value(|cluster| {
        cluster.transport_socket_matches = vec![to_everyone(tls("everyone")), to_mode("a", plaintext())];
    });
    assert_eq!(chosen(&everyone, Some("a"), None).as_deref(), Some("everyone"));
    assert_eq!(chosen(&everyone, None, None).as_deref(), Some("everyone"));
    assert_eq!(each(&everyone), [Some("everyone")], "nobody gets to the rest");
}

/// All that is asked for must be said, as it was said.
#[test]
fn a_match_asks_for_all_of_its_criteria() {
    let value: Arc<Cluster> = cluster().value(|cluster| {
        let mut both = to_mode("istio", tls("both"));
        let more = Value { kind: Some(Kind::NumberValue(1.0)) };
        both.r#match.as_mut().expect("it has one").fields.insert("more".to_owned(), more);
        let mut three = both.clone();
        let absent = Value { kind: Some(Kind::NullValue(0)) };
        three.r#match.as_mut().expect("it has one").fields.insert("absent".to_owned(), absent);
        cluster.transport_socket_matches = vec![three, both];
    });
    assert_eq!(chosen(&value, Some("istio"), None).as_deref(), Some("both"));
    assert_eq!(chosen(&value, Some("ISTIO"), None), None);
}

/// As in Envoy, where no match takes the endpoint's metadata its locality's count.
#[test]
fn a_locality_speaks_for_the_endpoints_that_no_match_takes() {
    let value: Arc<Cluster> = cluster().value(|cluster| {
        cluster.transport_socket_matches = vec![to_mode("a", tls("a")), to_mode("b", tls("b"))];
    });
    assert_eq!(chosen(&value, None, Some("b")).as_deref(), Some("b"));
    assert_eq!(chosen(&value, Some("c"), Some("b")).as_deref(), Some("b"));
    assert_eq!(chosen(&value, Some("b"), Some("a")).as_deref(), Some("b"));
}
