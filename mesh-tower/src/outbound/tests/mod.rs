//! Tests of the whole way, on loopback, against real servers: configuration as a control plane would send it.

mod allocating;
mod away;
mod backend;
mod built_in;
mod explaining;
mod filters;
mod grace;
mod hedging;
mod limiting;
mod limits;
mod mirroring;
mod names;
mod passing;
#[cfg(feature = "server")]
mod passing_tls;
mod redirecting;
mod retrying;
mod subsets;
mod routing;
mod shaping;
mod steering;
mod ways;
mod weighing;

use std::net::SocketAddr;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use mesh_core::error::{Code, Error};
use mesh_core::source::MemorySource;
use mesh_core::source::file::resource_from_json;
use mesh_core::source::responder::EncodedResource;
use serde_json::{Value, json};

use super::{HttpClient, ResponseBody};
use crate::Mesh;
pub(super) use backend::Backend;

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

/// A Listener for the client of `name`, with its routes in it.
pub(super) fn listener(name: &str, route_config: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "api_listener": {"api_listener": {
            "@type": HCM,
            "route_config": route_config,
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        }},
    })
}

/// Routes of one virtual host for everything.
pub(super) fn routes(routes: &Value) -> Value {
    json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

/// A route for everything to one cluster.
pub(super) fn to(cluster: &str) -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster}}])
}

/// A static cluster.
pub(super) fn cluster(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoint = |address: &SocketAddr| {
        json!({"endpoint": {"address": {"socket_address": {
            "address": address.ip().to_string(), "port_value": address.port()}}}})
    };
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"locality": {"region": "r"}, "load_balancing_weight": 1,
             "lb_endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>()}]},
    })
}

pub(super) fn encode(resources: &[Value]) -> Vec<EncodedResource> {
    resources.iter().map(|resource| resource_from_json(resource).unwrap()).collect()
}

/// A mesh with these resources, and the handle that changes them.
pub(super) fn mesh(resources: &[Value]) -> (Mesh, MemorySource) {
    let source = MemorySource::new(encode(resources));
    (Mesh::builder().source(source.clone()).build().unwrap(), source)
}

/// A client of a mesh in which host `a` has these routes.
pub(super) fn client(route_config: &Value, clusters: &[Value]) -> HttpClient {
    let mut resources = vec![listener("a:80", route_config)];
    resources.extend_from_slice(clusters);
    mesh(&resources).0.http()
}

pub(super) async fn text(response: Response<ResponseBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The status and text of a GET.
pub(super) async fn get(client: &HttpClient, uri: &str) -> (StatusCode, String) {
    let response = client.get(uri).await.unwrap();
    (response.status(), text(response).await)
}

pub(super) fn code(result: Result<Response<ResponseBody>, Error>) -> Code {
    result.unwrap_err().code()
}
