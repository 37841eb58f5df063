//! What the mesh does to a request, as Tower services in the application's own process.
//!
//! Two ways run through this crate, each a module whose parts are listed in their order: [`outbound`] for requests that
//! leave, [`inbound`] for requests that arrive. Beside them: [`connect`] makes connections, `secure` makes them TLS,
//! `observe` tells OpenTelemetry what happened.
#![forbid(unsafe_code)]

mod mesh;
pub mod body;
pub mod filter;
pub mod reply;
pub mod connect;
pub mod outbound;
#[cfg(feature = "server")]
pub mod inbound;
mod observe;

#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "clients look at less of what passes"))]
mod frames;
mod io;
mod secure;

pub use mesh::{ExplainService, Mesh, MeshBuilder, MeshLayer, MeshMakeLayer, traffic};

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
