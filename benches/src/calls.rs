//! Calls, in any number and so many at a time, by each of the clients that are compared.

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_grpc::HttpClient;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::client::GrpcService;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::Error;
use crate::config::AUTHORITY;
use crate::server::Listening;

/// Makes calls, one after the other.
pub trait Caller: Clone + Send + 'static {
    /// One call, up to the end of its response.
    fn call(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Makes `count` calls, `in_flight` at a time; `count` is rounded up to a multiple of it, and returned.
///
/// # Errors
///
/// That of the first call that failed.
pub async fn repeat(caller: &impl Caller, count: usize, in_flight: usize) -> Result<usize, Error> {
    let share = count.div_ceil(in_flight);
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let mut caller = caller.clone();
        tasks.spawn(async move {
            for _ in 0..share {
                caller.call().await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(share * in_flight)
}

/// A generated unary client, on a channel of any kind.
#[derive(Debug, Clone)]
pub struct Grpc<T>(HealthClient<T>);

impl<T> Grpc<T>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<Error>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<Error> + Send,
{
    /// On `channel`.
    pub fn new(channel: T) -> Self {
        Self(HealthClient::new(channel))
    }
}

impl<T> Caller for Grpc<T>
where
    T: GrpcService<tonic::body::Body> + Clone + Send + 'static,
    T::Error: Into<Error>,
    T::Future: Send,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<Error> + Send,
{
    async fn call(&mut self) -> Result<(), Error> {
        self.0.check(HealthCheckRequest::default()).await?;
        Ok(())
    }
}

/// Plain HTTP through the mesh.
#[derive(Debug, Clone)]
pub struct MeshHttp(pub HttpClient);

impl Caller for MeshHttp {
    async fn call(&mut self) -> Result<(), Error> {
        let response = self.0.send(request()?).await?;
        read(response.into_body()).await
    }
}

/// Plain HTTP/2 on hyper's own connection.
#[derive(Debug, Clone)]
pub struct BareHttp(SendRequest<Full<Bytes>>);

impl BareHttp {
    /// Connects to `server`.
    ///
    /// # Errors
    ///
    /// The connection does not stand.
    pub async fn connect(server: &Listening) -> Result<Self, Error> {
        let stream = TcpStream::connect(server.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }
}

impl Caller for BareHttp {
    async fn call(&mut self) -> Result<(), Error> {
        let response = self.0.send_request(request()?).await?;
        read(response.into_body()).await
    }
}

fn request() -> Result<Request<Full<Bytes>>, Error> {
    let uri = format!("http://{AUTHORITY}/greet");
    let body = Full::new(Bytes::from_static(b"hello"));
    Ok(Request::builder().method(Method::POST).uri(uri).body(body)?)
}

async fn read<B>(body: B) -> Result<(), Error>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Error>,
{
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        frame.map_err(Into::into)?;
    }
    Ok(())
}
