//! Whether the control plane is there, and how long it takes to see that it is not.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::*;
use crate::connect::testing::BlackHole;

#[tokio::test(start_paused = true)]
async fn a61_an_address_that_swallows_everything_does_not_hide_the_next() {
    let (config, mut calls) = server().await;
    let hole = BlackHole::new().await;
    let list = ServerConfig::insecure(format!("ipv4:{},{}", hole.address(), config.uri));
    let mut stream = timeout(Duration::from_secs(10), open(&list)).await.unwrap().unwrap();
    send(&mut stream, "hello").await;
    assert_eq!(calls.recv().await.unwrap().message().await.unwrap(), "hello");
}

#[tokio::test]
async fn the_kernel_watches_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses: Vec<SocketAddr> = vec![listener.local_addr().unwrap()];
    let stream: TcpStream = connect_first(addresses).await.unwrap();
    assert!(SockRef::from(&stream).keepalive().unwrap());
}

/// gRPC's keepalive: after five minutes of silence it asks, and waits 20 s for an answer.
#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_left_after_5_min_20_s() {
    let (near, mut far) = duplex(64 << 10);
    tokio::spawn(async move {
        // SETTINGS, and nothing ever after.
        far.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut ignored = [0; 4096];
        while far.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
    });
    let uri = "http://control.test/service/Method".parse().unwrap();
    let stream = call(Box::new(near), uri, None, HeaderMap::new()).await.unwrap();
    let (began, mut stream) = (Instant::now(), Box::new(stream) as Box<dyn ControlStream>);
    let ended = timeout(Duration::from_secs(330), receive(&mut stream)).await.expect("it is never left");
    assert!(ended.unwrap().is_err());
    assert!(began.elapsed() >= Duration::from_secs(320), "{:?}", began.elapsed());
}
