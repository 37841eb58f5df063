//! Draining: changed Listeners, not serving any more, and shutdown.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use mesh_core::error::{Code, Error};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::client::{BOTH, Client, get};
use super::{Server, start, tell};
use crate::inbound::testing::Config;
use crate::inbound::{BoxError, InboundOptions, RequestBody};

const SOON: Duration = Duration::from_secs(5);

/// A server whose `/slow` is answered when it is told so.
async fn slow(options: InboundOptions) -> (Server, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (says, waits) = (begun.clone(), go.clone());
    let app = tower::service_fn(move |request: Request<RequestBody>| {
        let (says, waits) = (says.clone(), waits.clone());
        async move {
            if request.uri().path() == "/slow" {
                says.notify_one();
                waits.notified().await;
            }
            tell(request).await as Result<Response<Full<bytes::Bytes>>, BoxError>
        }
    });
    let server = start(app, options).await;
    server.slot.apply(Config::new(server.address).build(1));
    (server, begun, go)
}

/// gRFC A36.
#[tokio::test]
async fn a_changed_listener_drains_its_old_connections() {
    for http in BOTH {
        let (server, begun, go) = slow(InboundOptions::default()).await;
        let (mut idle, idle_end) = Client::connect(http, server.address).await.unwrap();
        idle.get("/").await.unwrap();
        let (mut busy, busy_end) = Client::connect(http, server.address).await.unwrap();
        let request = tokio::spawn(async move { busy.get("/slow").await });
        begun.notified().await;

        server.slot.apply(Config::new(server.address).build(2));
        timeout(SOON, idle_end).await.expect("an idle connection ends at once").unwrap();
        assert_eq!(get(http, server.address, "/").await.unwrap().status, 200, "new connections are served");
        go.notify_one();
        assert_eq!(request.await.unwrap().unwrap().status, 200, "what was begun is finished");
        timeout(SOON, busy_end).await.expect("then its connection ends").unwrap();
    }
}

#[tokio::test]
async fn the_same_listener_again_drains_nothing() {
    let (server, ..) = slow(InboundOptions::default()).await;
    let same = Config::new(server.address).build(2);
    server.slot.apply(same.clone());
    let (mut client, end) = Client::connect(BOTH[0], server.address).await.unwrap();
    client.get("/").await.unwrap();
    server.slot.apply(same);
    assert_eq!(client.get("/").await.unwrap().status, 200);
    assert!(!end.is_finished());
}

#[tokio::test]
async fn not_serving_any_more_drains_too() {
    for http in BOTH {
        let (server, begun, go) = slow(InboundOptions::default()).await;
        let (mut busy, busy_end) = Client::connect(http, server.address).await.unwrap();
        let request = tokio::spawn(async move { busy.get("/slow").await });
        begun.notified().await;
        server.slot.fail(Error::new(Code::RESOURCE_NOT_FOUND, "gone"));
        go.notify_one();
        assert_eq!(request.await.unwrap().unwrap().status, 200);
        timeout(SOON, busy_end).await.expect("its connection ends").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn draining_ends_after_its_grace() {
    for http in BOTH {
        let options = InboundOptions { drain_grace: Duration::from_secs(30), ..InboundOptions::default() };
        let (server, begun, _go) = slow(options).await;
        let (mut busy, _) = Client::connect(http, server.address).await.unwrap();
        let request = tokio::spawn(async move { busy.get("/slow").await });
        begun.notified().await;
        let start = Instant::now();
        server.slot.apply(Config::new(server.address).build(2));
        assert!(request.await.unwrap().is_err());
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(30) && waited < Duration::from_secs(32), "{http:?} {waited:?}");
    }
}

#[tokio::test]
async fn shutdown_waits_for_what_was_begun() {
    for http in BOTH {
        let (server, begun, go) = slow(InboundOptions::default()).await;
        let (mut busy, _) = Client::connect(http, server.address).await.unwrap();
        let request = tokio::spawn(async move { busy.get("/slow").await });
        begun.notified().await;
        server.slot.shutdown(Instant::now() + Duration::from_secs(60));
        go.notify_one();
        assert_eq!(request.await.unwrap().unwrap().status, 200);
        timeout(SOON, server.task).await.expect("the server returns").unwrap();
        assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_beyond_its_deadline() {
    let (server, begun, _go) = slow(InboundOptions::default()).await;
    let (mut busy, _) = Client::connect(BOTH[1], server.address).await.unwrap();
    let request = tokio::spawn(async move { busy.get("/slow").await });
    begun.notified().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    server.slot.shutdown(deadline);
    server.task.await.unwrap();
    assert!(Instant::now() >= deadline && Instant::now() < deadline + Duration::from_secs(2));
    assert!(request.await.unwrap().is_err());
}
