//! Clients that ask for much and give little, over the wire. What each of them costs in a whole process is measured by the
//! program `floods` of the examples.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::tunnel::{TunnelIo, Tunnels};
use super::{ANY, bound, echo, start, tell};
use crate::frames::{self, Frames, kind};
use crate::inbound::split::Bound;
use crate::inbound::testing::Config;
use crate::inbound::{Addresses, InboundLimits, InboundOptions, InboundSlot, RequestBody, serve};
use crate::secure::Secure;
use crate::secure::testing::{Ca, Leaf, downstream, secure, source};

/// What a busy machine may take.
const SOON: Duration = Duration::from_secs(60);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ENHANCE_YOUR_CALM: u32 = 0xb;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A GET of `/`, whole.
fn get(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, 5, stream, &[&[0x82, 0x84, 0x86, 0x41, 1], &b"a"[..]].concat())
}

/// The reason of the GOAWAY that ends these bytes.
fn reason(said: &[u8]) -> Option<u32> {
    let (mut frames, mut last) = (Frames::default(), None);
    frames.read(said, |frame: frames::Frame| last = Some(frame.kind));
    let reason = said.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    reason.filter(|_| frames.is_between() && last == Some(kind::GOAWAY))
}

/// What a client is told that floods, until its connection ends.
async fn flood(slot: &InboundSlot) -> Vec<u8> {
    let raw = TcpStream::connect(slot.address()).await.unwrap();
    let (mut reading, mut writing) = raw.into_split();
    writing.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, b""), &get(1)].concat()).await.unwrap();
    let mut said = Vec::new();
    // The server has begun: its answer is there.
    while !said.windows(4).any(|bytes| bytes == b"GET ") {
        assert!(reading.read_buf(&mut said).await.unwrap() > 0);
    }
    let pings = frame(6, 0, 0, &[0; 8]).repeat(3000);
    let (_, end) = tokio::join!(writing.write_all(&pings), timeout(SOON, reading.read_to_end(&mut said)));
    let _ = end.expect("the connection is cut");
    said
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("GET ")))
}

#[tokio::test]
async fn a_flood_is_told_to_calm_down_before_it_is_cut() {
    let server = echo().await;
    assert_eq!(reason(&flood(&server.slot).await), Some(ENHANCE_YOUR_CALM));
    // The same where the application's own server speaks.
    let (listener, slot) = bound(InboundOptions::default()).await;
    slot.apply(Config::new(slot.address()).build(1));
    let (mut listener, layer) = Bound::new(slot.clone(), listener).split();
    let service = tower::Layer::layer(&layer, tower::service_fn(answer));
    tokio::spawn(async move {
        let io = listener.accept().await.unwrap();
        let peer = io.peer().clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            tower::ServiceExt::oneshot(service.clone(), request)
        });
        let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(io), service).await;
    });
    assert_eq!(reason(&flood(&slot).await), Some(ENHANCE_YOUR_CALM));
}

/// A server on a stream without room of its own, whose answers are `pieces` long; how many were asked for so far.
async fn streaming(limits: InboundLimits, pieces: usize) -> (DuplexStream, Arc<AtomicUsize>) {
    let slot = InboundSlot::new("listener".into(), ANY, InboundOptions { limits, ..InboundOptions::default() });
    slot.apply(Config::new(ANY).build(1));
    let (connect, accepted) = mpsc::channel(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let app = tower::service_fn(move |_: Request<RequestBody>| {
        let body = Pieces { left: pieces, asked: counted.clone() };
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    tokio::spawn(serve(slot, Tunnels(accepted), app));
    let (client, server) = duplex(1024);
    let addresses = Addresses { local: ANY, peer: ANY };
    connect.send(TunnelIo(server, addresses)).await.unwrap();
    (client, asked)
}

const PIECE: usize = 8 * 1024;

struct Pieces {
    left: usize,
    asked: Arc<AtomicUsize>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.asked.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; PIECE])))))
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_has_one_budget_however_many_answers_it_asks_for() {
    const STREAMS: u32 = 100;
    const PIECES: usize = 4;
    let limits = InboundLimits { max_send_buffer: 10 * PIECE, ..InboundLimits::default() };
    let (mut client, asked) = streaming(limits, PIECES).await;
    let windows = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let mut asks = [PREFACE, &frame(kind::SETTINGS, 0, 0, &windows), &frame(8, 0, 0, &[0x7f, 0xfe, 0, 0])].concat();
    asks.extend((0..STREAMS).flat_map(|number| get(2 * number + 1)));
    client.write_all(&asks).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let held = asked.load(Ordering::Relaxed);
    assert!((5..=12).contains(&held), "{held} pieces of {} are held, and 10 may be", STREAMS as usize * PIECES);
    // Who begins to take gets everything.
    let (mut frames, mut whole) = (Frames::default(), 0);
    while whole < STREAMS {
        let mut said = Vec::new();
        assert!(timeout(SOON, client.read_buf(&mut said)).await.expect("answers go on").unwrap() > 0);
        frames.read(&said, |frame| whole += u32::from(frame.kind == kind::DATA && frame.ends_stream()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), STREAMS as usize * PIECES);
}

/// What a server and so many clients hold that have begun and never go on.
fn holding(clients: usize, tls: Option<&Arc<Secure>>, said: &[u8]) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let held = allocation_counter::measure(|| {
        runtime.block_on(async {
            let mut options = InboundOptions::default();
            if let Some(tls) = tls {
                options.tls = tls.clone();
            }
            let server = start(tower::service_fn(tell), options).await;
            let policy = tls.is_some().then(|| Arc::new(downstream()));
            server.slot.apply(Config { tls: policy, ..Config::new(server.address) }.build(1));
            let mut raws = Vec::new();
            for _ in 0..clients {
                let mut raw = TcpStream::connect(server.address).await.unwrap();
                raw.write_all(said).await.unwrap();
                raws.push(raw);
            }
            // Another is answered, or is told that this is no TLS: all before it were read.
            let mut last = TcpStream::connect(server.address).await.unwrap();
            last.write_all(b"GET / HTTP/1.0\r\nhost: a.test\r\n\r\n").await.unwrap();
            let _ = last.read_to_end(&mut Vec::new()).await;
        });
    });
    held.bytes_max
}

#[test]
fn who_never_says_a_whole_word_costs_what_it_has_sent() {
    let ca = Ca::new();
    let tls = Arc::new(secure(&source(&ca, &Leaf::workload("spiffe://mesh.test/server"))));
    let hello = [&[22, 3, 1, 3, 232, 1, 0, 3, 228, 3, 3][..], &[0; 20]].concat();
    for (tls, said) in [
        (None, &b""[..]),
        (None, b"GET / HTTP/1.1\r\nhost: a.test\r\nx-slow: "),
        (None, &PREFACE[..23]),
        (Some(&tls), b""),
        (Some(&tls), &hello),
    ] {
        let each = (holding(120, tls, said) - holding(20, tls, said)) / 100;
        assert!(each < 8 * 1024, "{each} bytes for each client that has said {said:?}, its own socket included");
    }
}

/// What is given back of a connection's window must be all that was taken, however its streams end.
#[tokio::test]
async fn streams_that_are_reset_in_the_middle_of_their_bodies_leave_the_window_whole() {
    const ROUNDS: u32 = 500;
    let (mut client, _) = streaming(InboundLimits::default(), 0).await;
    client.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, b"")].concat()).await.unwrap();
    let (mut frames, mut said) = (Frames::default(), Vec::new());
    let head = &[0x83, 0x84, 0x86, 0x41, 1, b'a'];
    for round in 0..ROUNDS {
        let stream = 2 * round + 1;
        // Padded, and cut off: what h2 once forgot to give back.
        let body = frame(kind::DATA, 8, stream, &[&[255][..], &[0; PIECE]].concat());
        client.write_all(&[frame(kind::HEADERS, 4, stream, head), body].concat()).await.unwrap();
        let mut answered = false;
        while !answered {
            said.clear();
            let read = timeout(SOON, client.read_buf(&mut said)).await.expect("it is answered");
            assert!(read.unwrap() > 0, "cut in round {round}");
            frames.read(&said, |frame| {
                assert_ne!(frame.kind, kind::GOAWAY, "in round {round}");
                answered |= frame.kind == kind::HEADERS && frame.stream == stream;
            });
        }
        client.write_all(&frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])).await.unwrap();
    }
}

/// Over HTTP/1 the length says where the next request begins; over HTTP/2 a proxy in front may have believed it.
#[tokio::test]
async fn a_body_that_is_not_as_long_as_its_head_says_is_reset() {
    let (mut client, _) = streaming(InboundLimits::default(), 0).await;
    let head = [&[0x83, 0x84, 0x86, 0x41, 1, b'a'][..], &[0x0f, 0x0d, 1, b'5']].concat();
    let mut sent = [PREFACE, &frame(kind::SETTINGS, 0, 0, b"")].concat();
    for (stream, body) in [(1, &b"abc"[..]), (3, b"abcdef"), (5, b"abcde")] {
        sent.extend(frame(kind::HEADERS, 4, stream, &head));
        sent.extend(frame(kind::DATA, 1, stream, body));
    }
    client.write_all(&sent).await.unwrap();
    let (mut frames, mut reset, mut answered) = (Frames::default(), Vec::new(), Vec::new());
    while reset.len() + answered.len() < 3 {
        let mut said = Vec::new();
        assert!(timeout(SOON, client.read_buf(&mut said)).await.expect("all are told").unwrap() > 0);
        frames.read(&said, |frame| match frame.kind {
            kind::RST_STREAM => reset.push(frame.stream),
            kind::HEADERS => answered.push(frame.stream),
            _ => {}
        });
    }
    assert_eq!((reset, answered), (vec![1, 3], vec![5]));
}
