//! The body of a response: the application's, or the mesh's own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh_core::error::{Code, Error};
use pin_project::pin_project;

use crate::BoxError;

/// The body of a response: the application's `B`, or a text of the mesh.
///
/// A panic inside the application's body fails that response, not the connection it shares with others.
#[pin_project]
#[derive(Debug)]
pub struct ReplyBody<B>(#[pin] Kind<B>);

#[pin_project(project = Projected)]
#[derive(Debug)]
enum Kind<B> {
    App(#[pin] B),
    Ours(Bytes),
    Done,
}

impl<B> ReplyBody<B> {
    pub(crate) fn app(body: B) -> Self {
        Self(Kind::App(body))
    }

    pub(crate) fn ours(text: Bytes) -> Self {
        Self(if text.is_empty() { Kind::Done } else { Kind::Ours(text) })
    }
}

impl<B> Body for ReplyBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kind = self.project().0;
        match kind.as_mut().project() {
            Projected::App(body) => match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
                Ok(polled) => polled.map_err(Into::into),
                Err(_) => {
                    kind.set(Kind::Done);
                    let error = Error::new(Code::HANDLER_FAILED, "the body of the response panicked");
                    Poll::Ready(Some(Err(error.into())))
                }
            },
            Projected::Ours(text) => {
                let text = std::mem::take(text);
                kind.set(Kind::Done);
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Projected::Done => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::App(body) => body.is_end_stream(),
            Kind::Ours(_) => false,
            Kind::Done => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::App(body) => body.size_hint(),
            Kind::Ours(text) => SizeHint::with_exact(text.len() as u64),
            Kind::Done => SizeHint::with_exact(0),
        }
    }
}
