//! What a server says about its HTTP/2 connection, read from the frames as they pass.
//!
//! hyper tells neither that the server's SETTINGS came nor that it said GOAWAY while requests are under way. The first is
//! when a connection stands (gRPC waits for it, too: a port that takes connections and says nothing is no server); the
//! second is when the next one must be made, or requests would run into the closing one.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::io::BoxStream;
use crate::secure::refusal_of;

/// The length of a frame's header (RFC 9113, section 4.1).
const HEADER: usize = 9;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;

/// What the server has said.
#[derive(Debug, Default)]
pub(super) struct Signs {
    settings: AtomicBool,
    goaway: AtomicBool,
    /// What it said against our certificate: h2 keeps no more of an error than its text.
    refusal: OnceLock<String>,
    /// For the one task that waits.
    changed: Notify,
}

impl Signs {
    /// Until the server's SETTINGS have come.
    pub(super) async fn settings(&self) {
        self.until(&self.settings).await;
    }

    /// Until the server has said GOAWAY.
    pub(super) async fn goaway(&self) {
        self.until(&self.goaway).await;
    }

    /// What the server has said against our certificate.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    async fn until(&self, sign: &AtomicBool) {
        while !sign.load(Ordering::Acquire) {
            self.changed.notified().await;
        }
    }

    fn saw(&self, kind: u8) {
        let sign = match kind {
            SETTINGS => &self.settings,
            GOAWAY => &self.goaway,
            _ => return,
        };
        if !sign.swap(true, Ordering::AcqRel) {
            self.changed.notify_one();
        }
    }
}

/// Where in the stream of frames we are.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; HEADER],
    filled: usize,
    /// Bytes left of the frame's payload.
    payload: usize,
}

impl Frames {
    /// Calls `saw` with the type of each frame whose header is complete.
    fn read(&mut self, mut bytes: &[u8], mut saw: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let skip = self.payload.min(bytes.len());
            self.payload -= skip;
            bytes = &bytes[skip..];
            let take = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if self.filled == HEADER {
                let [a, b, c, kind, ..] = self.header;
                self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.filled = 0;
                saw(kind);
            }
        }
    }
}

/// A stream whose frames are watched on their way in.
pub(super) struct Watched {
    io: BoxStream,
    frames: Frames,
    signs: Arc<Signs>,
}

impl Watched {
    pub(super) fn new(io: BoxStream, signs: Arc<Signs>) -> Self {
        Self { io, frames: Frames::default(), signs }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = to.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, to);
        if let Some(bytes) = to.filled().get(before..) {
            this.frames.read(bytes, |kind| this.signs.saw(kind));
        }
        if let Poll::Ready(Err(error)) = &polled
            && let Some(refusal) = refusal_of(error)
        {
            // The first is the one that ended the connection.
            let _ = this.signs.refusal.set(refusal);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SETTINGS with one setting, DATA of 300 bytes that look like GOAWAYs, PING, GOAWAY.
    fn stream() -> Vec<u8> {
        let mut bytes = vec![0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100];
        bytes.extend([0, 1, 44, 0, 0, 0, 0, 0, 1]);
        bytes.extend([GOAWAY; 300]);
        bytes.extend([0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        bytes.extend([0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        for cut in 1..40 {
            let mut frames = Frames::default();
            let mut kinds = Vec::new();
            for bytes in stream().chunks(cut) {
                frames.read(bytes, |kind| kinds.push(kind));
            }
            assert_eq!(kinds, [SETTINGS, 0, 6, GOAWAY], "cut into {cut}");
        }
    }

    #[tokio::test]
    async fn a_sign_that_came_before_anybody_waited_is_not_lost() {
        let signs = Signs::default();
        signs.saw(GOAWAY);
        signs.saw(SETTINGS);
        signs.settings().await;
        signs.goaway().await;
    }
}
