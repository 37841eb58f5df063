//! The client that applications hold.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri};
use http_body::Body;
use mesh_core::error::{Code, Error};
use mesh_core::policy::grpc::GrpcStatus;
use mesh_core::route::facts::is_grpc;
use tower_service::Service;

use super::stack::{Stack, StackFuture};
use super::stage::Arrived;
use super::{ResponseBody, authority_of};
use crate::BoxError;
use crate::body::MeshBody;
use crate::mesh::{ClientRecord, InFlight, InFlightGuard};
use crate::observe::{CallEnd, CallFacts, CallObserver, Telemetry};

/// A request's extension: it waits for an endpoint that can take it where others fail at once, until its deadline (gRPC's
/// `wait_for_ready`). It also waits for configuration that cannot be had now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitForReady;

/// A request's extension: its caller is one of ours, and may steer retries and timeouts by Envoy's `x-envoy-*` headers
/// ([`Steering`](mesh_core::policy::steering::Steering)). Without it those headers are taken out unread.
///
/// The mesh's servers put it into requests of internal callers (`use_remote_address` with `internal_address_config`). An
/// application may do so itself; one that copies a stranger's headers into a new request does not by accident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InternalCaller;

/// An HTTP client of the mesh: for any host, or for one target.
///
/// It is a Tower service, always ready, cheap to clone. [`send`](Self::send) is the same without Tower. A response is any
/// answer of a server or of the mesh's configuration (a redirect, a direct response); an [`Error`] says that there is none,
/// and why.
#[derive(Clone)]
pub struct HttpClient {
    stack: Stack,
    /// The authority of requests that have none.
    authority: Option<Authority>,
    in_flight: Arc<InFlight>,
    telemetry: Telemetry,
    record: Arc<ClientRecord>,
    /// Clients keep the mesh alive.
    _mesh: Arc<dyn Any + Send + Sync>,
}

impl HttpClient {
    pub(crate) fn new(
        stack: Stack,
        authority: Option<Authority>,
        in_flight: Arc<InFlight>,
        telemetry: Telemetry,
        record: Arc<ClientRecord>,
        mesh: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { stack, authority, in_flight, telemetry, record, _mesh: mesh }
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// There is no response; [`Error::code`] says why, and its text what to do.
    pub fn send<B>(&self, request: Request<B>) -> ResponseFuture
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.send_erased(request.map(MeshBody::new))
    }

    /// Sends a GET request to `uri`, which has a host unless the client is for one target.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Code::BAD_REQUEST`] if `uri` is none.
    pub fn get(&self, uri: &str) -> ResponseFuture {
        match uri.parse::<Uri>() {
            Ok(uri) => {
                let mut request = Request::new(MeshBody::empty());
                *request.uri_mut() = uri;
                self.send_erased(request)
            }
            Err(error) => ResponseFuture::failed(Error::new(Code::BAD_REQUEST, format!("`{uri}` is no URI: {error}"))),
        }
    }

    fn send_erased(&self, mut request: Request<MeshBody>) -> ResponseFuture {
        let Some(guard) = self.in_flight.enter() else {
            return ResponseFuture::failed(Error::new(Code::SHUT_DOWN, "the mesh was shut down"));
        };
        match normalize(&mut request, self.authority.as_ref()) {
            Ok(()) => {
                let observer = self.observe(&request);
                let arrived = Arrived { request, link: observer.link() };
                let call = Box::pin(self.stack.clone().call(arrived));
                ResponseFuture(Kind::Sent { call, held: Some((guard, observer)) })
            }
            Err(error) => ResponseFuture::failed(error),
        }
    }

    fn observe(&self, request: &Request<MeshBody>) -> CallObserver {
        let said = authority_of(request.uri(), request.headers());
        self.telemetry.call(&CallFacts {
            calls: self.record.calls(),
            method: request.method(),
            path: request.uri().path(),
            grpc: is_grpc(request.headers()),
            target: self.authority.as_ref().map_or(said, Authority::as_str),
            headers: request.headers(),
        })
    }
}

impl<B> Service<Request<B>> for HttpClient
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        self.send(request)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// A response on its way. Dropping it cancels the request.
pub struct ResponseFuture(Kind);

enum Kind {
    Failed(Option<Error>),
    /// One allocation for the whole call: its layers are one future.
    Sent {
        call: Pin<Box<StackFuture>>,
        held: Option<(InFlightGuard, CallObserver)>,
    },
}

impl ResponseFuture {
    fn failed(error: Error) -> Self {
        Self(Kind::Failed(Some(error)))
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Kind::Failed(error) => Poll::Ready(Err(error.take().expect("a future is not polled after it is done"))),
            Kind::Sent { call, held } => {
                let done = ready!(call.as_mut().poll(cx));
                let Some((guard, observer)) = held.take() else { return Poll::Ready(done) };
                Poll::Ready(match done {
                    Ok(mut response) => {
                        let (status, grpc) = (response.status(), GrpcStatus::of(response.headers()));
                        response.body_mut().hold_call(guard, observer, status, grpc);
                        Ok(response)
                    }
                    Err(error) => {
                        observer.end(&CallEnd { error: Some(&error), retries: error.retries(), ..CallEnd::default() });
                        Err(error)
                    }
                })
            }
        }
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Gives a request one authority, in its URI, and a scheme.
fn normalize(request: &mut Request<MeshBody>, default: Option<&Authority>) -> Result<(), Error> {
    let complete = request.uri().authority().is_some() && request.uri().scheme().is_some();
    if complete && !request.headers().contains_key(HOST) {
        return Ok(());
    }
    let host = request.headers_mut().remove(HOST);
    if complete || request.method() == Method::CONNECT {
        return Ok(());
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        parts.authority = match host {
            // Said, and empty: so it goes on, where the client has no host of its own to say.
            Some(host) if host.is_empty() => {
                if default.is_none() {
                    request.headers_mut().insert(HOST, host);
                }
                default.cloned()
            }
            Some(host) => Some(
                Authority::try_from(host.as_bytes())
                    .map_err(|_| Error::new(Code::BAD_REQUEST, format!("the host header {host:?} is no authority")))?,
            ),
            None => default.cloned(),
        };
    }
    if parts.authority.is_some() {
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(parts)
        .map_err(|error| Error::new(Code::BAD_REQUEST, format!("the request has no usable URI: {error}")))?;
    Ok(())
}
