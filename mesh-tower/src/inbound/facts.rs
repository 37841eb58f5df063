//! What is known of a request on its way in, beside its head: what filters may ask.

use std::sync::Arc;

use mesh_core::model::Route;

use super::identify::PeerInfo;

/// What is known of a request beside its head.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestFacts {
    /// The connection it came on.
    pub peer: PeerInfo,
    /// The route that took it.
    pub route: Arc<Route>,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// The number of the configuration it is under.
    pub config_version: u64,
}
