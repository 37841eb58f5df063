//! The transport against servers over real sockets, which behave well or badly, and against tonic.

mod alive;
#[cfg(feature = "server")]
mod tls;
mod tonic_server;

use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::ads::{AGGREGATED_RESOURCES, ControlStream, TransportError};
use mesh_core::bootstrap::{Bootstrap, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{call, connect_first, control_transport};
use crate::connect::message::{Deframer, frame};

/// What a test's server does with a call.
type Answer = Result<Frame<Bytes>, io::Error>;

/// A response's body that a test feeds.
struct Fed(mpsc::Receiver<Answer>);

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.0.poll_recv(cx)
    }
}

/// A call as the server has it.
struct Call {
    head: http::request::Parts,
    body: Incoming,
    deframer: Deframer,
    answer: mpsc::Sender<Answer>,
}

impl Call {
    async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.deframer.next().unwrap() {
                return Some(message);
            }
            self.deframer.push(&self.body.frame().await?.ok()?.into_data().unwrap());
        }
    }

    async fn data(&self, bytes: impl Into<Bytes>) {
        self.answer.send(Ok(Frame::data(bytes.into()))).await.unwrap();
    }

    async fn end(self, status: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        trailers.insert("grpc-message", "that%20is%20all".parse().unwrap());
        self.answer.send(Ok(Frame::trailers(trailers))).await.unwrap();
    }
}

/// Serves one connection: each call goes to the test, and is answered as it feeds it.
async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, calls: mpsc::Sender<Call>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let calls = calls.clone();
        async move {
            let (answer, fed) = mpsc::channel(1);
            let (head, body) = request.into_parts();
            calls.send(Call { head, body, deframer: Deframer::default(), answer }).await.unwrap();
            Ok::<_, io::Error>(Response::builder().header("content-type", "application/grpc").body(Fed(fed)).unwrap())
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service).await;
}

/// A server in plaintext, and the calls it gets.
async fn server() -> (ServerConfig, mpsc::Receiver<Call>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = ServerConfig::insecure(listener.local_addr().unwrap().to_string());
    let (sender, calls) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(serve(io, sender.clone()));
        }
    });
    (config, calls)
}

async fn open(server: &ServerConfig) -> Result<Box<dyn ControlStream>, TransportError> {
    control_transport().open(server, AGGREGATED_RESOURCES).await
}

async fn receive(stream: &mut Box<dyn ControlStream>) -> Option<Result<Bytes, TransportError>> {
    poll_fn(|cx| stream.poll_receive(cx)).await
}

async fn failure(stream: &mut Box<dyn ControlStream>) -> String {
    receive(stream).await.unwrap().unwrap_err().reason
}

async fn send(stream: &mut Box<dyn ControlStream>, message: impl Into<Bytes>) {
    poll_fn(|cx| stream.poll_ready(cx)).await.unwrap();
    stream.send(message.into());
}

/// A message that shows when it was cut or mixed up.
fn large() -> Bytes {
    (0..20_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn messages_of_any_size_pass_both_ways_and_ok_ends_the_stream() {
    let (config, mut calls) = server().await;
    let mut stream = open(&config).await.unwrap();
    // The server has said nothing yet, not even its head.
    let mut call = calls.recv().await.unwrap();
    assert_eq!(call.head.uri.path(), AGGREGATED_RESOURCES);
    assert_eq!(call.head.uri.authority().unwrap().as_str(), &*config.uri);
    for (name, value) in [("te", "trailers"), ("content-type", "application/grpc")] {
        assert_eq!(call.head.headers[name], value);
    }
    assert!(!call.head.headers.contains_key("authorization"));

    let large = large();
    let theirs = tokio::spawn({
        let large = large.clone();
        async move {
            let mut got = Vec::new();
            for _ in 0..3 {
                got.push(call.message().await.unwrap());
            }
            assert!(got[0].is_empty() && got[1] == large && got[2] == "small");
            call.data(frame(b"small").unwrap()).await;
            call.data(frame(&large).unwrap()).await;
            call.data([frame(b"").unwrap(), frame(b"x").unwrap()].concat()).await;
            call.end("0").await;
        }
    });
    for message in [Bytes::new(), large.clone(), Bytes::from("small")] {
        send(&mut stream, message).await;
    }
    for want in [Bytes::from("small"), large, Bytes::new(), Bytes::from("x")] {
        assert!(receive(&mut stream).await.unwrap().unwrap() == want);
    }
    assert!(receive(&mut stream).await.is_none());
    theirs.await.unwrap();
}

#[tokio::test]
async fn how_a_call_ends_is_said() {
    let (config, mut calls) = server().await;
    let mut stream = open(&config).await.unwrap();
    let call = calls.recv().await.unwrap();
    call.data(frame(b"one").unwrap()).await;
    call.end("14").await;
    assert_eq!(receive(&mut stream).await.unwrap().unwrap(), "one");
    assert_eq!(failure(&mut stream).await, "the server ended the call with status UNAVAILABLE: that is all");

    let mut stream = open(&config).await.unwrap();
    let call = calls.recv().await.unwrap();
    call.data(vec![0, 0, 0, 0, 9, 1]).await;
    call.end("0").await;
    assert!(failure(&mut stream).await.contains("in the middle of a message"));

    let mut stream = open(&config).await.unwrap();
    drop(calls.recv().await.unwrap());
    assert!(failure(&mut stream).await.contains("without a grpc-status"));

    let mut stream = open(&config).await.unwrap();
    let call = calls.recv().await.unwrap();
    call.answer.send(Err(io::Error::other("reset"))).await.unwrap();
    let text = failure(&mut stream).await;
    assert!(text.contains("the stream broke") && text.contains("stream error"), "{text}");
    assert!(receive(&mut stream).await.is_none(), "what was reported is over");
}

#[tokio::test]
async fn a_refusal_before_any_message_is_told_even_while_we_want_to_send() {
    let rows = [
        (Response::builder().header("grpc-status", "7").header("grpc-message", "no"), "PERMISSION_DENIED: no"),
        (Response::builder().status(503), "HTTP status 503"),
        (Response::builder().header("content-type", "text/html"), "content-type `text/html`"),
    ];
    for (head, want) in rows {
        let (near, far) = tokio::io::duplex(1 << 16);
        let head = std::sync::Mutex::new(Some(head.body(http_body_util::Empty::<Bytes>::new()).unwrap()));
        let service = service_fn(move |_| {
            let response = head.lock().unwrap().take().unwrap();
            async move { Ok::<_, io::Error>(response) }
        });
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(far), service));
        let uri = format!("http://a.test{AGGREGATED_RESOURCES}").parse().unwrap();
        let stream = super::call(Box::new(near), uri, None, http::HeaderMap::new()).await.unwrap();
        let mut stream: Box<dyn ControlStream> = Box::new(stream);
        stream.send("first".into());
        // As the driver does: whatever there is to send, the answer is listened to.
        let text = poll_fn(|cx| {
            if let Poll::Ready(ready) = stream.poll_ready(cx) {
                ready.unwrap();
                stream.send("more".into());
            }
            stream.poll_receive(cx)
        });
        let text = text.await.unwrap().unwrap_err().reason;
        assert!(text.contains(want), "{text}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_breaks_the_stream() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let uri = format!("http://a.test{AGGREGATED_RESOURCES}").parse().unwrap();
    let stream = super::call(Box::new(near), uri, None, http::HeaderMap::new()).await.unwrap();
    let mut stream: Box<dyn ControlStream> = Box::new(stream);
    drop(far);
    assert!(failure(&mut stream).await.contains("the call failed"));
}

#[tokio::test]
async fn whoever_reads_slowly_slows_the_other() {
    let (config, mut calls) = server().await;
    let mut stream = open(&config).await.unwrap();
    let mut call = calls.recv().await.unwrap();
    // The server does not read: we stop being ready after a bounded number of messages.
    let message = Bytes::from(vec![7; 256 * 1024]);
    let sent = fill(&mut stream, &message).await;
    assert!(sent < 64, "{sent} messages are under way");
    for _ in 0..sent {
        assert!(call.message().await.unwrap() == message);
    }
    send(&mut stream, "after").await;
    assert_eq!(call.message().await.unwrap(), "after");

    // We do not read: the server's writes stop after the windows are full.
    let written = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn({
        let (written, framed) = (written.clone(), frame(&message).unwrap());
        async move {
            for _ in 0..400 {
                call.data(framed.clone()).await;
                written.fetch_add(1, Ordering::SeqCst);
            }
            call.end("0").await;
        }
    });
    let stalled = settled(&written).await;
    assert!(stalled < 100, "{stalled} messages of 400 were taken unread");
    for _ in 0..400 {
        assert!(receive(&mut stream).await.unwrap().unwrap() == message);
    }
    assert!(receive(&mut stream).await.is_none());
    writer.await.unwrap();
}

#[tokio::test]
async fn the_next_message_waits_until_the_one_before_is_on_its_way() {
    let (config, mut calls) = server().await;
    let mut stream = open(&config).await.unwrap();
    let mut call = calls.recv().await.unwrap();
    let message = Bytes::from(vec![7; 8 << 20]);
    assert_eq!(fill(&mut stream, &message).await, 1, "it does not fit into the server's windows");
    assert!(call.message().await.unwrap() == message);
    send(&mut stream, "next").await;
    assert_eq!(call.message().await.unwrap(), "next");
}

/// Sends until the stream takes no more, and says how many it took.
async fn fill(stream: &mut Box<dyn ControlStream>, message: &Bytes) -> usize {
    let mut sent = 0;
    while sent < 1000 {
        let ready = poll_fn(|cx| stream.poll_ready(cx));
        match tokio::time::timeout(std::time::Duration::from_millis(200), ready).await {
            Ok(ready) => ready.unwrap(),
            Err(_) => break,
        }
        stream.send(message.clone());
        sent += 1;
    }
    sent
}

/// The number, once it no longer grows.
async fn settled(number: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        match number.load(Ordering::SeqCst) {
            now if now == last => return now,
            now => last = now,
        }
    }
}

#[tokio::test]
async fn dropping_the_stream_cancels_the_call() {
    let (config, mut calls) = server().await;
    let stream = open(&config).await.unwrap();
    let mut call = calls.recv().await.unwrap();
    drop(stream);
    assert!(call.message().await.is_none());
    call.answer.closed().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = open(&ServerConfig::insecure(address.to_string())).await.err().unwrap();
    assert!(error.reason.contains(&address.to_string()), "{error}");
    let error = open(&ServerConfig::insecure("unix:/nowhere/xds.sock")).await.err().unwrap();
    assert!(error.reason.contains("/nowhere/xds.sock"), "{error}");
    let error = open(&ServerConfig::insecure("xds:///a")).await.err().unwrap();
    assert!(error.reason.contains("`xds` is not supported"), "{error}");
}

/// A directory of its own for one test.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mesh-control-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn configured(uri: &str, credentials: &str) -> ServerConfig {
    let json = format!(r#"{{"xds_servers": [{{"server_uri": "{uri}", {credentials}}}]}}"#);
    Bootstrap::from_json(&json).unwrap().servers.remove(0)
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_a_way_too() {
    let files = Files::new();
    let listener = tokio::net::UnixListener::bind(files.path("xds.sock")).unwrap();
    let (sender, mut calls) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(io, sender.clone()));
        }
    });
    for form in ["unix://", "unix:"] {
        let config = ServerConfig::insecure(format!("{form}{}", files.path("xds.sock")));
        let mut stream = open(&config).await.unwrap();
        send(&mut stream, "hello").await;
        let mut call = calls.recv().await.unwrap();
        assert_eq!(call.message().await.unwrap(), "hello");
        assert_eq!(call.head.uri.authority().unwrap(), "localhost");
    }
}
