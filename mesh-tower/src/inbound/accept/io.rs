//! What can be accepted: anything that reads, writes and knows the addresses of its two ends.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// The two ends of a connection, as filter chains and authorization see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The address the client connected to.
    pub local: SocketAddr,
    /// The client's address.
    pub peer: SocketAddr,
}

/// A connection that was accepted. A TCP connection is one; so is a stream inside a tunnel, with the addresses that the
/// tunnel says.
pub trait InboundIo: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Its two ends.
    fn addresses(&self) -> Addresses;
}

/// Where connections come from.
pub trait InboundListener: Send + 'static {
    /// What it accepts.
    type Io: InboundIo;

    /// The next connection. It must be cancel safe: it is raced against shutdown.
    ///
    /// # Errors
    ///
    /// An error of one connection, or a passing lack of resources: the caller waits a little and asks again.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// A TCP connection with its addresses.
#[derive(Debug)]
pub struct TcpIo {
    stream: TcpStream,
    addresses: Addresses,
}

impl InboundIo for TcpIo {
    fn addresses(&self) -> Addresses {
        self.addresses
    }
}

impl InboundListener for TcpListener {
    type Io = TcpIo;

    async fn accept(&mut self) -> io::Result<TcpIo> {
        let (stream, peer) = Self::accept(self).await?;
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        Ok(TcpIo { stream, addresses: Addresses { local, peer } })
    }
}

impl AsyncRead for TcpIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

crate::io::writes_pass!(TcpIo, stream);
