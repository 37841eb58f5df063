//! Plain hyper: an accept loop by hand.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_service::Service;

use super::super::ANY;
use super::super::client::{BOTH, get};
use super::{closed, ready, refused};
use crate::inbound::{InboundLayer, MeshIo, MeshListener, PeerInfo};

async fn app(_request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    Ok(Response::new(Full::from("reached")))
}

/// Serves one connection with what `respond` makes of each request.
fn serve_one<I, F, B>(io: I, respond: impl Fn(Request<Incoming>) -> F + Send + 'static)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<crate::inbound::BoxError>,
{
    let service = hyper::service::service_fn(respond);
    tokio::spawn(async move { Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await });
}

/// The loop of a user: `mark` puts the connection into the request before the layer sees it, or does not.
fn run(mut listener: MeshListener, layer: InboundLayer, mark: fn(&mut Request<Incoming>, &PeerInfo)) -> SocketAddr {
    let address = listener.local_addr();
    tokio::spawn(async move {
        let service = layer.layer(service_fn(app));
        while let Some(io) = listener.accept().await {
            let (peer, service): (PeerInfo, _) = (MeshIo::peer(&io).clone(), service.clone());
            serve_one(io, move |mut request| {
                mark(&mut request, &peer);
                service.clone().oneshot(request)
            });
        }
    });
    address
}

#[tokio::test]
async fn both_halves_serve() {
    let (listener, layer) = ready().await.split();
    let address = run(listener, layer, |request, peer| {
        request.extensions_mut().insert(peer.clone());
    });
    for http in BOTH {
        assert_eq!(get(http, address, "/").await.unwrap().text, "reached");
    }
}

#[tokio::test]
async fn the_layer_without_the_listener_refuses() {
    let (_listener, layer) = ready().await.split();
    let plain = TcpListener::bind(ANY).await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        let service = layer.layer(service_fn(app));
        while let Ok((io, _)) = plain.accept().await {
            let service = service.clone();
            serve_one(io, move |request| service.clone().oneshot(request));
        }
    });
    for http in BOTH {
        refused(&get(http, address, "/").await.unwrap());
    }
}

#[tokio::test]
async fn the_listener_without_the_layer_refuses() {
    let (mut listener, _layer) = ready().await.split();
    let address = listener.local_addr();
    tokio::spawn(async move {
        while let Some(io) = listener.accept().await {
            serve_one(io, app);
        }
    });
    for http in BOTH {
        closed(http, address, "/").await;
    }
}

#[tokio::test]
async fn the_connection_put_in_after_the_layer_is_too_late() {
    let (mut listener, layer) = ready().await.split();
    let address = listener.local_addr();
    tokio::spawn(async move {
        while let Some(io) = listener.accept().await {
            let peer = io.peer().clone();
            let late = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                app(request)
            });
            let service = layer.layer(late);
            serve_one(io, move |request| service.clone().call(request));
        }
    });
    for http in BOTH {
        refused(&get(http, address, "/").await.unwrap());
    }
}

#[tokio::test]
async fn an_installed_layer_that_is_not_called_is_found_out() {
    let (mut listener, layer) = ready().await.split();
    let address = listener.local_addr();
    tokio::spawn(async move {
        let _unused = layer.layer(service_fn(app));
        while let Some(io) = listener.accept().await {
            serve_one(io, app);
        }
    });
    for http in BOTH {
        closed(http, address, "/").await;
    }
}
