//! One service of the application for each endpoint: `mesh.make_layer(target)`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::error::{Code, Error};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;
use tower_service::Service;

use super::erased::{App, AppMaker, Erased};
use super::refused::Refused;
use super::{PickedEndpoint, Place};
use crate::BoxError;
use crate::body::MeshBody;
use crate::connect::backoff::Backoff;
use crate::connect::classify::reason;
use crate::connect::link::{Establish, Established, Link, Lost};
use crate::connect::{
    BoxFuture, ConnectBackoff, EndpointFactory, EndpointFuture, EndpointHandle, EndpointPlan, EndpointService,
};

/// Calls endpoints over services that the application makes, one for each. An endpoint is ready while it has one; it is
/// made as a connection would be: at once or on demand, within the cluster's connect timeout, again after a wait if that fails.
pub(crate) struct MadeEndpoints {
    maker: Arc<dyn AppMaker>,
    runtime: Handle,
    backoff: ConnectBackoff,
    random: Mutex<fastrand::Rng>,
}

impl MadeEndpoints {
    /// Over the services of `maker`, on tasks of `runtime`. A service that says by `poll_ready` that it failed is replaced.
    pub(crate) fn new<M, S, B>(maker: M, runtime: Handle, backoff: ConnectBackoff, seed: u64) -> Self
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
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        Self { maker: Arc::new(Erased(maker)), runtime, backoff, random }
    }
}

impl fmt::Debug for MadeEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MadeEndpoints")
    }
}

impl EndpointFactory for MadeEndpoints {
    fn endpoint(&self, plan: EndpointPlan) -> Arc<dyn EndpointHandle> {
        if plan.tls.is_some() {
            return Arc::new(Refused::new(&plan));
        }
        let random = self.random.lock().unwrap_or_else(PoisonError::into_inner).fork();
        let place = Arc::new(Place::new(&plan));
        let peer = place.peer.clone();
        let make = Make { maker: self.maker.clone(), place, limit: plan.connect_timeout };
        Arc::new(Link::start(&plan, peer, make, Backoff::new(self.backoff, random), &self.runtime))
    }

    fn proves_tls(&self) -> bool {
        false
    }

    fn owns_connections(&self) -> bool {
        false
    }
}

/// Makes the service of one endpoint.
struct Make {
    maker: Arc<dyn AppMaker>,
    place: Arc<Place>,
    limit: Duration,
}

impl Establish for Make {
    fn establish(&self) -> BoxFuture<'_, Result<Established, Error>> {
        Box::pin(async move {
            let app = timeout(self.limit, self.maker.make(self.place.picked.clone()))
                .await
                .map_err(|_| self.timed_out())?
                .map_err(|error| self.failed(error))?;
            let broken = Arc::new(Notify::new());
            let watched = broken.clone();
            let lost = async move {
                watched.notified().await;
                Lost::Ended
            };
            let service = MadeEndpoint { app, place: self.place.clone(), broken };
            Ok(Established { service: Box::new(service), lost: Box::pin(lost) })
        })
    }
}

impl Make {
    fn failed(&self, error: BoxError) -> Error {
        let text = format!("the application made no service for {}: {}", self.place.peer, reason(&*error));
        Error::new(Code::NO_CONNECTION, text).with_source(error)
    }

    fn timed_out(&self) -> Error {
        let text = format!("the application made no service for {} within {:?}", self.place.peer, self.limit);
        Error::new(Code::CONNECTION_TIMEOUT, text)
    }
}

struct MadeEndpoint {
    app: Box<dyn App>,
    place: Arc<Place>,
    broken: Arc<Notify>,
}

impl fmt::Debug for MadeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MadeEndpoint").field(&self.place.peer).finish()
    }
}

impl EndpointService for MadeEndpoint {
    fn call(&self, request: Request<MeshBody>) -> EndpointFuture {
        self.app.call(request, self.place.clone(), self.broken.clone())
    }
}
