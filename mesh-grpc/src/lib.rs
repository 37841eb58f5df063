//! The mesh, spoken in gRPC: generated tonic clients call through it, tonic services are served on it.
//!
//! ```no_run
//! use mesh_grpc::{Mesh, MeshChannel};
//! use tonic_health::pb::HealthCheckRequest;
//! use tonic_health::pb::health_client::HealthClient;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // From GRPC_XDS_BOOTSTRAP, the bootstrap of an xDS control plane, or MESH_CONFIG, a YAML file of routes.
//! let mesh = Mesh::from_env()?;
//! let mut greeter = HealthClient::new(MeshChannel::new(&mesh, "xds:///greeter:50051")?);
//! if let Err(status) = greeter.check(HealthCheckRequest::default()).await {
//!     // The status that the gRFCs ask for, and behind it the mesh's own error.
//!     println!("{} {:?}", status.code(), mesh_grpc::error_of(&status).map(|error| error.code()));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! In the order of a call's way: the channel ([`MeshChannel`]), what a failure looks like in gRPC ([`status_of`],
//! [`error_of`]), and the server ([`serve`], [`peer_identity`]; [`OrcaService`] says its load). Beside them, each behind a feature of its name, the admin
//! services (`admin`) and the local control plane (`control`).
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod channel;
mod status;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod codec;
#[cfg(feature = "server")]
mod orca;
#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "control")]
pub mod control;
#[cfg(test)]
#[cfg(all(feature = "client", feature = "server"))]
mod tests;

#[cfg(feature = "client")]
pub use channel::{ChannelBody, ChannelFuture, MeshChannel};
#[cfg(feature = "server")]
pub use orca::OrcaService;
#[cfg(feature = "server")]
pub use server::{peer_identity, serve, serve_on};
pub use status::{error_of, status_of};

pub use mesh_core::bootstrap::Bootstrap;
pub use mesh_core::error::{Blame, Code, Error, Kind, Stage};
pub use mesh_core::identity::{PeerIdentity, SpiffeId};
#[cfg(feature = "server")]
pub use mesh_core::load::Load;
pub use mesh_core::source::MemorySource;
pub use mesh_tower::connect::{ConnectSettings, TcpKeepalive};
#[cfg(feature = "server")]
pub use mesh_tower::inbound::{Bound, InboundLayer, InboundOptions, LoadRecorder, MeshListener, PeerInfo, ServerLoad};
pub use mesh_tower::outbound::{HttpClient, OutboundOptions, UnknownHosts, WaitForReady};
pub use mesh_tower::{Mesh, MeshBuilder};
