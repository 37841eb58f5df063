//! Resources as a control plane would send them.

use std::net::SocketAddr;

use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};

pub(crate) const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The connection manager of `routes`, under one virtual host for every name.
pub(crate) fn manager(routes: &Value) -> Value {
    json!({
        "@type": HCM,
        "route_config": {"name": "table", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    })
}

/// The Listener of a client.
pub(crate) fn listener(name: &str, routes: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "api_listener": {"api_listener": manager(routes)},
    })
}

/// The Listener of a server at `address`, which hands everything to the application; with this transport socket.
pub(crate) fn server_listener(name: &str, address: SocketAddr, socket: Option<&Value>) -> Value {
    let hand_over = json!([{"match": {"prefix": ""}, "non_forwarding_action": {}}]);
    let mut chain = json!({"name": "all", "filters": [{"name": "http", "typed_config": manager(&hand_over)}]});
    if let Some(socket) = socket {
        chain["transport_socket"] = socket.clone();
    }
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}},
        "filter_chains": [chain],
    })
}

/// A route for everything to one cluster.
pub(crate) fn forward(cluster: &str) -> Value {
    json!({"match": {"prefix": ""}, "route": {"cluster": cluster}})
}

/// A cluster of these endpoints, that speaks HTTP/2.
pub(crate) fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoint = |address: &SocketAddr| {
        json!({"endpoint": {"address": {"socket_address": {
            "address": address.ip().to_string(), "port_value": address.port()}}}})
    };
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "typed_extension_protocol_options": {HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": {"http2_protocol_options": {}}}},
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"locality": {"region": "r"}, "load_balancing_weight": 1,
             "lb_endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()}]},
    })
}

pub(crate) fn encode(resources: &[Value]) -> Vec<EncodedResource> {
    resources.iter().map(|resource| resource_from_json(resource).unwrap()).collect()
}
