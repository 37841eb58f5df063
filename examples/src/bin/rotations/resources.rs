//! What the control plane says: a server, its clients' way to it, and mutual TLS between them.

use std::net::SocketAddr;
use std::path::Path;

use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use mesh_examples::Failure;
use serde_json::{Value, json};

pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
/// What the names of all clients begin with.
pub(crate) const CLIENTS: &str = "spiffe://cluster.local/ns/default/sa/client";
const TYPE: &str = "type.googleapis.com/envoy";

fn tls(kind: &str, mut context: Value) -> Value {
    context["@type"] = format!("{TYPE}.extensions.transport_sockets.tls.v3.{kind}").into();
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn manager(routes: &Value) -> Value {
    json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "route_config": {"name": "table", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.router.v3.Router")}}],
    })
}

/// Who is revoked stands in `revoked`; nobody without it.
pub(crate) fn resources(
    server: &str,
    address: SocketAddr,
    revoked: Option<&Path>,
) -> Result<Vec<EncodedResource>, Failure> {
    let default = json!({"instance_name": "default"});
    let common = |san: Value| {
        json!({"tls_certificate_provider_instance": default, "validation_context": {
            "ca_certificate_provider_instance": default, "match_subject_alt_names": [san]}})
    };
    let mut of_clients = common(json!({"prefix": CLIENTS}));
    if let Some(file) = revoked {
        of_clients["validation_context"]["crl"] = json!({"filename": file});
    }
    let socket = json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let downstream = json!({"require_client_certificate": true, "common_tls_context": of_clients});
    let served = manager(&json!([{"match": {"prefix": ""}, "non_forwarding_action": {}}]));
    let all = [
        json!({
            "@type": format!("{TYPE}.config.listener.v3.Listener"), "name": server, "address": socket,
            "filter_chains": [{"filters": [{"name": "http", "typed_config": served}],
                "transport_socket": tls("DownstreamTlsContext", downstream)}],
        }),
        json!({
            "@type": format!("{TYPE}.config.listener.v3.Listener"), "name": "svc",
            "api_listener": {"api_listener": manager(&json!([{"match": {"prefix": ""}, "route": {"cluster": "blue"}}]))},
        }),
        json!({
            "@type": format!("{TYPE}.config.cluster.v3.Cluster"), "name": "blue", "type": "STATIC",
            "transport_socket": tls("UpstreamTlsContext", json!({"common_tls_context": common(json!({"exact": SERVER}))})),
            "load_assignment": {"cluster_name": "blue", "endpoints": [{"locality": {"region": "r"},
                "load_balancing_weight": 1, "lb_endpoints": [{"endpoint": {"address": socket}}]}]},
        }),
    ];
    all.iter().map(|resource| resource_from_json(resource).map_err(|error| error.to_string().into())).collect()
}
