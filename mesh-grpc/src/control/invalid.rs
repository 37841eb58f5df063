//! Resources that all clients must refuse.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::Locality;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, RouteMatch, VirtualHost};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use mesh_core::resource::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, ResourceKey};
use mesh_core::source::responder::EncodedResource;
use prost::Message;

/// A type that no client knows.
const UNKNOWN: &str = "type.googleapis.com/mesh.test.Unknown";

/// What is served in the place of a resource.
pub(super) type Instead = fn(&ResourceKey) -> EncodedResource;

/// Bytes that are no message of any type.
pub(super) fn garbage(key: &ResourceKey) -> EncodedResource {
    EncodedResource::new(key.clone(), vec![0xff; 16])
}

/// A resource of this name that decodes and is not valid: refused by its rule, with siblings unharmed. Of a type that is not
/// known here, one that does not decode.
pub(super) fn invalid(key: &ResourceKey) -> EncodedResource {
    let name = key.name.to_string();
    let bytes = match &*key.type_url {
        LISTENER => listener(name).encode_to_vec(),
        ROUTE_CONFIGURATION => routes(name).encode_to_vec(),
        CLUSTER => cluster(name).encode_to_vec(),
        CLUSTER_LOAD_ASSIGNMENT => endpoints(name).encode_to_vec(),
        _ => vec![0xff],
    };
    EncodedResource::new(key.clone(), bytes)
}

fn listener(name: String) -> Listener {
    let unknown = Any { type_url: UNKNOWN.to_owned(), value: Vec::new() };
    Listener { name, api_listener: Some(ApiListener { api_listener: Some(unknown) }), ..Listener::default() }
}

/// A route without a path and without an action.
fn routes(name: String) -> RouteConfiguration {
    let route = Route { r#match: Some(RouteMatch::default()), ..Route::default() };
    let host = VirtualHost {
        name: "invalid".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfiguration { name, virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

fn cluster(name: String) -> Cluster {
    let custom = cluster::CustomClusterType {
        name: "invalid".to_owned(),
        typed_config: Some(Any { type_url: UNKNOWN.to_owned(), value: Vec::new() }),
    };
    Cluster {
        name,
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::ClusterType(custom)),
        ..Cluster::default()
    }
}

/// Priority 1 without priority 0.
fn endpoints(cluster_name: String) -> ClusterLoadAssignment {
    let locality = LocalityLbEndpoints {
        locality: Some(Locality { region: "invalid".to_owned(), ..Locality::default() }),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        priority: 1,
        ..LocalityLbEndpoints::default()
    };
    ClusterLoadAssignment { cluster_name, endpoints: vec![locality], ..ClusterLoadAssignment::default() }
}
