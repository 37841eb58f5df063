//! What is known of a request on its way out, beside its head: what filters may ask.

use std::sync::Arc;

use http::request;
use mesh_core::model::{Name, Route, VirtualHost};
use mesh_core::route::RequestFacts;
use mesh_core::route::format::FormatFacts;

use super::downstream::Downstream;
use crate::filter::{DynamicMetadata, FilterFacts};

/// What is known of a request beside its head.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutboundFacts {
    /// The target's Listener.
    pub target: Name,
    /// The route that took it.
    pub route: Arc<Route>,
    /// The virtual host of that route.
    pub host: Arc<VirtualHost>,
    /// The cluster it goes to; None if the route answers itself.
    pub cluster: Option<Name>,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// The number of the configuration it is under.
    pub config_version: u64,
    pub(crate) downstream: Downstream,
}

impl FilterFacts for OutboundFacts {
    fn request<'a>(&'a self, request: &'a request::Parts) -> RequestFacts<'a> {
        RequestFacts {
            method: &request.method,
            scheme: request.uri.scheme_str().unwrap_or("http"),
            authority: super::authority_of(&request.uri, &request.headers),
            path: request.uri.path_and_query().map_or("", |path| path.as_str()),
            headers: &request.headers,
            is_grpc: self.grpc,
            tls: self.downstream.tls(),
            source_ip: self.downstream.remote().map(|remote| remote.ip()),
            is_internal: false,
            channel_id: 0,
            metadata: request.extensions.get::<DynamicMetadata>().map(|found| &found.0),
        }
    }

    fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
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
            remote: self.downstream.remote(),
            local: self.downstream.local(),
            peer: self.downstream.peer(),
            status: None,
        }
    }
}
