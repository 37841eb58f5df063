//! HTTP/1.1: connections that are used again, bounded, and waited for in order.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_core::error::Code;
use mesh_core::policy::retry::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::rig::{Rig, get, plan, tcp, text};
use super::server::{Handler, Http, Server, echo, held};
use crate::body::MeshBody;
use crate::connect::WireProtocol::{Http1, Negotiated};

async fn arrived(count: &AtomicUsize, requests: usize) {
    while count.load(Ordering::SeqCst) < requests {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start(Http::One, echo()).await;
    for protocol in [Http1, Negotiated] {
        let before = server.accepted();
        let rig = Rig::ready(server.address, protocol).await;
        for _ in 0..20 {
            assert_eq!(rig.text("/x?y").await, "GET /x?y a.example HTTP/1.1");
        }
        assert_eq!(server.accepted() - before, 1);
    }
}

#[tokio::test]
async fn a_response_without_a_body_frees_its_connection_too() {
    let server = Server::start(
        Http::One,
        Arc::new(|_| {
            Box::pin(async {
                let mut response = Response::new(MeshBody::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            })
        }),
    )
    .await;
    let rig = Rig::ready(server.address, Http1).await;
    for _ in 0..20 {
        assert_eq!(rig.get("/").await.unwrap().status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each_up_to_the_bound_and_then_wait() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::One, held(count.clone(), gate)).await;
    let mut plan = plan(server.address, Http1);
    plan.max_connections = 3;
    let rig = Rig::new(&tcp(), plan);
    rig.until_ready().await;
    let requests: Vec<_> = (0..9).map(|_| tokio::spawn(rig.handle.call(get("/")))).collect();
    arrived(&count, 3).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((count.load(Ordering::SeqCst), server.accepted()), (3, 3));
    open.send_replace(true);
    for request in requests {
        assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
    }
    assert_eq!((count.load(Ordering::SeqCst), server.accepted()), (9, 3));
}

#[tokio::test]
async fn who_waits_is_served_in_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let order = seen.clone();
    let server = Server::start(
        Http::One,
        Arc::new(move |request| {
            order.lock().unwrap().push(request.uri().path().to_owned());
            // More than hyper reads ahead.
            Box::pin(async { Response::new(Bytes::from_static(&[b'x'; 1 << 20]).into()) })
        }),
    )
    .await;
    let mut plan = plan(server.address, Http1);
    plan.max_connections = 1;
    let rig = Rig::new(&tcp(), plan);
    rig.until_ready().await;
    let first = rig.get("/first").await.unwrap();
    let mut waiting = Vec::new();
    for index in 0..8 {
        waiting.push(tokio::spawn(rig.handle.call(get(&format!("/{index}")))));
        tokio::task::yield_now().await;
    }
    // Its connection is free once the body has been read, and not before.
    assert_eq!(*seen.lock().unwrap(), ["/first"]);
    text(first).await;
    for request in waiting {
        text(request.await.unwrap().unwrap()).await;
    }
    assert_eq!(*seen.lock().unwrap(), ["/first", "/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"]);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_request_that_is_given_up_frees_its_turn() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::One, held(count.clone(), gate)).await;
    let mut plan = plan(server.address, Http1);
    plan.max_connections = 1;
    let rig = Rig::new(&tcp(), plan);
    rig.until_ready().await;
    let given_up = tokio::spawn(rig.handle.call(get("/")));
    arrived(&count, 1).await;
    let next = tokio::spawn(rig.handle.call(get("/")));
    given_up.abort();
    arrived(&count, 2).await;
    open.send_replace(true);
    assert_eq!(text(next.await.unwrap().unwrap()).await, "done");
}

#[tokio::test]
async fn a_request_that_is_given_up_says_nothing_about_the_server() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::One, held(count.clone(), gate)).await;
    let mut plan = plan(server.address, Http1);
    plan.eager = false;
    let rig = Rig::new(&tcp(), plan);
    rig.handle.connect();
    rig.until_ready().await;
    for number in 1..6 {
        let given_up = tokio::spawn(rig.handle.call(get("/")));
        arrived(&count, number).await;
        given_up.abort();
        server.until_open(0).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(rig.state.is_ready(), "after {number}");
    }
    open.send_replace(true);
    assert_eq!(rig.text("/").await, "done");
}

/// Says that each connection ends with its response.
fn closing() -> Handler {
    Arc::new(|_| Box::pin(async { Response::builder().header("connection", "close").body("bye".into()).unwrap() }))
}

#[tokio::test]
async fn a_server_that_closes_after_each_response_stays_ready() {
    let server = Server::start(Http::One, closing()).await;
    let rig = Rig::ready(server.address, Http1).await;
    for _ in 0..20 {
        assert!(rig.state.is_ready());
        assert_eq!(rig.text("/").await, "bye");
    }
    assert!(rig.state.is_ready());
}

#[tokio::test]
async fn a_server_that_dies_breaks_what_it_had_and_takes_no_more() {
    let (count, (_open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::One, held(count.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http1).await;
    let request = tokio::spawn(rig.handle.call(get("/")));
    arrived(&count, 1).await;
    server.kill().await;
    let failed = request.await.unwrap().unwrap_err();
    assert_eq!((failed.failure, failed.error.code()), (Failure::Reset { code: None }, Code::BROKEN));
    assert!(failed.request.is_none());
    rig.until_failed().await;
    let back = rig.get("/").await.unwrap_err();
    assert_eq!(back.failure, Failure::BeforeRequest);
    assert!(back.request.is_some());
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_gives_the_request_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move { listener.accept().await.unwrap().0 });
    let rig = Rig::ready(address, Http1).await;
    let mut only = accepted.await.unwrap();
    let busy = tokio::spawn(rig.handle.call(get("/busy")));
    only.read_u8().await.unwrap();
    // The listener is gone, and the one connection is busy.
    let failed = rig.get("/next").await.unwrap_err();
    assert_eq!((failed.failure, failed.error.code()), (Failure::Connect, Code::NO_CONNECTION));
    assert_eq!(failed.request.unwrap().uri(), "/next");
    only.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(text(busy.await.unwrap().unwrap()).await, "ok");
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        stream.read_u8().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    let rig = Rig::ready(address, Http1).await;
    let failed = rig.get("/").await.unwrap_err();
    assert_eq!(failed.error.code(), Code::PROTOCOL, "{}", failed.error);
    assert_eq!(failed.failure, Failure::Reset { code: None });
}

#[tokio::test]
async fn upgrades_pass() {
    let server = Server::start(
        Http::One,
        Arc::new(|mut request| {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut text = [0; 5];
                io.read_exact(&mut text).await.unwrap();
                io.write_all(&text).await.unwrap();
            });
            Box::pin(async {
                Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header("connection", "upgrade")
                    .header("upgrade", "echo")
                    .body(MeshBody::empty())
                    .unwrap()
            })
        }),
    )
    .await;
    let rig = Rig::ready(server.address, Http1).await;
    let request = Request::get("http://a.example/")
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(MeshBody::empty())
        .unwrap();
    let response = rig.handle.call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut text = [0; 5];
    io.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    assert!(rig.state.is_ready(), "an upgrade is no loss");
}

#[tokio::test]
async fn dropping_the_handle_closes_what_is_idle_and_then_what_is_busy() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::One, held(count.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http1).await;
    let (one, two) = (tokio::spawn(rig.handle.call(get("/"))), tokio::spawn(rig.handle.call(get("/"))));
    arrived(&count, 2).await;
    open.send_replace(true);
    for request in [one, two] {
        text(request.await.unwrap().unwrap()).await;
    }
    server.until_open(2).await;
    open.send_replace(false);
    let busy = tokio::spawn(rig.handle.call(get("/")));
    arrived(&count, 3).await;
    drop(rig);
    server.until_open(1).await;
    open.send_replace(true);
    assert_eq!(text(busy.await.unwrap().unwrap()).await, "done");
    server.until_open(0).await;
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_is_made_again() {
    let server = Server::start(Http::One, echo()).await;
    let rig = Rig::ready(server.address, Http1).await;
    rig.text("/").await;
    server.goaway();
    while server.accepted() < 2 {
        tokio::task::yield_now().await;
    }
    rig.until_ready().await;
    rig.text("/").await;
    assert_eq!(server.accepted(), 2);
}

/// No connection to an endpoint that is withdrawn may be made, and those that stand are shared.
#[tokio::test]
async fn requests_to_an_endpoint_that_is_withdrawn_wait_for_a_connection_that_stands() {
    let requests = Arc::new(AtomicUsize::new(0));
    let (open, gate) = watch::channel(false);
    let server = Server::start(Http::One, held(requests.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http1).await;
    rig.state.set_withdrawn(true);
    let mut both = tokio::task::JoinSet::new();
    for path in ["/a", "/b"] {
        let request = rig.handle.call(get(path));
        both.spawn(async move { text(request.await.unwrap()).await });
    }
    arrived(&requests, 1).await;
    open.send_replace(true);
    assert_eq!(both.join_all().await.len(), 2);
    assert_eq!(server.accepted(), 1);
}
