//! What is known of a request on its way in, beside its head: what filters may ask.

use std::sync::Arc;

use http::request;
use mesh_core::model::Route;

use super::identify::PeerInfo;
use super::route::facts_of;
use crate::filter::FilterFacts;

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

impl FilterFacts for RequestFacts {
    fn request<'a>(&'a self, request: &'a request::Parts) -> mesh_core::route::RequestFacts<'a> {
        facts_of(request, &self.peer)
    }

    fn cluster(&self) -> Option<&str> {
        None
    }

    fn route(&self) -> &Route {
        &self.route
    }
}
