//! Second implementations of this module's seams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_core::model::Endpoint;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tower::service_fn;

use super::rig::{Rig, connections, endpoint, plan};
use super::server::{Http, Server, echo};
use crate::connect::WireProtocol::{Http1, Http2, Negotiated};
use crate::connect::{BoxFuture, Dial, Hop, Hops, PoolKey, ServiceDial, TcpDial};
use crate::io::BoxStream;
use crate::secure::testing::upstream;

/// A hop that takes HTTP/1's CONNECT.
#[derive(Debug)]
struct ConnectHop {
    proxy: SocketAddr,
    identity: &'static str,
}

impl Hop for ConnectHop {
    fn address(&self) -> SocketAddr {
        self.proxy
    }

    fn key(&self) -> String {
        format!("connect as {}", self.identity)
    }

    fn pass(&self, mut io: BoxStream, next: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        Box::pin(async move {
            io.write_all(format!("CONNECT {next} HTTP/1.1\r\nHost: {next}\r\n\r\n").as_bytes()).await?;
            let mut io = BufReader::new(io);
            let mut line = String::new();
            io.read_line(&mut line).await?;
            if !line.starts_with("HTTP/1.1 200") {
                return Err(io::Error::other(line));
            }
            io.read_line(&mut line).await?;
            Ok(Box::new(io) as BoxStream)
        })
    }
}

/// A proxy that takes CONNECT, and says where to.
async fn proxy() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let mut io = BufReader::new(listener.accept().await.unwrap().0);
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    io.read_line(&mut head).await.unwrap();
                }
                let to = head.split(' ').nth(1).unwrap().to_owned();
                let mut next = TcpStream::connect(&to).await.unwrap();
                tell.send(to).unwrap();
                io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut io, &mut next).await;
            });
        }
    });
    (address, told)
}

/// Dials through hops of its own.
#[derive(Debug)]
struct Through(Hops);

impl Dial for Through {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint, _: &'a Hops) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(
            async move { TcpDial::new(Some(crate::connect::TcpKeepalive::default())).dial(endpoint, &self.0).await },
        )
    }
}

#[tokio::test]
async fn hops_of_another_kind_fit_and_nest() {
    let server = Server::start(Http::Two, echo()).await;
    let ((outer, mut outer_told), (inner, mut inner_told)) = (proxy().await, proxy().await);
    let hops = [outer, inner].map(|proxy| Arc::new(ConnectHop { proxy, identity: "a" }) as Arc<dyn Hop>);
    let rig = Rig::new(&connections(Through(Hops::through(hops))), plan(server.address, Http2));
    rig.until_ready().await;
    assert_eq!(rig.text("/").await, "GET http://a.example/ - HTTP/2.0");
    assert_eq!(outer_told.recv().await.unwrap(), inner.to_string());
    assert_eq!(inner_told.recv().await.unwrap(), server.address.to_string());
}

#[test]
fn only_what_leads_the_same_way_under_the_same_identity_is_alike() {
    let address = "127.0.0.1:80".parse().unwrap();
    let through = |identity| Hops::through([Arc::new(ConnectHop { proxy: address, identity }) as Arc<dyn Hop>]);
    let direct = PoolKey::new(&plan(address, Http1), &Hops::direct());
    assert_eq!(direct, PoolKey::new(&plan(address, Http1), &Hops::direct()));

    let mut with_tls = plan(address, Http1);
    with_tls.tls = Some(Arc::new(upstream()));
    let tls = PoolKey::new(&with_tls, &Hops::direct());
    with_tls.tls = Some(Arc::new(upstream()));
    assert_eq!(tls, PoolKey::new(&with_tls, &Hops::direct()), "a policy that says the same is the same");

    let mut named = plan(address, Http1);
    named.endpoint = Arc::new(Endpoint { hostname: "a.example".into(), ..endpoint(address) });
    let keys = [
        direct,
        PoolKey::new(&named, &Hops::direct()),
        tls,
        PoolKey::new(&plan(address, Http2), &Hops::direct()),
        PoolKey::new(&plan("127.0.0.2:80".parse().unwrap(), Http1), &Hops::direct()),
        PoolKey::new(&plan(address, Http1), &through("a")),
        PoolKey::new(&plan(address, Http1), &through("b")),
    ];
    for (index, one) in keys.iter().enumerate() {
        for other in &keys[index + 1..] {
            assert_ne!(one, other);
        }
    }
}

#[tokio::test]
async fn the_applications_connector_is_asked_for_each_connection() {
    let server = Server::start(Http::One, echo()).await;
    let address = server.address;
    let connector = service_fn(move |uri: Uri| async move {
        assert_eq!(uri, "http://192.0.2.1:8080/");
        // Somewhere else than the URI says: it is the connector's word that counts.
        TcpStream::connect(address).await.map(TokioIo::new)
    });
    let rig = Rig::new(&connections(ServiceDial::new(connector)), plan("192.0.2.1:8080".parse().unwrap(), Negotiated));
    rig.until_ready().await;
    assert_eq!(rig.text("/").await, "GET / a.example HTTP/1.1");
}

#[tokio::test]
async fn a_connector_that_fails_says_why() {
    let connector = service_fn(|_: Uri| async { Err::<TokioIo<TcpStream>, _>("no socks") });
    let rig = Rig::new(&connections(ServiceDial::new(connector)), plan("192.0.2.1:8080".parse().unwrap(), Http2));
    rig.until_failed().await;
    assert!(rig.handle.last_error().unwrap().message().contains("no socks"));
}

/// gRFC A61.
#[tokio::test]
async fn another_address_of_the_endpoint_is_tried_when_the_first_refuses() {
    let server = Server::start(Http::One, echo()).await;
    let closed = TcpListener::bind("127.0.0.2:0").await.unwrap().local_addr().unwrap();
    let mut plan = plan(closed, Http1);
    plan.endpoint = Arc::new(Endpoint { additional: vec![server.address], ..endpoint(closed) });
    let rig = Rig::new(&super::rig::tcp(), plan);
    rig.until_ready().await;
    rig.text("/").await;
}
