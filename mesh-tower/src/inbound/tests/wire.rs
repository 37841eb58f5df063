//! What passes through untouched: streams in both directions, trailers, upgrades; and bodies that break.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
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
    slot.apply(Config::new(slot.address()).build(1));
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
