//! What the control plane is told to serve, and the resources that say so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, TYPE_URL_PREFIX};
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use mesh_examples::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The target of all requests.
pub(crate) const TARGET: &str = "xds:///svc";
/// Its Listener.
pub(crate) const LISTENER: &str = "svc";

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A Listener, its routes, and clusters.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct World {
    /// The cluster of the route for everything.
    pub(crate) to: String,
    /// How many routes there are before it, which no request takes.
    pub(crate) routes: u32,
    /// Changes each of those routes.
    pub(crate) edition: u64,
    pub(crate) clusters: BTreeMap<String, Discovered>,
}

/// A cluster's endpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Discovered {
    /// These.
    At(Vec<SocketAddr>),
    /// So many, on as many addresses of the loopback network, at these ports in turn.
    Many(u32, Vec<u16>),
    /// The cluster is there, and nothing is said of its endpoints.
    Unknown,
    /// There is no such cluster, and its endpoints are told.
    Deleted(Vec<SocketAddr>),
}

impl World {
    /// One cluster, `blue`, of these endpoints.
    pub(crate) fn of(endpoints: &[SocketAddr]) -> Self {
        let clusters = BTreeMap::from([("blue".to_owned(), Discovered::At(endpoints.to_vec()))]);
        Self { to: "blue".to_owned(), routes: 0, edition: 0, clusters }
    }

    /// With this cluster.
    pub(crate) fn with(mut self, name: &str, discovered: Discovered) -> Self {
        self.clusters.insert(name.to_owned(), discovered);
        self
    }

    /// With all requests sent to this cluster.
    pub(crate) fn to(mut self, name: &str) -> Self {
        name.clone_into(&mut self.to);
        self
    }

    /// The resources.
    pub(crate) fn encode(&self) -> Result<Vec<EncodedResource>, Failure> {
        let mut resources = vec![listener(), self.table()];
        for (name, discovered) in &self.clusters {
            if !matches!(discovered, Discovered::Deleted(_)) {
                resources.push(cluster(name));
            }
            resources.extend(assignment(name, discovered));
        }
        Ok(resources.iter().map(resource_from_json).collect::<Result<_, _>>()?)
    }

    fn table(&self) -> Value {
        let mut routes: Vec<Value> = (0..self.routes)
            .map(|number| {
                json!({"match": {"prefix": format!("/never/{}/{number}", self.edition)}, "route": {"cluster": self.to}})
            })
            .collect();
        // What every cluster but one needs in order to be asked for.
        routes.extend(
            self.clusters
                .keys()
                .filter(|name| **name != self.to && self.is_known(name))
                .map(|name| json!({"match": {"prefix": format!("/{name}/")}, "route": {"cluster": name}})),
        );
        routes.push(json!({"match": {"prefix": "/"}, "route": {"cluster": self.to}}));
        json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "table",
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        })
    }

    fn is_known(&self, name: &str) -> bool {
        matches!(self.clusters.get(name), Some(Discovered::At(_) | Discovered::Many(..)))
    }
}

fn listener() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": LISTENER,
        "api_listener": {"api_listener": {
            "@type": HCM,
            "rds": {"config_source": {"ads": {}}, "route_config_name": "table"},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        }},
    })
}

fn cluster(name: &str) -> Value {
    json!({
        "@type": format!("{TYPE_URL_PREFIX}{CLUSTER}"),
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": {"ads": {}}},
        "typed_extension_protocol_options": {HTTP_OPTIONS: {
            "@type": format!("{TYPE_URL_PREFIX}{HTTP_OPTIONS}"),
            "explicit_http_config": {"http2_protocol_options": {}}}},
    })
}

fn assignment(name: &str, discovered: &Discovered) -> Option<Value> {
    let endpoints: Vec<Value> = match discovered {
        Discovered::At(endpoints) | Discovered::Deleted(endpoints) => endpoints.iter().map(endpoint).collect(),
        Discovered::Many(count, ports) => {
            (0..*count).zip(ports.iter().cycle()).map(|(number, port)| endpoint(&loopback(number, *port))).collect()
        }
        Discovered::Unknown => return None,
    };
    let locality = json!({"locality": {"region": "r"}, "load_balancing_weight": 1, "lb_endpoints": endpoints});
    let localities =
        if locality["lb_endpoints"].as_array().is_some_and(Vec::is_empty) { vec![] } else { vec![locality] };
    Some(json!({
        "@type": format!("{TYPE_URL_PREFIX}{CLUSTER_LOAD_ASSIGNMENT}"),
        "cluster_name": name,
        "endpoints": localities,
    }))
}

fn endpoint(address: &SocketAddr) -> Value {
    json!({"endpoint": {"address": {"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}}}})
}

/// An address of this machine: all of 127.0.0.0/8 is. The first is 127.1.0.0.
pub(crate) fn loopback(number: u32, port: u16) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([127, 1 + a, b, c], port))
}
