//! The channel that generated tonic clients take.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use mesh_core::error::{Code, Error};
use mesh_tower::Mesh;
use mesh_tower::outbound::{HttpClient, ResponseBody, ResponseFuture};
use pin_project::pin_project;
use tonic::Status;
use tower_service::Service;

use crate::status::status_of;

/// As gRPC over HTTP/2 wants it: `grpc-`, language, variant, version.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("grpc-rust-mesh/", env!("CARGO_PKG_VERSION")));

/// A channel of the mesh to one target, for generated tonic clients: `GreeterClient::new(channel)`.
///
/// It is cheap to clone, always ready, and connects by itself. A call that fails in the mesh ends with the status that the
/// gRFCs ask for, never UNKNOWN; [`error_of`](crate::error_of) gives the error behind it. A call that is to wait for an
/// endpoint rather than fail carries [`WaitForReady`](crate::WaitForReady):
///
/// ```no_run
/// # async fn example(mesh: mesh_grpc::Mesh) -> Result<(), Box<dyn std::error::Error>> {
/// use mesh_grpc::{MeshChannel, WaitForReady};
/// use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
///
/// let mut client = HealthClient::new(MeshChannel::new(&mesh, "xds:///greeter:50051")?);
/// let mut request = tonic::Request::new(HealthCheckRequest::default());
/// request.extensions_mut().insert(WaitForReady);
/// request.set_timeout(std::time::Duration::from_secs(5));
/// client.check(request).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MeshChannel {
    client: HttpClient,
}

impl MeshChannel {
    /// A channel to `target`: `xds:///greeter:50051`, `greeter:50051` or `http://greeter:50051`. The virtual host is chosen
    /// by the target (gRFC A47), and its configuration is asked for at once.
    ///
    /// # Errors
    ///
    /// [`Code::BAD_TARGET`] and [`Code::TOO_MANY_TARGETS`]. A target without a configuration is no error here: its calls
    /// fail, and say why.
    pub fn new(mesh: &Mesh, target: &str) -> Result<Self, Error> {
        Ok(Self { client: mesh.client(target)? })
    }
}

impl From<HttpClient> for MeshChannel {
    /// A channel over a client of the mesh. Over [`Mesh::http`], each call says its host: by the generated client's
    /// `with_origin`.
    fn from(client: HttpClient) -> Self {
        Self { client }
    }
}

impl Service<Request<tonic::body::Body>> for MeshChannel {
    type Response = Response<ChannelBody>;
    type Error = Status;
    type Future = ChannelFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> ChannelFuture {
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        ChannelFuture(self.client.send(request))
    }
}

/// A response on its way. Dropping it cancels the call.
#[derive(Debug)]
#[pin_project]
pub struct ChannelFuture(#[pin] ResponseFuture);

impl Future for ChannelFuture {
    type Output = Result<Response<ChannelBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().0.poll(cx)).map_err(status_of)?;
        let says_status = response.headers().contains_key("grpc-status");
        if response.status() != StatusCode::OK && !says_status {
            // tonic makes a status of it by gRPC's table, unless there is a page that it would take for a message.
            return Poll::Ready(Ok(response.map(|page| {
                page.discard();
                ChannelBody::default()
            })));
        }
        Poll::Ready(Ok(response.map(|body| ChannelBody { body, owes_status: !says_status })))
    }
}

/// The body of a call's response. Its errors are statuses.
///
/// The default is what an interceptor's refusal has.
#[derive(Debug, Default)]
#[pin_project]
pub struct ChannelBody {
    #[pin]
    body: ResponseBody,
    /// Whether the trailers, with the call's status, are still to come.
    owes_status: bool,
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let still_owed = std::mem::take(this.owes_status);
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                *this.owes_status = still_owed && !frame.is_trailers();
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(status_of(error))),
            // A stream that is reset without an error looks the same to HTTP as one that ends well.
            None if still_owed => Some(Err(status_of(no_status()))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        !self.owes_status && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cold]
fn no_status() -> Error {
    Error::new(Code::PROTOCOL, "the server ended its response without a gRPC status")
        .with_next_step("check whether the server, or a proxy before it, ended the call early")
}
