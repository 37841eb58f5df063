//! The split form's connections: drained as far as their owner lets us, and broken when their time is over.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::map_request;
use axum::routing::get as on_get;
use mesh_core::model::{Action, Domain, MetadataMatch, MetadataSource, Pattern, Route, StringMatch, ValueMatch};
use tokio::time::{Instant, timeout};

use super::bound;
use super::client::{BOTH, Client, Http, get};
use crate::inbound::testing::{Config, route, table};
use crate::inbound::{Bound, DynamicMetadata, InboundOptions, InboundSlot, PeerInfo};

const GRACE: Duration = Duration::from_secs(30);

async fn serving() -> Arc<InboundSlot> {
    let (listener, slot) = bound(InboundOptions { drain_grace: GRACE, ..InboundOptions::default() }).await;
    slot.apply(Config::new(slot.address()).build(1));
    let (listener, layer) = Bound::new(slot.clone(), listener).split();
    let hang = on_get(|| async {
        std::future::pending::<()>().await;
        "never"
    });
    let app = Router::new().route("/", on_get(|| async { "reached" })).route("/hang", hang).layer(layer);
    let app = app.into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    slot
}

#[tokio::test]
async fn an_http1_connection_of_an_old_listener_is_told_to_close() {
    let slot = serving().await;
    let (mut client, end) = Client::connect(Http::One, slot.address()).await.unwrap();
    assert!(!client.get("/").await.unwrap().headers.contains_key("connection"));
    slot.apply(Config::new(slot.address()).build(2));
    assert_eq!(client.get("/").await.unwrap().headers["connection"], "close");
    timeout(Duration::from_secs(5), end).await.expect("it ends").unwrap();
    assert_eq!(get(Http::One, slot.address(), "/").await.unwrap().text, "reached");
}

#[tokio::test(start_paused = true)]
async fn a_connection_breaks_when_its_time_is_over() {
    for http in BOTH {
        let slot = serving().await;
        let (mut client, _) = Client::connect(http, slot.address()).await.unwrap();
        client.get("/").await.unwrap();
        let start = Instant::now();
        slot.apply(Config::new(slot.address()).build(2));
        assert!(client.get("/hang").await.is_err());
        assert!(start.elapsed() >= GRACE && start.elapsed() < GRACE * 2, "{http:?} {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_listener_and_what_is_left_at_the_deadline() {
    let (listener, slot) = bound(InboundOptions::default()).await;
    slot.apply(Config::new(slot.address()).build(1));
    let (mut listener, layer) = Bound::new(slot.clone(), listener).split();
    drop(tower::Layer::layer(&layer, tower::service_fn(|()| async { Ok::<_, Infallible>(()) })));
    let _client = tokio::net::TcpStream::connect(slot.address()).await.unwrap();
    let mut io = listener.accept().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    slot.shutdown(deadline);
    assert!(listener.accept().await.is_none());
    assert!(Instant::now() < deadline, "the listener ends at once");
    let read = tokio::io::AsyncReadExt::read(&mut io, &mut [0]).await;
    assert!(read.is_err() && Instant::now() >= deadline, "{read:?}");
    slot.ended().await;
}

/// A route to the application for requests of the tier `gold`, or of any other.
fn for_gold(prefix: &str, invert: bool) -> Arc<Route> {
    let mut route = Arc::unwrap_or_clone(route(prefix, Action::NonForwarding));
    route.matches.metadata.push(MetadataMatch {
        source: MetadataSource::Dynamic,
        filter: "app".to_owned(),
        path: vec!["tenant".to_owned(), "tier".to_owned()],
        value: ValueMatch::String(StringMatch { pattern: Pattern::Exact("gold".to_owned()), ignore_case: false }),
        invert,
    });
    Arc::new(route)
}

#[tokio::test]
async fn what_a_layer_around_the_mesh_knows_of_a_request_chooses_its_route() {
    let (listener, slot) = bound(InboundOptions::default()).await;
    let routes = vec![for_gold("/cheap", true), for_gold("/dear", false)];
    slot.apply(Config { routes: Ok(table(Domain::Any, routes)), ..Config::new(slot.address()) }.build(1));
    let (listener, layer) = Bound::new(slot.clone(), listener).split();
    let knows = map_request(|mut request: Request| async move {
        if request.uri().query() == Some("gold") {
            let known = serde_json::json!({"app": {"tenant": {"tier": "gold"}}});
            request.extensions_mut().insert(DynamicMetadata(serde_json::from_value(known).unwrap()));
        }
        request
    });
    let app = Router::new().fallback(|| async { "reached" }).layer(layer).layer(knows);
    let app = app.into_make_service_with_connect_info::<PeerInfo>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    for (path, reached) in [("/cheap", true), ("/dear", false), ("/cheap?gold", false), ("/dear?gold", true)] {
        let answer = get(Http::One, slot.address(), path).await.unwrap();
        let expected = if reached { (200, "") } else { (404, "MESH-202") };
        assert_eq!((answer.status.as_u16(), answer.code()), expected, "{path}: {answer:?}");
    }
}
