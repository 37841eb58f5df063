//! What a client sends first, kept until there is enough of it to be worth more than its bytes: TLS and HTTP begin with
//! buffers of many kibibytes, which a thousand clients that never finish their first line could have us hold.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::io::BoxStream;

/// So much is read at first: the head of a usual request. Then as much again as there is.
const CHUNK: usize = 512;

/// A stream whose first bytes were looked at, and are read again.
pub(crate) struct Early {
    seen: Vec<u8>,
    /// How many of them were read again.
    at: usize,
    io: BoxStream,
}

impl Early {
    pub(crate) fn new(io: BoxStream) -> Self {
        Self { seen: Vec::new(), at: 0, io }
    }

    /// What has come so far.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Waits for more; whether there is: otherwise the client has hung up. It is cancel safe.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(crate) async fn more(&mut self) -> io::Result<bool> {
        if self.seen.len() == self.seen.capacity() {
            self.seen.reserve(CHUNK);
        }
        Ok(self.io.read_buf(&mut self.seen).await? > 0)
    }
}

impl AsyncRead for Early {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.seen[self.at..];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, to);
        }
        let count = left.len().min(to.remaining());
        to.put_slice(&left[..count]);
        self.at += count;
        if self.at == self.seen.len() {
            (self.seen, self.at) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

crate::io::writes_pass!(Early, io);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_was_looked_at_is_read_again_and_then_the_rest() {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut early = Early::new(Box::new(server));
        let said: Vec<u8> = (0..2000_u16).map(|number| number.to_be_bytes()[1]).collect();
        client.write_all(&said[..700]).await.unwrap();
        while early.seen().len() < 700 {
            assert!(early.more().await.unwrap());
        }
        assert_eq!(early.seen(), &said[..700]);
        client.write_all(&said[700..]).await.unwrap();
        drop(client);
        let mut all = Vec::new();
        early.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, said);
        assert!(!early.more().await.unwrap(), "the client has hung up");
    }
}
