//! Real HTTP clients: one connection each.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A whole response.
#[derive(Debug)]
pub(in crate::inbound) struct Answer {
    pub(in crate::inbound) status: StatusCode,
    pub(in crate::inbound) headers: HeaderMap,
    pub(in crate::inbound) text: String,
}

impl Answer {
    pub(in crate::inbound) fn code(&self) -> &str {
        self.headers.get("x-mesh-code").map_or("", |code| code.to_str().unwrap())
    }

    pub(in crate::inbound) fn grpc_status(&self) -> &str {
        self.headers.get("grpc-status").map_or("", |code| code.to_str().unwrap())
    }
}

/// A client's end of a connection.
pub(in crate::inbound) enum Client {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// The versions of HTTP, each tested the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::inbound) enum Http {
    One,
    Two,
}

pub(in crate::inbound) const BOTH: [Http; 2] = [Http::One, Http::Two];

impl Client {
    pub(in crate::inbound) async fn connect(http: Http, to: SocketAddr) -> hyper::Result<(Self, JoinHandle<()>)> {
        Self::over(http, TcpStream::connect(to).await.unwrap()).await
    }

    /// The client, and the task that ends when its connection does.
    pub(in crate::inbound) async fn over(
        http: Http,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> hyper::Result<(Self, JoinHandle<()>)> {
        let io = TokioIo::new(io);
        Ok(match http {
            Http::One => {
                let (sender, connection) = http1::handshake(io).await?;
                (Self::One(sender), tokio::spawn(async { drop(connection.await) }))
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                (Self::Two(sender), tokio::spawn(async { drop(connection.await) }))
            }
        })
    }

    pub(in crate::inbound) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (head, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, text: String::from_utf8(bytes.to_vec()).unwrap() })
    }

    pub(in crate::inbound) async fn get(&mut self, path: &str) -> hyper::Result<Answer> {
        let request = match self {
            Self::One(_) => request(path).header("host", "a.test"),
            Self::Two(_) => request(&format!("http://a.test{path}")),
        };
        self.send(request.body(Full::default()).unwrap()).await
    }
}

fn request(uri: &str) -> http::request::Builder {
    Request::builder().uri(uri)
}

/// One request over a connection of its own.
pub(in crate::inbound) async fn get(http: Http, to: SocketAddr, path: &str) -> hyper::Result<Answer> {
    Client::connect(http, to).await?.0.get(path).await
}

/// One gRPC request over a connection of its own.
pub(in crate::inbound) async fn call(to: SocketAddr, path: &str) -> hyper::Result<Answer> {
    let request = Request::post(format!("http://a.test{path}")).header("content-type", "application/grpc+proto");
    Client::connect(Http::Two, to).await?.0.send(request.body(Full::default()).unwrap()).await
}
