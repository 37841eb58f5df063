//! A connection that is not a TCP connection: a stream inside a tunnel, with the addresses the tunnel says.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_core::model::{ChainMatch, SourceType};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

use super::client::{BOTH, Client};
use super::{ANY, tell};
use crate::inbound::testing::Config;
use crate::inbound::{Addresses, InboundIo, InboundListener, InboundOptions, InboundSlot, serve};

pub(super) struct TunnelIo(pub(super) DuplexStream, pub(super) Addresses);

impl InboundIo for TunnelIo {
    fn addresses(&self) -> Addresses {
        self.1
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

pub(super) struct Tunnels(pub(super) mpsc::Receiver<TunnelIo>);

impl InboundListener for Tunnels {
    type Io = TunnelIo;

    async fn accept(&mut self) -> io::Result<TunnelIo> {
        match self.0.recv().await {
            Some(io) => Ok(io),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn a_stream_of_a_tunnel_is_a_connection_with_the_tunnels_addresses() {
    let slot = InboundSlot::new("listener".into(), ANY, InboundOptions::default());
    let external = ChainMatch { source_type: SourceType::External, ..ChainMatch::default() };
    slot.apply(Config { matches: external, ..Config::new(ANY) }.build(1));
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(serve(slot, Tunnels(receiver), tower::service_fn(tell)));
    let addresses = Addresses { local: "10.0.0.1:8080".parse().unwrap(), peer: "10.1.1.1:5".parse().unwrap() };
    for http in BOTH {
        let (near, far) = duplex(64 * 1024);
        sender.send(TunnelIo(far, addresses)).await.ok().unwrap();
        let answer = Client::over(http, near).await.unwrap().0.get("/in").await.unwrap();
        assert!(answer.text.starts_with("GET /in ") && answer.text.ends_with("local=10.0.0.1:8080"), "{}", answer.text);
    }
}
