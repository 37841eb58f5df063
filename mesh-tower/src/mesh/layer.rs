//! The mesh over services of the application: routing, retries, timeouts, balancing and tracing, with the exchange itself
//! left to the application.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::error::Error;
use mesh_core::target::Target;
use tokio::runtime::Handle;
use tower_layer::Layer;
use tower_service::Service;

use super::builder::{OutboundParts, targets};
use super::{Mesh, Outbound};
use crate::BoxError;
use crate::body::MeshBody;
use crate::connect::{ConnectBackoff, EndpointFactory, MadeEndpoints, PickedEndpoint, ServiceEndpoints};
use crate::outbound::{HttpClient, Way, stack};

/// Puts the mesh around one service that sends requests where their URI says; see [`Mesh::layer`].
#[derive(Clone)]
pub struct MeshLayer {
    mesh: Mesh,
    target: Target,
}

/// Puts the mesh around services that are made, one for each endpoint; see [`Mesh::make_layer`].
#[derive(Clone)]
pub struct MeshMakeLayer<S> {
    mesh: Mesh,
    target: Target,
    runtime: Handle,
    made: PhantomData<fn() -> S>,
}

impl Mesh {
    /// A layer over any HTTP service of the application. Each attempt of a request arrives there with the picked endpoint's
    /// address as its URI's authority, the authority that was asked for as `host`, and a [`PickedEndpoint`] in its extensions.
    ///
    /// What the service speaks is not the mesh's to see: a cluster that demands TLS is refused here, because the layer
    /// cannot prove it. Every endpoint counts as ready.
    ///
    /// # Errors
    ///
    /// As [`Mesh::client`].
    pub fn layer(&self, target: &str) -> Result<MeshLayer, Error> {
        Ok(MeshLayer { mesh: self.clone(), target: self.known_target(target)? })
    }

    /// A layer over a service that makes services: it is called with a [`PickedEndpoint`] and gives the service for its
    /// requests. An endpoint is ready while it has one.
    ///
    /// # Errors
    ///
    /// As [`Mesh::client`], and [`Code::NO_RUNTIME`](mesh_core::error::Code::NO_RUNTIME) outside a Tokio runtime.
    pub fn make_layer<S>(&self, target: &str) -> Result<MeshMakeLayer<S>, Error> {
        let runtime = super::runtime()?;
        Ok(MeshMakeLayer { mesh: self.clone(), target: self.known_target(target)?, runtime, made: PhantomData })
    }

    fn known_target(&self, target: &str) -> Result<Target, Error> {
        let target = Target::parse(target)?;
        target.listener_name(&self.0.names)?;
        Ok(target)
    }

    /// A client with endpoints of its own, for one target.
    fn client_over(&self, target: &Target, factory: Arc<dyn EndpointFactory>) -> HttpClient {
        let Outbound { watches, signal, joining, options, in_flight, events, loads, node, telemetry, traffic, .. } =
            &self.0.outbound;
        let targets = targets(&self.0.names, options, watches);
        let parts = OutboundParts { targets: &targets, signal, options, events, loads, node };
        joining.lock().unwrap_or_else(PoisonError::into_inner).push(parts.apply(factory));
        signal.raise();
        let authority = target.authority();
        let default = authority.parse().ok();
        let way = match targets.pin(target) {
            Ok(pinned) => Way::Fixed { target: Arc::new(pinned), authority: authority.into() },
            Err(error) => Way::Refused(error),
        };
        let record = traffic.record(&way);
        // Whatever the application put into a request's extensions is for its own service.
        let stack = stack(way, targets, options, true);
        HttpClient::new(stack, default, in_flight.clone(), telemetry.clone(), record, self.0.clone())
    }
}

impl<S, B> Layer<S> for MeshLayer
where
    S: Service<Request<MeshBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Service = HttpClient;

    fn layer(&self, inner: S) -> HttpClient {
        self.mesh.client_over(&self.target, Arc::new(ServiceEndpoints::new(inner)))
    }
}

impl<M, S, B> Layer<M> for MeshMakeLayer<S>
where
    M: Service<PickedEndpoint, Response = S> + Clone + Send + Sync + 'static,
    M::Error: Into<BoxError>,
    M::Future: Send,
    S: Service<Request<MeshBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Service = HttpClient;

    fn layer(&self, inner: M) -> HttpClient {
        let (runtime, backoff) = (self.runtime.clone(), ConnectBackoff::default());
        let factory = MadeEndpoints::new(inner, runtime, backoff, fastrand::u64(..));
        self.mesh.client_over(&self.target, Arc::new(factory))
    }
}

impl fmt::Debug for MeshLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshLayer").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for MeshMakeLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshMakeLayer").field("target", &self.target).finish_non_exhaustive()
    }
}
