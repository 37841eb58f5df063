//! Byte streams of any kind, for both sides: what TLS and HTTP run over.

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream whose kind no longer matters: TCP, TLS over TCP, or a tunnel.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A boxed [`ByteStream`]: one allocation for each connection, so that HTTP is compiled once.
pub(crate) type BoxStream = Box<dyn ByteStream>;
