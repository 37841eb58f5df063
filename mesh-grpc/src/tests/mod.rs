//! Over real sockets: generated clients, real servers, configuration as a control plane would send it.

pub(crate) mod config;
pub(crate) mod backend;
mod calls;
mod failing;
mod raw;
mod load;
mod weighing;
mod served;
#[cfg(feature = "control")]
mod authorization;
#[cfg(feature = "control")]
mod control_planes;
#[cfg(all(feature = "control", unix))]
mod last_good;
#[cfg(feature = "control")]
mod grace;
#[cfg(feature = "control")]
mod mtls;
#[cfg(feature = "control")]
mod sds;
#[cfg(feature = "control")]
mod wire;

use mesh_core::source::MemorySource;
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{Mesh, MeshChannel};
use config::{cluster, encode, listener};

const TARGET: &str = "xds:///greeter";

/// A mesh with these resources, and the handle that changes them.
fn mesh(resources: &[Value]) -> (Mesh, MemorySource) {
    let source = MemorySource::new(encode(resources));
    (Mesh::builder().source(source.clone()).build().unwrap(), source)
}

/// A generated client of `greeter`.
pub(crate) fn health(mesh: &Mesh) -> HealthClient<MeshChannel> {
    HealthClient::new(MeshChannel::new(mesh, TARGET).unwrap())
}

/// Asks for the health of `service`; see [`backend::Backend`] for what the names mean there.
pub(crate) fn ask(service: &str) -> tonic::Request<HealthCheckRequest> {
    tonic::Request::new(HealthCheckRequest { service: service.to_owned() })
}

/// A mesh whose `greeter` is these endpoints.
fn to(endpoints: &[std::net::SocketAddr]) -> Mesh {
    mesh(&[listener("greeter", &json!([config::forward("blue")])), cluster("blue", endpoints)]).0
}
