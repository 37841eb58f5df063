//! A connection of a mesh listener: the byte stream, with what its owner cannot see taken care of.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Half;
use super::gate::Gate;
use super::watch::{ENHANCE_YOUR_CALM, NO_ERROR, Watch};
use crate::inbound::identify::PeerInfo;
use crate::inbound::serve::Heads;
use crate::io::BoxStream;

/// An accepted connection, TLS taken off. Whoever serves it puts [`peer`](Self::peer) into the extensions of each request;
/// `axum::serve` with `into_make_service_with_connect_info::<PeerInfo>()` and tonic do so on their own.
pub struct MeshIo {
    io: BoxStream,
    peer: PeerInfo,
    /// Where the mesh itself serves: what follows the heads of requests.
    heads: Option<Heads>,
    gate: Option<(Gate, Arc<Half>)>,
    kill: Option<oneshot::Receiver<()>>,
    /// Fires when the client is revoked.
    revoked: Option<oneshot::Receiver<()>>,
    watch: Watch,
}

impl MeshIo {
    /// A connection that the mesh itself serves.
    pub(crate) fn plain(io: BoxStream, peer: PeerInfo, heads: Heads) -> Self {
        let watch = Watch::new(&peer.connection().slot.options().limits);
        let revoked = peer.connection().take_killed();
        Self { io, peer, heads: Some(heads), gate: None, kill: None, revoked, watch }
    }

    /// A connection that the application's server serves. It breaks when `kill` fires.
    pub(super) fn split(io: BoxStream, peer: PeerInfo, half: Option<Arc<Half>>, kill: oneshot::Receiver<()>) -> Self {
        let watch = Watch::new(&peer.connection().slot.options().limits);
        let (gate, revoked) = (half.map(|half| (Gate::Start, half)), peer.connection().take_killed());
        Self { io, peer, heads: None, gate, kill: Some(kill), revoked, watch }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Whether the connection's time is over.
    fn poll_killed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(kill) = &mut self.kill else { return Ok(()) };
        let killed = match Pin::new(kill).poll(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => true,
            // Nobody watches any more: the listener is gone, or the server's time was over at the same moment.
            Poll::Ready(Err(_)) => {
                let deadline = self.peer.connection().slot.shutdown_deadline();
                self.kill = None;
                deadline.is_some_and(|deadline| deadline <= Instant::now())
            }
        };
        if !killed {
            return Ok(());
        }
        // Asked again, it must fail again.
        let (sender, receiver) = oneshot::channel();
        let _ = sender.send(());
        self.kill = Some(receiver);
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection's time to drain is over"))
    }

    /// Whether the client is revoked; then every read fails.
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(revoked) = &mut self.revoked else { return Ok(()) };
        // Its sender lives in the peer, and is gone only if it has fired.
        if revoked.is_terminated() || Pin::new(revoked).poll(cx).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the client's certificate is revoked"));
        }
        Ok(())
    }

    /// Tells an HTTP/2 client why its connection ends, if it takes that now: nobody waits for it.
    fn cut(&mut self, cx: &mut Context<'_>, reason: u32, error: io::Error) -> io::Error {
        if let Some(goodbye) = self.watch.goodbye(reason) {
            let written = Pin::new(&mut self.io).poll_write(cx, &goodbye);
            if matches!(written, Poll::Ready(Ok(_))) {
                let _ = Pin::new(&mut self.io).poll_flush(cx);
            }
        }
        error
    }

    fn poll_gated(
        &mut self,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
        write: impl FnOnce(Pin<&mut BoxStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Some((gate, half)) = &mut self.gate {
            gate.check(self.peer.connection(), half, from)?;
        }
        let written = write(Pin::new(&mut self.io), cx);
        if let Poll::Ready(Ok(count)) = written {
            if let Some((gate, _)) = &mut self.gate {
                gate.wrote(from, count);
            }
            self.watch_written(from, count);
            self.peer.connection().backlog.wrote(count);
        }
        self.watch.poll_written(written, cx)
    }

    fn watch_written(&mut self, from: &[IoSlice<'_>], mut count: usize) {
        for slice in from {
            let written = count.min(slice.len());
            self.watch.wrote(&slice[..written]);
            count -= written;
        }
    }
}

impl AsyncRead for MeshIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Err(error) = this.poll_killed(cx).and_then(|()| this.poll_revoked(cx)) {
            return Poll::Ready(Err(this.cut(cx, NO_ERROR, error)));
        }
        if let Some((gate, half)) = &this.gate {
            gate.check_read(half)?;
        }
        let before = to.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, to);
        let watched = this.watch.read(&to.filled()[before..]);
        if let Err(error) = watched.and_then(|()| this.watch.poll_head(cx)) {
            return Poll::Ready(Err(this.cut(cx, ENHANCE_YOUR_CALM, error)));
        }
        if let Some(heads) = &mut this.heads {
            heads.read(&mut to.filled_mut()[before..]);
        }
        polled
    }
}

impl AsyncWrite for MeshIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_gated(cx, &[IoSlice::new(from)], |io, cx| io.poll_write(cx, from))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_gated(cx, from, |io, cx| io.poll_write_vectored(cx, from))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            this.peer.connection().backlog.flushed();
        }
        this.watch.poll_written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for MeshIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshIo").field("peer", &self.peer).finish_non_exhaustive()
    }
}
