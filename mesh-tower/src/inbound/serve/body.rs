//! The body of a request: hyper's, with its trailers under the same limits as the head.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::error::{Code, Error};

use crate::inbound::BoxError;
use crate::inbound::normalize::Limits;

/// The body of a request that the mesh serves. Trailers that are over the limits of a request's head fail it.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    limits: Limits,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, limits: Limits) -> Self {
        Self { body, limits }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
