//! What the numbers are measured with: a mesh with its control plane and servers in one process, the bare clients it is
//! compared with, and calls in any number.

pub mod calls;
pub mod config;
pub mod report;
pub mod route_change;
pub mod server;
pub mod telemetry;
pub mod world;

/// Why a number could not be measured.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
