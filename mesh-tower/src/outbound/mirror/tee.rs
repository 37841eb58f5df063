//! A request body that is read twice: by the call, at its own pace, and by a copy that keeps up or is given up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::BoxError;
use crate::body::MeshBody;

/// How many frames a copy may be behind.
const FRAMES: usize = 64;
/// How many bytes a copy may be behind.
const BYTES: usize = 1024 * 1024;

/// What the copy is told.
enum Piece {
    Frame(Frame<Bytes>),
    /// The body is complete. Without it, it is not.
    End,
}

/// The body as the call reads it.
struct Original {
    body: MeshBody,
    copy: Option<Sender<Piece>>,
    behind: Arc<AtomicUsize>,
}

/// The same as the copy reads it.
struct Copy {
    pieces: Receiver<Piece>,
    behind: Arc<AtomicUsize>,
    hint: SizeHint,
    over: bool,
}

/// Two bodies of one: the first sets the pace.
pub(super) fn tee(body: MeshBody) -> (MeshBody, MeshBody) {
    if body.is_end_stream() {
        return (body, MeshBody::empty());
    }
    let (sender, pieces) = channel(FRAMES);
    let behind = Arc::new(AtomicUsize::new(0));
    let copy = Copy { pieces, behind: behind.clone(), hint: body.size_hint(), over: false };
    (MeshBody::new(Original { body, copy: Some(sender), behind }), MeshBody::new(copy))
}

impl Original {
    fn tell(&mut self, piece: Piece) {
        let Some(copy) = &self.copy else { return };
        if copy.try_send(piece).is_err() || self.behind.load(Ordering::Relaxed) > BYTES {
            self.copy = None;
        }
    }
}

impl Body for Original {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.behind.fetch_add(data.len(), Ordering::Relaxed);
                    self.tell(Piece::Frame(Frame::data(data.clone())));
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.tell(Piece::Frame(Frame::trailers(trailers.clone())));
                }
                // Whoever knows that it is over does not ask again.
                if self.body.is_end_stream() {
                    self.tell(Piece::End);
                }
            }
            Poll::Ready(None) => self.tell(Piece::End),
            Poll::Ready(Some(Err(_))) => self.copy = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Body for Copy {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.pieces.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Piece::Frame(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.behind.fetch_sub(length, Ordering::Relaxed);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Piece::End)) => {
                self.over = true;
                Poll::Ready(None)
            }
            Poll::Ready(None) => {
                self.over = true;
                Poll::Ready(Some(Err("the copy of a request fell behind, or its original was given up".into())))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn long(frames: usize) -> MeshBody {
        struct Frames(usize);
        impl futures_core::Stream for Frames {
            type Item = Result<Frame<Bytes>, BoxError>;
            fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                let left = self.0.checked_sub(1);
                Poll::Ready(left.map(|left| {
                    self.0 = left;
                    Ok(Frame::data(Bytes::from_static(b"x")))
                }))
            }
        }
        MeshBody::new(StreamBody::new(Frames(frames)))
    }

    #[tokio::test]
    async fn both_read_the_whole() {
        for body in [MeshBody::new(Full::from("whole")), long(5)] {
            let exact = body.size_hint().exact();
            let (original, copy) = tee(body);
            assert_eq!(copy.size_hint().exact(), exact);
            let original = original.collect().await.unwrap().to_bytes();
            assert_eq!(copy.collect().await.unwrap().to_bytes(), original);
        }
        let (original, copy) = tee(MeshBody::empty());
        assert!(original.is_end_stream() && copy.is_end_stream());
    }

    #[tokio::test]
    async fn a_copy_that_falls_behind_is_given_up_and_the_call_is_not() {
        let (original, copy) = tee(long(FRAMES + 10));
        assert_eq!(original.collect().await.unwrap().to_bytes().len(), FRAMES + 10);
        copy.collect().await.unwrap_err();
    }

    #[tokio::test]
    async fn a_copy_is_never_complete_without_its_end() {
        let (mut original, copy) = tee(long(5));
        original.frame().await.unwrap().unwrap();
        drop(original);
        copy.collect().await.unwrap_err();
    }
}
