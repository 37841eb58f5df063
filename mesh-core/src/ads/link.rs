//! The way to one server: bytes between a stream and the engine that speaks on it.

use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;

use super::transport::{ControlStream, Opening, TransportError};

/// A protocol on one stream, as the bytes' mover sees it.
pub(crate) trait StreamEngine {
    /// The stream is open.
    fn connected(&mut self, now: Instant);
    /// The next request to write; None until the one before is written.
    fn next_request(&mut self) -> Option<Bytes>;
    /// The last request is written.
    fn written(&mut self, now: Instant);
    /// A message came.
    fn message(&mut self, bytes: &[u8], now: Instant);
    /// The stream could not be opened, or is over.
    fn lost(&mut self, reason: &str, now: Instant);
}

/// The way to one server.
pub(crate) enum Link {
    Closed,
    Opening(Opening),
    Open {
        stream: Box<dyn ControlStream>,
        /// Whether a request was given to it and is not yet on its way.
        writing: bool,
    },
}

impl Link {
    /// Moves what can be moved between `engine` and the server: one message at most is read, so that a slow reader slows the
    /// server. Whether anything happened.
    pub(crate) fn exchange(&mut self, engine: &mut impl StreamEngine, cx: &mut Context<'_>, now: Instant) -> bool {
        match self {
            Self::Closed => false,
            Self::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => false,
                Poll::Ready(Ok(stream)) => {
                    *self = Self::Open { stream, writing: false };
                    engine.connected(now);
                    true
                }
                Poll::Ready(Err(error)) => self.lose(engine, &error, now),
            },
            Self::Open { stream, writing } => match write(stream.as_mut(), writing, engine, cx, now) {
                Err(error) => self.lose(engine, &error, now),
                Ok(wrote) => match stream.poll_receive(cx) {
                    Poll::Pending => wrote,
                    Poll::Ready(Some(Ok(message))) => {
                        engine.message(&message, now);
                        true
                    }
                    Poll::Ready(Some(Err(error))) => self.lose(engine, &error, now),
                    Poll::Ready(None) => self.lose(engine, &TransportError::new("the server ended the stream"), now),
                },
            },
        }
    }

    fn lose(&mut self, engine: &mut impl StreamEngine, error: &TransportError, now: Instant) -> bool {
        *self = Self::Closed;
        engine.lost(&error.reason, now);
        true
    }
}

fn write(
    stream: &mut dyn ControlStream,
    writing: &mut bool,
    engine: &mut impl StreamEngine,
    cx: &mut Context<'_>,
    now: Instant,
) -> Result<bool, TransportError> {
    let mut wrote = false;
    loop {
        match stream.poll_ready(cx) {
            Poll::Pending => return Ok(wrote),
            Poll::Ready(ready) => ready?,
        }
        if std::mem::take(writing) {
            engine.written(now);
            wrote = true;
        }
        let Some(request) = engine.next_request() else { return Ok(wrote) };
        stream.send(request);
        *writing = true;
    }
}
