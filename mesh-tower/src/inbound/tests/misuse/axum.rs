//! axum: `axum::serve` with `Router::layer`.

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get as on_get;

use super::super::ANY;
use super::super::client::{BOTH, get};
use super::{closed, ready, refused};
use crate::inbound::PeerInfo;

fn app() -> Router {
    Router::new().route(
        "/",
        on_get(|ConnectInfo(peer): ConnectInfo<PeerInfo>| async move { peer.remote_addr().ip().to_string() }),
    )
}

#[tokio::test]
async fn both_halves_serve() {
    let bound = ready().await;
    let address = bound.local_addr();
    let (listener, layer) = bound.split();
    let app = app().layer(layer).into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    for http in BOTH {
        let answer = get(http, address, "/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "127.0.0.1"), "{http:?}");
        // What no route takes goes through the layer, too.
        assert_eq!(get(http, address, "/none").await.unwrap().status, 404);
    }
}

#[tokio::test]
async fn the_layer_without_the_listener_refuses() {
    let (_listener, layer) = ready().await.split();
    let plain = tokio::net::TcpListener::bind(ANY).await.unwrap();
    let address = plain.local_addr().unwrap();
    let app = Router::new().route("/", on_get(|| async { "reached" })).layer(layer);
    tokio::spawn(async move { axum::serve(plain, app).await });
    for http in BOTH {
        refused(&get(http, address, "/").await.unwrap());
    }
}

#[tokio::test]
async fn the_layer_does_not_take_the_listener_of_another() {
    let (listener, layer) = ready().await.split();
    let (_other_listener, other_layer) = ready().await.split();
    let address = listener.local_addr();
    drop(tower::Layer::layer(&layer, ()));
    let app = app().layer(other_layer).into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    for http in BOTH {
        refused(&get(http, address, "/").await.unwrap());
    }
}

#[tokio::test]
async fn the_listener_without_the_layer_refuses() {
    let (listener, _layer) = ready().await.split();
    let address = listener.local_addr();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", on_get(|| async { "reached" }))).await });
    for http in BOTH {
        closed(http, address, "/").await;
    }
}

#[tokio::test]
async fn a_server_that_hides_the_connection_from_the_layer_refuses() {
    let (listener, layer) = ready().await.split();
    let address = listener.local_addr();
    // Without into_make_service_with_connect_info.
    let app = Router::new().route("/", on_get(|| async { "reached" })).layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    for http in BOTH {
        refused(&get(http, address, "/").await.unwrap());
    }
}

#[tokio::test]
async fn routes_added_after_the_layer_are_refused() {
    let (listener, layer) = ready().await.split();
    let address = listener.local_addr();
    let app = Router::new().layer(layer).route("/", on_get(|| async { "reached" }));
    let app = app.into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    for http in BOTH {
        closed(http, address, "/").await;
    }
}
