//! Tests of the whole way, on loopback, with real HTTP clients.

mod asked;
#[cfg(feature = "tls-aws-lc")]
mod authenticate;
mod authorize;
mod bodies;
mod client;
mod decoded;
mod drain;
#[cfg(feature = "tls-aws-lc")]
mod fetched;
mod faults;
mod filters;
mod floods;
mod handshake;
mod limits;
mod misuse;
mod mtls;
mod permissive;
mod serving;
mod split;
mod tunnel;
mod unsaid;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Full;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower_service::Service;

use super::testing::Config;
use super::{BoxError, InboundOptions, InboundSlot, RequestBody, listen, serve};

/// An address of this machine that nobody uses.
pub(super) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A server under test.
pub(super) struct Server {
    pub(super) slot: Arc<InboundSlot>,
    pub(super) address: SocketAddr,
    pub(super) task: JoinHandle<()>,
}

/// A listening socket with its slot.
pub(super) async fn bound(options: InboundOptions) -> (TcpListener, Arc<InboundSlot>) {
    let (listener, address) = listen(ANY).await.unwrap();
    (listener, InboundSlot::new("listener".into(), address, options))
}

/// Serves `app` without a configuration.
pub(super) async fn start<S, F>(app: S, options: InboundOptions) -> Server
where
    S: Service<Request<RequestBody>, Response = Response<Full<bytes::Bytes>>, Error = BoxError, Future = F>
        + Clone
        + Send
        + 'static,
    F: Future<Output = Result<Response<Full<bytes::Bytes>>, BoxError>> + Send + 'static,
{
    let (listener, slot) = bound(options).await;
    let address = slot.address();
    let task = tokio::spawn(serve(slot.clone(), listener, app));
    Server { slot, address, task }
}

/// Serves an application that says what it saw, under a configuration that hands everything to it.
pub(super) async fn echo() -> Server {
    let server = start(tower::service_fn(tell), InboundOptions::default()).await;
    server.slot.apply(Config::new(server.address).build(1));
    server
}

/// Answers with the request's head as the application sees it.
pub(super) async fn tell(request: Request<RequestBody>) -> Result<Response<Full<bytes::Bytes>>, BoxError> {
    let authority = request.uri().authority().map(ToString::to_string);
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let peer = request.extensions().get::<super::PeerInfo>().unwrap();
    assert!(peer.remote_addr().ip().is_loopback() || peer.remote_addr().ip().to_string() == "10.1.1.1");
    let text = format!(
        "{} {} authority={} host={} local={}",
        request.method(),
        request.uri().path(),
        authority.unwrap_or_default(),
        host.unwrap_or_default(),
        peer.local_addr(),
    );
    Ok(Response::new(Full::from(text)))
}
