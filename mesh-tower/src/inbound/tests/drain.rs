//! Draining: changed Listeners, not serving any more, and shutdown.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use mesh_core::error::{Code, Error};
use mesh_core::model::{ChainMatch, FilterChain, ServerListener, SourceType};
use mesh_core::snapshot::ServerSnapshot;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::client::{BOTH, Client, get};
use super::{Server, start, tell};
use crate::inbound::testing::{Config, with_routes};
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

/// Two chains, the second for clients of elsewhere, decoded from these bytes, or matched otherwise.
fn chains(server: &Server, version: u64, encoded: [&'static [u8]; 2], matches: SourceType) -> Arc<ServerSnapshot> {
    let elsewhere = ChainMatch { source_type: matches, source_ports: vec![1], ..ChainMatch::default() };
    let config = Config { more: vec![(elsewhere, None)], ..Config::new(server.address) };
    let mut snapshot = Arc::unwrap_or_clone(config.build(version));
    let mut listener = ServerListener::clone(&snapshot.server);
    for (chain, encoded) in listener.chains.iter_mut().zip(encoded) {
        *chain = Arc::new(FilterChain { encoded: Some(encoded.into()), ..FilterChain::clone(chain) });
    }
    snapshot.server = Arc::new(listener);
    Arc::new(snapshot)
}

#[tokio::test]
async fn a_listener_that_changes_drains_only_the_chains_that_change() {
    let (any, external) = (SourceType::Any, SourceType::External);
    for (encoded, matches, stays) in
        [([b"a", b"x"], any, true), ([b"x", b"b"], any, false), ([b"a", b"b"], external, false)]
    {
        for http in BOTH {
            let (server, ..) = slow(InboundOptions::default()).await;
            server.slot.apply(chains(&server, 2, [b"a", b"b"], any));
            let (mut client, end) = Client::connect(http, server.address).await.unwrap();
            assert_eq!(client.get("/").await.unwrap().status, 200);
            let next = chains(&server, 3, [encoded[0], encoded[1]], matches);
            server.slot.apply(with_routes(&next, Err(Error::new(Code::RESOURCE_TIMEOUT, "not there"))));
            if stays {
                let answer = client.get("/").await.unwrap();
                assert_eq!((answer.status.as_u16(), answer.code()), (503, "MESH-111"), "its routes are the new ones");
                assert!(!end.is_finished());
            } else {
                timeout(SOON, end).await.expect("an idle connection ends at once").unwrap();
            }
            server.slot.fail(Error::new(Code::RESOURCE_NOT_FOUND, "gone"));
        }
    }
}

#[tokio::test]
async fn a_chain_that_was_taken_over_is_drained_in_its_turn() {
    let (server, ..) = slow(InboundOptions::default()).await;
    server.slot.apply(chains(&server, 2, [b"a", b"b"], SourceType::Any));
    let (mut client, end) = Client::connect(BOTH[1], server.address).await.unwrap();
    for (version, second) in [(3, b"c"), (4, b"d")] {
        server.slot.apply(chains(&server, version, [b"a", second], SourceType::Any));
        assert_eq!(client.get("/").await.unwrap().status, 200);
    }
    server.slot.apply(chains(&server, 5, [b"z", b"d"], SourceType::Any));
    timeout(SOON, end).await.expect("it ends").unwrap();
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
