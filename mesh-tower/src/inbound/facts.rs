//! What is known of a request on its way in, beside its head: what filters may ask.

use std::net::IpAddr;
use std::sync::Arc;

use http::request;
use mesh_core::model::{Route, VirtualHost};
use mesh_core::route::format::FormatFacts;

use super::identify::PeerInfo;
use super::route::facts_of;
use crate::filter::FilterFacts;

/// What is known of a request beside its head.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestFacts {
    /// The connection it came on.
    pub peer: PeerInfo,
    /// The address of the client: the connection's, or what `x-forwarded-for` says as far as the Listener has it
    /// believed ([`OriginTrust`](mesh_core::model::OriginTrust)).
    pub client: IpAddr,
    /// The route that took it.
    pub route: Arc<Route>,
    /// The virtual host of that route.
    pub host: Arc<VirtualHost>,
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

    fn host(&self) -> &VirtualHost {
        &self.host
    }

    fn format<'a>(&'a self, request: &'a request::Parts) -> FormatFacts<'a> {
        FormatFacts {
            request: self.request(request),
            version: request.version,
            remote: Some(self.peer.remote_addr()),
            local: Some(self.peer.local_addr()),
            peer: self.peer.identity(),
            status: None,
        }
    }
}
