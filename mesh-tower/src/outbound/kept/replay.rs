//! A request body that can be sent again: what was read of it is kept, up to a bound.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::BoxError;
use crate::body::MeshBody;

/// A body that is kept while it is sent.
#[derive(Clone)]
pub(super) struct Kept(Arc<Mutex<State>>);

/// One sending of a [`Kept`] body, from its beginning.
pub(super) struct Replay {
    kept: Kept,
    next: usize,
    trailers_sent: bool,
}

struct State {
    body: MeshBody,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// All of the body was read.
    done: bool,
    /// How many more bytes may be kept.
    room: usize,
    /// Not all was kept: it cannot be sent again.
    lost: bool,
    /// Sendings that wait for the body: several, where attempts run at the same time.
    waiting: Vec<Waker>,
}

impl Kept {
    pub(super) fn new(body: MeshBody, room: usize) -> Self {
        let state = State {
            done: body.is_end_stream(),
            body,
            frames: Vec::new(),
            trailers: None,
            room,
            lost: false,
            waiting: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Whether it can be sent from its beginning.
    pub(super) fn can_replay(&self) -> bool {
        !self.lock().lost
    }

    /// Whether its end has been read, and all before that kept.
    pub(super) fn is_whole(&self) -> bool {
        let state = self.lock();
        state.done && !state.lost
    }

    /// Keeps nothing more, and forgets what was kept: the call is committed.
    pub(super) fn commit(&self) {
        let mut state = self.lock();
        state.room = 0;
        state.lost = true;
    }

    pub(super) fn send(&self) -> MeshBody {
        MeshBody::new(Replay { kept: self.clone(), next: 0, trailers_sent: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing but a body of the application can panic while it is held, and then the request is over.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The body wakes whoever asked last; that one wakes the others.
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
    }

    fn keep(&mut self, data: &Bytes) {
        match self.room.checked_sub(data.len()) {
            Some(room) if !self.lost => {
                self.room = room;
                self.frames.push(data.clone());
            }
            _ => {
                // What was kept is of no use any more. A sending that is behind has the same frames or ends.
                self.lost = true;
                self.frames = Vec::new();
            }
        }
    }
}

impl Replay {
    /// What was kept already, for a sending that is behind.
    fn behind(&mut self, state: &State) -> Option<Frame<Bytes>> {
        if let Some(data) = state.frames.get(self.next) {
            self.next += 1;
            return Some(Frame::data(data.clone()));
        }
        match &state.trailers {
            Some(trailers) if state.done && !self.trailers_sent => {
                self.trailers_sent = true;
                Some(Frame::trailers(trailers.clone()))
            }
            _ => None,
        }
    }
}

impl Body for Replay {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let kept = self.kept.clone();
        let mut state = kept.lock();
        if let Some(frame) = self.behind(&state) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if state.done {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut state.body).poll_frame(cx);
        if polled.is_ready() {
            state.waiting.drain(..).filter(|waker| !waker.will_wake(cx.waker())).for_each(Waker::wake);
        }
        let frame = match polled {
            Poll::Pending => {
                state.wait(cx);
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                state.done = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => {
                state.lost = true;
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        if let Some(data) = frame.data_ref() {
            state.keep(data);
            // Behind the last kept frame, also when nothing is kept any more.
            self.next = state.frames.len();
        } else if let Some(trailers) = frame.trailers_ref() {
            state.trailers = Some(trailers.clone());
            state.done = true;
            self.trailers_sent = true;
        }
        state.done |= state.body.is_end_stream();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.kept.lock();
        state.done && self.next >= state.frames.len() && (state.trailers.is_none() || self.trailers_sent)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.kept.lock();
        let kept: u64 = state.frames.iter().skip(self.next).map(|data| data.len() as u64).sum();
        if state.done {
            return SizeHint::with_exact(kept);
        }
        let rest = state.body.size_hint();
        match rest.exact() {
            Some(exact) => SizeHint::with_exact(kept + exact),
            None => rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn stream(frames: Vec<Frame<Bytes>>) -> MeshBody {
        struct Frames(std::vec::IntoIter<Frame<Bytes>>);
        impl futures_core::Stream for Frames {
            type Item = Result<Frame<Bytes>, BoxError>;
            fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                Poll::Ready(self.0.next().map(Ok))
            }
        }
        MeshBody::new(StreamBody::new(Frames(frames.into_iter())))
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    async fn read(body: MeshBody) -> (String, bool) {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().is_some();
        (String::from_utf8(collected.to_bytes().to_vec()).unwrap(), trailers)
    }

    #[tokio::test]
    async fn a_kept_body_is_sent_again_with_its_trailers() {
        let mut trailers = HeaderMap::new();
        trailers.insert("a", "b".parse().unwrap());
        let kept = Kept::new(stream(vec![data("one"), data("two"), Frame::trailers(trailers)]), 100);
        for _ in 0..3 {
            assert!(kept.can_replay());
            assert_eq!(read(kept.send()).await, ("onetwo".to_owned(), true));
        }
    }

    #[tokio::test]
    async fn a_sending_that_was_given_up_in_the_middle_leaves_the_rest() {
        let kept = Kept::new(stream(vec![data("one"), data("two")]), 100);
        let mut first = kept.send();
        first.frame().await.unwrap().unwrap();
        drop(first);
        assert_eq!(read(kept.send()).await.0, "onetwo");
    }

    #[tokio::test]
    async fn attempts_at_the_same_time_each_send_the_whole() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        struct Chunks(tokio::sync::mpsc::Receiver<Bytes>);
        impl futures_core::Stream for Chunks {
            type Item = Result<Frame<Bytes>, BoxError>;
            fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            }
        }
        let kept = Kept::new(MeshBody::new(StreamBody::new(Chunks(receiver))), 100);
        let sendings: Vec<_> = (0..3).map(|_| tokio::spawn(read(kept.send()))).collect();
        for chunk in ["a", "b", "c"] {
            tokio::task::yield_now().await;
            sender.send(Bytes::from_static(chunk.as_bytes())).await.unwrap();
        }
        drop(sender);
        for sending in sendings {
            assert_eq!(sending.await.unwrap().0, "abc");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_bound_is_sent_once() {
        let kept = Kept::new(stream(vec![data("one"), data("two")]), 5);
        assert_eq!(read(kept.send()).await.0, "onetwo");
        assert!(!kept.can_replay());
    }

    #[tokio::test]
    async fn a_committed_body_keeps_nothing_more() {
        let kept = Kept::new(stream(vec![data("one"), data("two")]), 100);
        let mut first = kept.send();
        first.frame().await.unwrap().unwrap();
        kept.commit();
        assert!(!kept.can_replay());
        assert_eq!(read(first).await.0, "two");
    }
}
