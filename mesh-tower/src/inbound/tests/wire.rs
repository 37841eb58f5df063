//! What passes through untouched: streams in both directions, trailers, upgrades; and bodies that break.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::model::HeadRules;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::bound;
use crate::inbound::testing::Config;
use crate::inbound::{BoxError, InboundOptions, InboundSlot, RequestBody, serve};

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// A body that panics when it is read.
struct Bomb;

impl Body for Bomb {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        panic!("on purpose")
    }
}

async fn app(mut request: Request<RequestBody>) -> Result<Response<AnyBody>, BoxError> {
    Ok(match request.uri().path() {
        "/echo" => {
            // Frame by frame, trailers included, while the request still comes.
            Response::new(request.into_body().map_err(Into::into).boxed_unsync())
        }
        "/bomb" => Response::new(Bomb.boxed_unsync()),
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut said = [0; 4];
                io.read_exact(&mut said).await.unwrap();
                io.write_all(&said).await.unwrap();
            });
            let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            let response = response.header("connection", "upgrade").header("upgrade", "test");
            response.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap()
        }
        _ => Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync()),
    })
}

async fn started() -> std::sync::Arc<InboundSlot> {
    let (listener, slot) = bound(InboundOptions::default()).await;
    slot.apply(Config { upgrades: vec!["test".into()], ..Config::new(slot.address()) }.build(1));
    tokio::spawn(serve(slot.clone(), listener, tower::service_fn(app)));
    slot
}

/// A channel as a stream of frames.
struct Channel(mpsc::Receiver<Frame<Bytes>>);

impl futures_core::Stream for Channel {
    type Item = Result<Frame<Bytes>, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

type Frames = StreamBody<Channel>;

async fn http2(slot: &InboundSlot) -> hyper::client::conn::http2::SendRequest<Frames> {
    let io = TokioIo::new(TcpStream::connect(slot.address()).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str) -> (mpsc::Sender<Frame<Bytes>>, Request<Frames>) {
    let (sender, receiver) = mpsc::channel(1);
    let body = StreamBody::new(Channel(receiver));
    (sender, Request::post(format!("http://a.test{path}")).body(body).unwrap())
}

#[tokio::test]
async fn streams_run_in_both_directions_with_trailers() {
    let slot = started().await;
    let mut client = http2(&slot).await;
    let (sender, request) = request("/echo");
    let mut body = client.send_request(request).await.unwrap().into_body();
    for word in ["one", "two"] {
        sender.send(Frame::data(Bytes::from(word))).await.unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word, "each comes back before the next is sent");
    }
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-end"), HeaderValue::from_static("yes"))]);
    sender.send(Frame::trailers(trailers.clone())).await.unwrap();
    drop(sender);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
}

#[tokio::test]
async fn a_panic_in_a_body_fails_its_own_response_only() {
    let slot = started().await;
    let mut client = http2(&slot).await;
    let (open, echo) = request("/echo");
    let other = client.send_request(echo).await.unwrap();
    let (_, bomb) = request("/bomb");
    let broken = client.send_request(bomb).await;
    if let Ok(response) = broken {
        assert!(response.into_body().collect().await.is_err());
    }
    drop(open);
    assert!(other.into_body().collect().await.is_ok(), "its neighbour on the connection is whole");
}

#[tokio::test]
async fn an_upgrade_passes() {
    let slot = started().await;
    let mut raw = TcpStream::connect(slot.address()).await.unwrap();
    raw.write_all(b"GET /upgrade HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(raw.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    raw.write_all(b"ping").await.unwrap();
    let mut said = [0; 4];
    raw.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"ping");
}

/// What a client gets for `bytes`, until the server closes or is silent.
async fn raw(slot: &InboundSlot, bytes: &[u8]) -> String {
    let mut raw = TcpStream::connect(slot.address()).await.unwrap();
    raw.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(500), raw.read_to_end(&mut said)).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn an_upgrade_that_nobody_allows_is_refused_and_ends_the_connection() {
    let slot = started().await;
    let next = "GET /next HTTP/1.1\r\nhost: a.test\r\n\r\n";
    let refused =
        format!("GET /upgrade HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n{next}");
    let answer = raw(&slot, refused.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "what follows is nobody's: {answer}");
    // One that is allowed, and that the application does not grant.
    let ignored = format!("GET /plain HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n{next}");
    let answer = raw(&slot, ignored.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
}

#[tokio::test]
async fn a_request_that_two_readers_could_cut_differently_is_refused() {
    let slot = started().await;
    let chunked = "transfer-encoding: chunked\r\n";
    for (headers, body) in [
        (format!("{chunked}content-length: 3\r\n"), "0\r\n\r\n"),
        (format!("content-length: 3\r\n{chunked}"), "0\r\n\r\n"),
        ("content-length: 0\r\ncontent-length: 0\r\n".to_owned(), ""),
        (format!("{chunked}{chunked}"), "0\r\n\r\n"),
    ] {
        // As the second request of a connection, too, after one with a body.
        for before in ["", "POST /plain HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1\r\n\r\nx"] {
            let answer =
                raw(&slot, format!("{before}POST /plain HTTP/1.1\r\nhost: a.test\r\n{headers}\r\n{body}").as_bytes())
                    .await;
            let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
            assert_eq!(statuses.last(), Some(&"400"), "{before:?} {headers:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn heads_and_trailers_have_limits_which_the_listener_says() {
    let (listener, slot) = bound(InboundOptions::default()).await;
    let head = HeadRules { max_headers: Some(8), max_bytes: Some(1024), ..HeadRules::default() };
    slot.apply(Config { head, ..Config::new(slot.address()) }.build(1));
    tokio::spawn(serve(slot.clone(), listener, tower::service_fn(app)));
    for (lines, status) in [(7, "200"), (8, "431")] {
        let more = "x: y\r\n".repeat(lines);
        let answer = raw(&slot, format!("GET / HTTP/1.1\r\nhost: a\r\n{more}\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {answer}");
    }
    // `GET / HTTP/1.1`, `host: a`, `x: ` and the empty line are 16 + 9 + 5 + 2 bytes.
    for (length, status) in [(1024 - 32, "200"), (1024 - 31, "431")] {
        let long = "y".repeat(length);
        let answer = raw(&slot, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {answer}");
    }
    let mut client = http2(&slot).await;
    for (length, whole) in [(1000, true), (1024, false)] {
        let (sender, request) = request("/echo");
        let body = client.send_request(request).await.unwrap().into_body();
        let value = HeaderValue::try_from("y".repeat(length)).unwrap();
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-end"), value)]);
        sender.send(Frame::trailers(trailers)).await.unwrap();
        drop(sender);
        assert_eq!(body.collect().await.is_ok(), whole, "{length}");
    }
    let many = (0..4).fold(Request::get("http://a.test/"), |request, index| request.header(format!("x-{index}"), "y"));
    let more = many.header("x-4", "y");
    let empty = || StreamBody::new(Channel(mpsc::channel(1).1));
    let fits = Request::get("http://a.test/").header("cookie", "a=1").body(empty()).unwrap();
    assert_eq!(client.send_request(fits).await.unwrap().status(), 200);
    assert_eq!(client.send_request(more.body(empty()).unwrap()).await.unwrap().status(), 431);
}

/// What the server says of streams in its SETTINGS (RFC 9113, 6.5.2).
async fn streams(slot: &InboundSlot) -> u32 {
    const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
    let mut raw = TcpStream::connect(slot.address()).await.unwrap();
    raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    raw.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS come first");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    raw.read_exact(&mut settings).await.unwrap();
    let said = settings.chunks(6).find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS).unwrap();
    u32::from_be_bytes(said[2..].try_into().unwrap())
}

#[tokio::test]
async fn a_listener_lowers_the_number_of_streams_and_never_raises_it() {
    for (max_streams, expected) in [(None, 1024), (Some(7), 7), (Some(5000), 1024)] {
        let (listener, slot) = bound(InboundOptions::default()).await;
        let head = HeadRules { max_streams, ..HeadRules::default() };
        slot.apply(Config { head, ..Config::new(slot.address()) }.build(1));
        tokio::spawn(serve(slot.clone(), listener, tower::service_fn(app)));
        assert_eq!(streams(&slot).await, expected, "{max_streams:?}");
    }
}
