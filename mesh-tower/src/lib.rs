//! What the mesh does to a request, as Tower services in the application's own process.
//!
//! Two ways run through this crate, each a module whose parts are listed in their order: [`outbound`] for requests that
//! leave, [`inbound`] for requests that arrive. Beside them: [`connect`] makes connections, `secure` makes them TLS,
//! `observe` tells OpenTelemetry what happened.
#![forbid(unsafe_code)]

pub mod body;
pub mod filter;
pub mod reply;
#[cfg(any(feature = "client", feature = "server"))]
#[allow(dead_code, unused_imports, reason = "outbound/ and mesh.rs use it")]
pub mod connect;
#[cfg(feature = "server")]
pub mod inbound;
#[cfg(any(feature = "client", feature = "server"))]
#[allow(dead_code, unused_imports, reason = "the stacks that state facts come next")]
mod observe;

mod io;
#[allow(dead_code, unused_imports, reason = "mesh.rs builds it, connect/ and the control transport use it")]
mod secure;

/// Any error.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
