//! The servers that are called: gRPC's health service, and a plain HTTP/2 server that says who it is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::load::{LOAD_REPORT, Load};
use tokio::net::{TcpListener, TcpStream};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::Error;

/// Requests that came, and how many of them named a parent span.
#[derive(Debug, Default)]
pub struct Seen {
    requests: AtomicU64,
    traced: AtomicU64,
}

impl Seen {
    fn note(&self, is_traced: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.traced.fetch_add(u64::from(is_traced), Ordering::Relaxed);
    }

    /// How many requests came.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How many of them had a `traceparent`.
    pub fn traced(&self) -> u64 {
        self.traced.load(Ordering::Relaxed)
    }
}

/// A server that listens on loopback until its runtime ends.
#[derive(Debug, Clone)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// What came.
    pub seen: Arc<Seen>,
}

/// Serves gRPC's health service, with the certificates in `certificates` and for clients of the same root alone; in plaintext
/// without. Call it in the runtime that is to serve.
///
/// # Errors
///
/// No address is free, or the certificates are none.
pub fn grpc(certificates: Option<&Path>) -> Result<Listening, Error> {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.with_nodelay(Some(true));
    let address = incoming.local_addr()?;
    let mut server = Server::builder();
    if let Some(folder) = certificates {
        let tls = ServerTlsConfig::new().identity(identity(folder)?).client_ca_root(root(folder)?);
        server = server.tls_config(tls)?;
    }
    let seen = Arc::new(Seen::default());
    let (_, health) = tonic_health::server::health_reporter();
    let noting = seen.clone();
    let health = InterceptedService::new(health, move |request: tonic::Request<()>| {
        noting.note(request.metadata().contains_key("traceparent"));
        Ok(request)
    });
    tokio::spawn(server.add_service(health).serve_with_incoming(incoming));
    Ok(Listening { address, seen })
}

/// Serves HTTP/2 in plaintext: reads each request's body and answers with `name`. Call it in the runtime that is to serve.
///
/// # Errors
///
/// No address is free.
pub fn http2(name: &'static str) -> Result<Listening, Error> {
    http2_under(name, None)
}

/// The same, and says with each response what load it is under, if it is under any.
///
/// # Errors
///
/// As [`http2()`].
pub fn http2_under(name: &'static str, load: Option<&Load>) -> Result<Listening, Error> {
    let says = load.map(Load::to_header);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let seen = Arc::new(Seen::default());
    tokio::spawn(accept(listener, Answer { name, says }, seen.clone()));
    Ok(Listening { address, seen })
}

/// What a server answers.
#[derive(Debug, Clone)]
struct Answer {
    name: &'static str,
    /// Of its load.
    says: Option<HeaderValue>,
}

async fn accept(listener: TcpListener, with: Answer, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, with.clone(), seen.clone()));
    }
}

async fn serve(stream: TcpStream, with: Answer, seen: Arc<Seen>) {
    // Without it the numbers would be of Nagle's algorithm; a stream that cannot have it is measured as it is.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| answer(request, with.clone(), seen.clone()));
    // A client that goes away ends its connection, and that is all.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(
    request: Request<Incoming>,
    with: Answer,
    seen: Arc<Seen>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    seen.note(is_traced(request.headers()));
    // What cannot be read is as good as read: the answer is the same.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(with.name.as_bytes())));
    if let Some(says) = with.says {
        response.headers_mut().insert(LOAD_REPORT, says);
    }
    Ok(response)
}

fn is_traced(headers: &HeaderMap) -> bool {
    headers.contains_key("traceparent")
}

/// The certificate and key in a folder of development certificates.
///
/// # Errors
///
/// They cannot be read.
pub fn identity(folder: &Path) -> Result<Identity, Error> {
    let (chain, key) = (std::fs::read(folder.join("cert-chain.pem"))?, std::fs::read(folder.join("key.pem"))?);
    Ok(Identity::from_pem(chain, key))
}

/// The root in a folder of development certificates.
///
/// # Errors
///
/// It cannot be read.
pub fn root(folder: &Path) -> Result<Certificate, Error> {
    Ok(Certificate::from_pem(std::fs::read(folder.join("root-cert.pem"))?))
}
