//! One service of the application for all endpoints: `mesh.layer(target)`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::error::Error;
use tokio::sync::Notify;
use tower_service::Service;

use super::Place;
use super::erased::{App, Erased};
use super::refused::Refused;
use crate::BoxError;
use crate::body::MeshBody;
use crate::connect::{EndpointFactory, EndpointFuture, EndpointHandle, EndpointPlan, EndpointService};

/// Calls endpoints over a service that connects to what the URI says. Every endpoint is ready: what is not there is known
/// to the service alone.
pub(crate) struct ServiceEndpoints(Arc<dyn App>);

impl ServiceEndpoints {
    /// Over `service`. Each request has the endpoint's address as its URI's authority, the authority that was asked for as
    /// `host`, and the [`PickedEndpoint`](super::PickedEndpoint) in its extensions.
    pub(crate) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<MeshBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Arc::new(Erased(service)))
    }
}

impl fmt::Debug for ServiceEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceEndpoints")
    }
}

impl EndpointFactory for ServiceEndpoints {
    fn endpoint(&self, plan: EndpointPlan) -> Arc<dyn EndpointHandle> {
        if plan.tls.is_some() {
            return Arc::new(Refused::new(&plan));
        }
        let place = Arc::new(Place::new(&plan).in_uri());
        plan.state.set_ready();
        plan.changed.state_changed();
        Arc::new(ServiceEndpoint { app: self.0.clone(), place, broken: Arc::default() })
    }

    fn proves_tls(&self) -> bool {
        false
    }

    fn owns_connections(&self) -> bool {
        false
    }
}

struct ServiceEndpoint {
    app: Arc<dyn App>,
    place: Arc<Place>,
    /// Nobody listens: there is no second service to take its place.
    broken: Arc<Notify>,
}

impl fmt::Debug for ServiceEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceEndpoint").field(&self.place.peer).finish()
    }
}

impl EndpointService for ServiceEndpoint {
    fn call(&self, request: Request<MeshBody>) -> EndpointFuture {
        self.app.call(request, self.place.clone(), self.broken.clone())
    }
}

impl EndpointHandle for ServiceEndpoint {
    fn connect(&self) {}

    fn last_error(&self) -> Option<Error> {
        None
    }
}
