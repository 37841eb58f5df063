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

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

use crate::frames::{
    Frames,
    kind::{GOAWAY, SETTINGS},
};
use crate::io::BoxStream;
use crate::secure::refusal_of;

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
            this.frames.read(bytes, |frame| this.signs.saw(frame.kind));
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

crate::io::writes_pass!(Watched, io);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sign_that_came_before_anybody_waited_is_not_lost() {
        let signs = Signs::default();
        signs.saw(GOAWAY);
        signs.saw(SETTINGS);
        signs.settings().await;
        signs.goaway().await;
    }
}
