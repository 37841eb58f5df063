//! TLS is a stage of accepting that must not hold up anybody else. Here it is a double that says how it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mesh_core::error::{Code, Error};
use mesh_core::model::{CertificateRef, DownstreamTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::client::{BOTH, Client};
use super::{Server, start, tell};
use crate::inbound::config::{Accepted, BoxedAccept, InboundTls, TlsAcceptor};
use crate::inbound::testing::Config;
use crate::inbound::{InboundLimits, InboundOptions};
use crate::io::BoxStream;

/// A handshake that begins with any byte, and then is a single one: `y` succeeds, anything else fails.
#[derive(Debug, Clone, Default)]
struct OneByte {
    begun: Arc<AtomicUsize>,
}

impl InboundTls for OneByte {
    fn acceptor(&self, _policy: &Arc<DownstreamTls>) -> Result<Arc<dyn TlsAcceptor>, Error> {
        Ok(Arc::new(self.clone()))
    }
}

impl TlsAcceptor for OneByte {
    fn accept(&self, mut io: BoxStream) -> BoxedAccept {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let (_, answer) = (io.read_u8().await, io.read_u8().await);
            match answer {
                Ok(b'y') => Ok(Accepted::anonymous(io)),
                _ => Err(Error::new(Code::HANDSHAKE, "not the byte")),
            }
        })
    }
}

fn tls() -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        identity: CertificateRef { instance: "i".into(), certificate: "".into() },
        client_roots: None,
        require_client_certificate: false,
        sans: Vec::new(),
        checks: Default::default(),
        params: Default::default(),
    })
}

async fn server(limits: InboundLimits) -> (Server, OneByte) {
    let double = OneByte::default();
    let options = InboundOptions { limits, tls: Arc::new(double.clone()), ..InboundOptions::default() };
    let server = start(tower::service_fn(tell), options).await;
    server.slot.apply(Config { tls: Some(tls()), ..Config::new(server.address) }.build(1));
    (server, double)
}

#[tokio::test]
async fn http_follows_the_handshake_and_a_failed_one_ends_the_connection() {
    let (server, _) = server(InboundLimits::default()).await;
    for http in BOTH {
        let mut raw = TcpStream::connect(server.address).await.unwrap();
        raw.write_all(b"?y").await.unwrap();
        assert_eq!(Client::over(http, raw).await.unwrap().0.get("/").await.unwrap().status, 200);
    }
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "plaintext to a TLS chain gets nothing");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_ends_after_its_time() {
    let (server, _) =
        server(InboundLimits { handshake_timeout: Duration::from_secs(3), ..InboundLimits::default() }).await;
    let mut raw = TcpStream::connect(server.address).await.unwrap();
    let start = Instant::now();
    let _ = raw.read_to_end(&mut Vec::new()).await;
    assert!(start.elapsed() >= Duration::from_secs(2) && start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn handshakes_at_the_same_time_are_bounded_and_slow_ones_hold_up_nobody_within_the_bound() {
    let (server, double) = server(InboundLimits { max_handshakes: 2, ..InboundLimits::default() }).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"?").await.unwrap();
    // One slow handshake: the second place is enough for everybody else, one after the other.
    for _ in 0..3 {
        let mut raw = TcpStream::connect(server.address).await.unwrap();
        raw.write_all(b"?y").await.unwrap();
        assert_eq!(Client::over(BOTH[0], raw).await.unwrap().0.get("/").await.unwrap().status, 200);
    }
    // Two slow ones: a third is not begun until a place is free.
    let begun = double.begun.load(Ordering::SeqCst);
    let mut slower = TcpStream::connect(server.address).await.unwrap();
    slower.write_all(b"?").await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    third.write_all(b"?y").await.unwrap();
    while double.begun.load(Ordering::SeqCst) == begun {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(double.begun.load(Ordering::SeqCst), begun + 1);
    drop((slow, slower));
    assert_eq!(Client::over(BOTH[0], third).await.unwrap().0.get("/").await.unwrap().status, 200);
}

/// All places are taken by clients that say nothing, in the handshake or after it: whoever means it gets through.
#[tokio::test(start_paused = true)]
async fn who_takes_all_places_and_says_nothing_keeps_nobody_out() {
    for said in [&b""[..], b"?", b"?y", b"?yGET / HTTP/1.1\r\n"] {
        let (server, _) = server(InboundLimits { max_handshakes: 3, ..InboundLimits::default() }).await;
        let mut silent = Vec::new();
        for _ in 0..5 {
            let mut raw = TcpStream::connect(server.address).await.unwrap();
            raw.write_all(said).await.unwrap();
            silent.push(raw);
        }
        let start = Instant::now();
        let mut raw = TcpStream::connect(server.address).await.unwrap();
        raw.write_all(b"?y").await.unwrap();
        assert_eq!(Client::over(BOTH[0], raw).await.unwrap().0.get("/").await.unwrap().status, 200);
        let limit = InboundLimits::default().handshake_timeout;
        assert!(start.elapsed() < limit, "{said:?}: {:?}, and a place lasts {limit:?}", start.elapsed());
    }
}
