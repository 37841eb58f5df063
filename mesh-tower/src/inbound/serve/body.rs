//! The body of a request: hyper's, under the server's limits, and what filters read of it kept.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::bounded::{BodyLimits, Bounded};
use crate::filter::{Held, Hold};
use crate::inbound::BoxError;

/// The body of a request that the mesh serves. It fails where its trailers are over the limits of a request's head, where it is
/// longer than [`InboundLimits::max_body_bytes`](crate::inbound::InboundLimits::max_body_bytes), and where it says nothing for
/// [`InboundLimits::body_timeout`](crate::inbound::InboundLimits::body_timeout) while somebody reads it.
#[derive(Debug)]
pub struct RequestBody {
    body: Bounded<Incoming>,
    kept: Kept,
}

/// What filters have read, which comes before what has not been read. In one piece: frames of one byte each would take a
/// hundred times the memory.
#[derive(Debug, Default)]
struct Kept {
    data: Bytes,
    /// What came after it.
    growing: BytesMut,
    trailers: Option<HeaderMap>,
    /// Whether nothing comes after them.
    ended: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, limits: BodyLimits) -> Self {
        Self { body: Bounded::new(body, limits), kept: Kept::default() }
    }
}

impl Hold for RequestBody {
    fn poll_hold(&mut self, cx: &mut Context<'_>, enough: usize) -> Poll<Result<Held, BoxError>> {
        while self.kept.len() < enough && !self.kept.ended {
            if self.body.get().is_end_stream() {
                self.kept.ended = true;
                break;
            }
            let frame = ready!(self.body.poll_read(cx)).transpose()?;
            self.kept.push(frame);
        }
        let whole = self.kept.ended || self.body.get().is_end_stream();
        Poll::Ready(Ok(Held { bytes: self.kept.show(), whole }))
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.data.len() + self.growing.len()
    }

    fn push(&mut self, frame: Option<Frame<Bytes>>) {
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.growing.extend_from_slice(&data),
            // Trailers are the last frame.
            Some(Err(frame)) => (self.trailers, self.ended) = (frame.into_trailers().ok(), true),
            None => self.ended = true,
        }
    }

    fn show(&mut self) -> Bytes {
        if !self.growing.is_empty() {
            let mut all = BytesMut::from(std::mem::take(&mut self.data));
            all.unsplit(std::mem::take(&mut self.growing));
            self.data = all.freeze();
        }
        self.data.clone()
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        if self.show().is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.data)))
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.trailers.is_none()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.kept.pop() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.kept.ended => Poll::Ready(None),
            None => self.body.poll_read(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && (self.kept.ended || self.body.get().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.len() as u64;
        if self.kept.ended {
            return SizeHint::with_exact(kept);
        }
        let rest = self.body.get().size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}
