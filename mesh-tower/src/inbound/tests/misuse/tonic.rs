//! tonic: `Server::layer` with `serve_with_incoming`.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;
use tower_service::Service;

use super::super::client::call;
use super::super::{ANY, client};
use super::ready;
use crate::inbound::PeerInfo;

/// Answers OK to every method, if it sees the peer.
#[derive(Clone)]
struct Greeter;

impl NamedService for Greeter {
    const NAME: &'static str = "test.Greeter";
}

impl Service<Request<Body>> for Greeter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<Body>) -> Self::Future {
        let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
        std::future::ready(Ok(response.body(Body::empty()).unwrap()))
    }
}

const METHOD: &str = "/test.Greeter/Greet";

fn unavailable(answer: &client::Answer) {
    assert_eq!((answer.status.as_u16(), answer.grpc_status(), answer.code()), (200, "14", "MESH-702"), "{answer:?}");
}

#[tokio::test]
async fn both_halves_serve() {
    let (listener, layer) = ready().await.split();
    let address = listener.local_addr();
    tokio::spawn(Server::builder().layer(layer).add_service(Greeter).serve_with_incoming(listener));
    assert_eq!(call(address, METHOD).await.unwrap().grpc_status(), "0");
}

#[tokio::test]
async fn the_layer_without_the_listener_refuses() {
    let (_listener, layer) = ready().await.split();
    let plain = tonic::transport::server::TcpIncoming::bind(ANY).unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(Server::builder().layer(layer).add_service(Greeter).serve_with_incoming(plain));
    unavailable(&call(address, METHOD).await.unwrap());
}

#[tokio::test]
async fn the_listener_without_the_layer_refuses() {
    let (listener, _layer) = ready().await.split();
    let address = listener.local_addr();
    tokio::spawn(Server::builder().add_service(Greeter).serve_with_incoming(listener));
    assert!(call(address, METHOD).await.is_err());
}

#[tokio::test]
async fn the_layer_behind_what_hides_the_connection_refuses() {
    let (listener, layer) = ready().await.split();
    let address = listener.local_addr();
    let hide = MapRequestLayer::new(|mut request: Request<Body>| {
        request.extensions_mut().remove::<PeerInfo>();
        request
    });
    let layers = ServiceBuilder::new().layer(hide).layer(layer);
    tokio::spawn(Server::builder().layer(layers).add_service(Greeter).serve_with_incoming(listener));
    unavailable(&call(address, METHOD).await.unwrap());
}

#[tokio::test]
async fn what_answers_outside_the_layer_is_held_back() {
    let (listener, layer) = ready().await.split();
    let address = listener.local_addr();
    // The application's layer answers on its own and never gets to the mesh's.
    let answer = tower::layer::layer_fn(|_inner: crate::inbound::InboundService<tonic::service::Routes>| Greeter);
    let layers = ServiceBuilder::new().layer(answer).layer(layer);
    tokio::spawn(Server::builder().layer(layers).add_service(Greeter).serve_with_incoming(listener));
    assert!(call(address, METHOD).await.is_err());
}
