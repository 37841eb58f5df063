//! HTTP/2: one connection for all, and what is lost when it is.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use http::Request;
use http_body::{Body, Frame};
use mesh_core::error::Code;
use mesh_core::policy::retry::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::rig::{Rig, text};
use super::server::{Http, Server, echo, held};
use crate::BoxError;
use crate::body::MeshBody;
use crate::connect::WireProtocol::Http2;

async fn arrived(count: &AtomicUsize, requests: usize) {
    while count.load(Ordering::SeqCst) < requests {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_share_one_connection() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::Two, held(count.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http2).await;
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        requests.spawn(rig.handle.call(super::rig::get("/")));
    }
    arrived(&count, 50).await;
    open.send_replace(true);
    for response in requests.join_all().await {
        assert_eq!(text(response.unwrap()).await, "done");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn the_server_sees_the_authority_that_was_asked_for() {
    let server = Server::start(Http::Two, echo()).await;
    let rig = Rig::ready(server.address, Http2).await;
    assert_eq!(rig.text("/x?y").await, "GET http://a.example/x?y - HTTP/2.0");
}

#[tokio::test]
async fn a_server_that_dies_breaks_what_it_had_and_is_called_again_when_it_is_back() {
    let (count, (_open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::Two, held(count.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http2).await;
    let request = tokio::spawn(rig.handle.call(super::rig::get("/")));
    arrived(&count, 1).await;
    server.kill().await;
    let failed = request.await.unwrap().unwrap_err();
    assert_eq!(failed.failure, Failure::Reset { code: None });
    assert!(failed.request.is_none(), "the server may have seen it");
    assert_eq!(failed.error.code(), Code::BROKEN);

    rig.until_failed().await;
    let back = rig.get("/").await.unwrap_err();
    assert_eq!(back.failure, Failure::BeforeRequest);
    assert_eq!(back.request.unwrap().uri(), "http://a.example/");
    assert_eq!(rig.handle.last_error().unwrap().code(), Code::NO_CONNECTION);

    let _again = Server::on(server.address, Http::Two, echo()).await;
    rig.until_ready().await;
    assert!(rig.handle.last_error().is_none());
    rig.text("/").await;
}

#[tokio::test]
async fn a_goaway_loses_nothing_and_is_answered_with_a_new_connection_at_once() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::Two, held(count.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http2).await;
    let old = tokio::spawn(rig.handle.call(super::rig::get("/")));
    arrived(&count, 1).await;
    server.goaway();
    // The old connection is kept by its request; without it, no more is asked of the server.
    while server.accepted() < 2 {
        tokio::task::yield_now().await;
    }
    rig.until_ready().await;
    let new = tokio::spawn(rig.handle.call(super::rig::get("/")));
    arrived(&count, 2).await;
    open.send_replace(true);
    assert_eq!(text(old.await.unwrap().unwrap()).await, "done");
    assert_eq!(text(new.await.unwrap().unwrap()).await, "done");
    server.until_open(1).await;
}

#[tokio::test]
async fn dropping_the_handle_ends_the_connection_after_its_requests() {
    let (count, (open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::Two, held(count.clone(), gate)).await;
    let rig = Rig::ready(server.address, Http2).await;
    let request = tokio::spawn(rig.handle.call(super::rig::get("/")));
    arrived(&count, 1).await;
    let state = rig.state.clone();
    drop(rig);
    while state.is_ready() {
        tokio::task::yield_now().await;
    }
    server.until_open(1).await;
    open.send_replace(true);
    assert_eq!(text(request.await.unwrap().unwrap()).await, "done");
    server.until_open(0).await;
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_not_ready() {
    let server = Server::start(Http::One, echo()).await;
    let rig = Rig::new(&super::rig::tcp(), super::rig::plan(server.address, Http2));
    rig.until_failed().await;
    let error = rig.handle.last_error().unwrap();
    assert_eq!(error.code(), Code::NO_CONNECTION);
    assert!(error.message().contains("did not start HTTP/2"), "{error}");
}

/// Resets every stream with `reason`.
async fn resetting(reason: Reason) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(reason);
        }
    });
    address
}

#[tokio::test]
async fn resets_are_told_apart_by_their_code() {
    for (reason, failure) in [
        (Reason::REFUSED_STREAM, Failure::Refused),
        (Reason::CANCEL, Failure::Reset { code: Some(8) }),
        (Reason::INTERNAL_ERROR, Failure::Reset { code: Some(2) }),
        (Reason::ENHANCE_YOUR_CALM, Failure::Reset { code: Some(11) }),
    ] {
        let rig = Rig::ready(resetting(reason).await, Http2).await;
        let failed = rig.get("/").await.unwrap_err();
        assert_eq!(failed.failure, failure);
        assert!(failed.request.is_none());
    }
}

/// Reads frames up to the first HEADERS.
async fn until_headers(io: &mut TcpStream) {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    loop {
        let mut header = [0; 9];
        io.read_exact(&mut header).await.unwrap();
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        io.read_exact(&mut vec![0; length]).await.unwrap();
        if header[3] == 1 {
            return;
        }
    }
}

#[tokio::test]
async fn a_goaway_that_names_an_earlier_stream_refuses_the_later_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut io = listener.accept().await.unwrap().0;
        io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        until_headers(&mut io).await;
        io.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        io
    });
    let rig = Rig::ready(address, Http2).await;
    let failed = rig.get("/").await.unwrap_err();
    assert_eq!(failed.failure, Failure::Refused);
    assert!(failed.failure.is_unseen());
    drop(server.await.unwrap());
}

#[tokio::test]
async fn a_body_that_fails_is_the_applications_fault() {
    let (count, (_open, gate)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
    let server = Server::start(Http::Two, held(count, gate)).await;
    let rig = Rig::ready(server.address, Http2).await;
    let (sender, body) = tokio::sync::mpsc::channel(1);
    sender.send(Err("out of paper".into())).await.unwrap();
    let request = Request::post("http://a.example/").body(MeshBody::new(Failing(body))).unwrap();
    let failed = rig.handle.call(request).await.unwrap_err();
    assert_eq!((failed.failure, failed.error.code()), (Failure::Refusal, Code::BODY));
}

struct Failing(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl Body for Failing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}
