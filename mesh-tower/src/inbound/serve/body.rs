//! The body of a request: hyper's, with its trailers under the same limits as the head, and what filters read of it kept.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::error::{Code, Error};

use crate::filter::{Held, Hold};
use crate::inbound::BoxError;
use crate::inbound::normalize::Limits;

/// The body of a request that the mesh serves. Trailers that are over the limits of a request's head fail it.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    limits: Limits,
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
    pub(super) fn new(body: Incoming, limits: Limits) -> Self {
        Self { body, limits, kept: Kept::default() }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            match frame.trailers_ref() {
                Some(trailers) if !self.limits.allow(trailers) => {
                    Err(Error::new(Code::BAD_CLIENT, "the request's trailers are too large").into())
                }
                _ => Ok(frame),
            }
        }))
    }
}

impl Hold for RequestBody {
    fn poll_hold(&mut self, cx: &mut Context<'_>, enough: usize) -> Poll<Result<Held, BoxError>> {
        while self.kept.len() < enough && !self.kept.ended {
            if self.body.is_end_stream() {
                self.kept.ended = true;
                break;
            }
            let frame = ready!(self.poll_read(cx)).transpose()?;
            self.kept.push(frame);
        }
        let whole = self.kept.ended || self.body.is_end_stream();
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
            None => self.poll_read(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && (self.kept.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.len() as u64;
        if self.kept.ended {
            return SizeHint::with_exact(kept);
        }
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}
