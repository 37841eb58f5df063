//! tonic's services on a mesh server.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use mesh_core::error::Error;
use mesh_core::identity::PeerIdentity;
use mesh_core::policy::deadline::parse_grpc_timeout;
use mesh_tower::Mesh;
use mesh_tower::inbound::{Bound, PeerInfo, RequestBody};
use pin_project::pin_project;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower_service::Service;

/// Serves a gRPC service on `address` under the mesh's configuration, until [`Mesh::shutdown`]. Dropping the future closes
/// everything at once.
///
/// `service` is one generated server, or tonic's `Routes` of several. Its handlers ask [`peer_identity`] who calls; a call
/// whose `grpc-timeout` is over before it is answered is dropped, as by tonic's own server.
///
/// ```no_run
/// # async fn example(greeter: impl tonic_health::pb::health_server::Health) -> Result<(), mesh_grpc::Error> {
/// use mesh_grpc::Mesh;
/// use tonic_health::pb::health_server::HealthServer;
///
/// let mesh = Mesh::from_env()?;
/// mesh_grpc::serve(&mesh, "0.0.0.0:50051", HealthServer::new(greeter)).await?;
/// # Ok(())
/// # }
/// ```
///
/// tonic's own server, with its options and layers, takes the mesh's listener and layer, which go together:
///
/// ```no_run
/// # async fn example(greeter: impl tonic_health::pb::health_server::Health) -> Result<(), Box<dyn std::error::Error>> {
/// use mesh_grpc::Mesh;
/// use tonic::transport::Server;
/// use tonic_health::pb::health_server::HealthServer;
///
/// let mesh = Mesh::from_env()?;
/// let (listener, layer) = mesh.bind("0.0.0.0:50051").await?.split();
/// Server::builder().layer(layer).add_service(HealthServer::new(greeter)).serve_with_incoming(listener).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`Mesh::bind`]: the address cannot be listened on, or the bootstrap says nothing about servers. That there is no
/// configuration is no error: until there is, connections are closed without a byte.
pub async fn serve<S>(mesh: &Mesh, address: impl tokio::net::ToSocketAddrs, service: S) -> Result<(), Error>
where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    serve_on(mesh.bind(address).await?, service).await;
    Ok(())
}

/// As [`serve`], on an address that is bound already: with port 0, [`Bound::local_addr`] says which it became.
pub async fn serve_on<S>(bound: Bound, service: S)
where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let (slot, listener) = bound.into_parts();
    mesh_tower::inbound::serve(slot, listener, Tonic(service)).await;
}

/// Who calls, as the certificate of its connection proves; None where the connection has none.
///
/// Only a server of the mesh puts it there: on another, it is None.
pub fn peer_identity<T>(request: &tonic::Request<T>) -> Option<&PeerIdentity> {
    request.extensions().get()
}

/// What tonic's transport does to a request beside HTTP, so that handlers find what they are used to.
#[derive(Debug, Clone)]
struct Tonic<S>(S);

impl<S> Service<Request<RequestBody>> for Tonic<S>
where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = TonicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let timeout = request.headers().get("grpc-timeout").and_then(|value| parse_grpc_timeout(value.as_bytes()));
        if let Some(addresses) = request.extensions().get::<PeerInfo>().map(addresses) {
            request.extensions_mut().insert(addresses);
        }
        TonicFuture { inner: self.0.call(request), timer: timeout.map(sleep) }
    }
}

/// What `Request::remote_addr` and `Request::local_addr` read.
fn addresses(peer: &PeerInfo) -> TcpConnectInfo {
    TcpConnectInfo { local_addr: Some(peer.local_addr()), remote_addr: Some(peer.remote_addr()) }
}

/// The future of [`Tonic`].
#[pin_project]
struct TonicFuture<F> {
    #[pin]
    inner: F,
    #[pin]
    timer: Option<Sleep>,
}

impl<F> Future for TonicFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.inner.poll(cx) {
            return Poll::Ready(response);
        }
        match this.timer.as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => {
                Poll::Ready(Ok(Status::deadline_exceeded("the caller's deadline was over").into_http()))
            }
            _ => Poll::Pending,
        }
    }
}
