//! The application's services, erased once: what is behind is compiled without them.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use mesh_core::error::{Code, Error};
use mesh_core::policy::retry::Failure;
use tokio::sync::Notify;
use tower_service::Service;

use super::{PickedEndpoint, Place};
use crate::BoxError;
use crate::body::MeshBody;
use crate::connect::classify::{failure_of, find, reason};
use crate::connect::{BoxFuture, EndpointFuture, Failed};

/// A service that takes requests.
pub(super) trait App: Send + Sync {
    /// Sends `request` to `place`. A service that will never be ready again says so to `broken`.
    fn call(&self, request: Request<MeshBody>, place: Arc<Place>, broken: Arc<Notify>) -> EndpointFuture;
}

/// Makes services.
pub(super) trait AppMaker: Send + Sync {
    /// Makes the one for `endpoint`.
    fn make(&self, endpoint: PickedEndpoint) -> BoxFuture<'static, Result<Box<dyn App>, BoxError>>;
}

/// A service, its type forgotten by who holds it.
pub(super) struct Erased<T>(pub(super) T);

impl<S, B> App for Erased<S>
where
    S: Service<Request<MeshBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, mut request: Request<MeshBody>, place: Arc<Place>, broken: Arc<Notify>) -> EndpointFuture {
        // Readiness is a clone's own: two requests must not take it from each other.
        let mut service = self.0.clone();
        Box::pin(async move {
            if let Err(error) = poll_fn(|cx| service.poll_ready(cx)).await {
                broken.notify_one();
                return Err(not_ready(&place.peer, error.into(), request));
            }
            place.address(&mut request);
            let response = service.call(request).await.map_err(|error| failed(&place.peer, error.into()))?;
            Ok(response.map(MeshBody::new))
        })
    }
}

impl<M, S> AppMaker for Erased<M>
where
    M: Service<PickedEndpoint, Response = S> + Clone + Send + Sync + 'static,
    M::Error: Into<BoxError>,
    M::Future: Send,
    Erased<S>: App + 'static,
{
    fn make(&self, endpoint: PickedEndpoint) -> BoxFuture<'static, Result<Box<dyn App>, BoxError>> {
        let mut maker = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| maker.poll_ready(cx)).await.map_err(Into::into)?;
            let service = maker.call(endpoint).await.map_err(Into::into)?;
            Ok(Box::new(Erased(service)) as Box<dyn App>)
        })
    }
}

fn not_ready(peer: &str, error: BoxError, request: Request<MeshBody>) -> Failed {
    let text = format!("the application's service for {peer} is not ready: {}", reason(&*error));
    let error = Error::new(Code::NO_CONNECTION, text).with_source(error);
    Failed { failure: Failure::Connect, error, request: Some(Box::new(request)) }
}

fn failed(peer: &str, error: BoxError) -> Failed {
    let is_refused =
        find::<std::io::Error>(&*error).is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    let (failure, code) =
        if is_refused { (Failure::Connect, Code::NO_CONNECTION) } else { (failure_of(&*error), Code::BROKEN) };
    let text = format!("the application's service failed to call {peer}: {}", reason(&*error));
    Failed { failure, error: Error::new(code, text).with_source(error), request: None }
}
