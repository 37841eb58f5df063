//! What is known of a request on its way out, beside its head: what filters may ask.

use std::sync::Arc;

use mesh_core::model::{Name, Route};

/// What is known of a request beside its head.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundFacts {
    /// The target's Listener.
    pub target: Name,
    /// The route that took it.
    pub route: Arc<Route>,
    /// The cluster it goes to; None if the route answers itself.
    pub cluster: Option<Name>,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// The number of the configuration it is under.
    pub config_version: u64,
}
