//! The xDS resources that a client of the mesh is configured with: one Listener, one route, one cluster.

use std::net::SocketAddr;

use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};

use crate::Error;

/// The authority of every server here, and the name of its Listener.
pub const AUTHORITY: &str = "greeter:80";

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const WRR: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.\
                   ClientSideWeightedRoundRobin";
const PROTOCOL: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const PREVIOUS_HOSTS: &str = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

/// What is configured of the way to the servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policies {
    /// mTLS with the development certificates, and a match of the server's SPIFFE ID.
    pub mtls: bool,
    /// The retry policy that istiod gives every route.
    pub retry: bool,
    /// Load is reported to the control plane, with metrics of the servers' own reports, and servers are weighed by those.
    pub load: bool,
}

/// The Listener whose routes are the table `routes`.
///
/// # Errors
///
/// None, unless this is no resource.
pub fn listener() -> Result<EncodedResource, Error> {
    encode(&json!({
        "@type": LISTENER,
        "name": AUTHORITY,
        "api_listener": {"api_listener": {
            "@type": HCM,
            "rds": {"route_config_name": "routes", "config_source": {"ads": {}}},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        }},
    }))
}

/// The table `routes`: everything goes to the clusters, by these weights. A cluster of weight 0 is known and gets nothing.
///
/// # Errors
///
/// None, unless this is no resource.
pub fn routes(clusters: &[(&str, u32)], policies: Policies) -> Result<EncodedResource, Error> {
    let weighted = |(name, weight): &(&str, u32)| json!({"name": name, "weight": weight});
    let clusters: Vec<_> = clusters.iter().map(weighted).collect();
    let mut route = json!({"weighted_clusters": {"clusters": clusters}, "timeout": "0s"});
    if policies.retry {
        route["retry_policy"] = istio_retry();
    }
    encode(&json!({
        "@type": ROUTES,
        "name": "routes",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}],
    }))
}

/// A cluster spoken to in HTTP/2, with its endpoints.
///
/// # Errors
///
/// None, unless this is no resource.
pub fn cluster(name: &str, endpoints: &[SocketAddr], policies: Policies) -> Result<[EncodedResource; 2], Error> {
    let mut cluster = json!({
        "@type": CLUSTER,
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
        "typed_extension_protocol_options": {
            PROTOCOL: {
                "@type": format!("type.googleapis.com/{PROTOCOL}"),
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    });
    if policies.mtls {
        cluster["transport_socket"] = mtls();
    }
    if policies.load {
        cluster["lrs_server"] = json!({"self": {}});
        cluster["lrs_report_endpoint_metrics"] = json!(["cpu_utilization", "named_metrics.*"]);
        let by_load = json!({"name": "by-load", "typed_config": {"@type": WRR, "blackout_period": "0s"}});
        cluster["load_balancing_policy"] = json!({"policies": [{"typed_extension_config": by_load}]});
    }
    let endpoint = |address: &SocketAddr| {
        json!({"endpoint": {"address": {"socket_address": {
            "address": address.ip().to_string(), "port_value": address.port()}}}})
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    let locality = json!({"locality": {"region": "here"}, "load_balancing_weight": 1, "lb_endpoints": endpoints});
    let assignment = json!({"@type": ENDPOINTS, "cluster_name": name, "endpoints": [locality]});
    Ok([encode(&cluster)?, encode(&assignment)?])
}

fn mtls() -> Value {
    let provider = json!({"instance_name": "default"});
    let validation = json!({
        "ca_certificate_provider_instance": provider,
        "match_subject_alt_names": [{"exact": crate::world::SERVER_ID}],
    });
    let common = json!({"tls_certificate_provider_instance": provider, "validation_context": validation, "alpn_protocols": ["h2"]});
    json!({"name": "tls", "typed_config": {"@type": TLS, "common_tls_context": common}})
}

/// The predicate that keeps retries off servers that were tried.
pub fn previous_hosts() -> Value {
    json!({"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}})
}

fn istio_retry() -> Value {
    json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retry_host_predicate": [previous_hosts()],
        "host_selection_retry_max_attempts": "5",
        "retriable_status_codes": [503],
    })
}

fn encode(resource: &Value) -> Result<EncodedResource, Error> {
    resource_from_json(resource).map_err(|why| format!("{why:?}").into())
}
