//! The request's body: one message at a time, in pieces that hyper takes as HTTP/2's windows have room.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

/// hyper holds on to a piece until the window has room for some of it, and then gives all of it away. Pieces of HTTP/2's
/// usual frame size make its asking for more mean that what came before is on its way.
const PIECE: usize = 16 * 1024;

/// Where messages are put.
pub(super) struct Outbox(Arc<Mutex<Slot>>);

/// The body that hyper takes them from.
pub(super) struct Outgoing(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    /// What hyper has not taken yet.
    message: Option<Bytes>,
    /// hyper has a piece and has not asked for more: there may be no room for it.
    under_way: bool,
    /// hyper wants no more.
    closed: bool,
    /// There is no more.
    ended: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

pub(super) fn channel() -> (Outbox, Outgoing) {
    let slot = Arc::new(Mutex::default());
    (Outbox(slot.clone()), Outgoing(slot))
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// Ready when the message before is on its way. Never ready again once the server wants no more: the response says why.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = lock(&self.0);
        if slot.message.is_none() && !slot.under_way && !slot.closed {
            return Poll::Ready(());
        }
        slot.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn put(&self, message: Bytes) {
        let mut slot = lock(&self.0);
        slot.message = Some(message);
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Outbox {
    /// Nothing follows what was put.
    pub(super) fn finish(&self) {
        let mut slot = lock(&self.0);
        slot.ended = true;
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut slot = lock(&self.0);
        slot.under_way = false;
        if let Some(mut message) = slot.message.take() {
            slot.under_way = true;
            let piece = message.split_to(message.len().min(PIECE));
            slot.message = (!message.is_empty()).then_some(message);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if slot.ended {
            return Poll::Ready(None);
        }
        slot.reader = Some(cx.waker().clone());
        if let Some(writer) = slot.writer.take() {
            writer.wake();
        }
        Poll::Pending
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        lock(&self.0).closed = true;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http_body::Body;

    use super::{PIECE, channel};

    #[test]
    fn the_next_message_is_taken_when_hyper_asks_for_more_and_never_after_it_stopped() {
        let mut cx = Context::from_waker(Waker::noop());
        let (outbox, mut outgoing) = channel();
        let mut piece = |cx: &mut Context<'_>| match Pin::new(&mut outgoing).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Some(frame.into_data().unwrap().len()),
            Poll::Ready(_) => panic!("the body has not ended"),
            Poll::Pending => None,
        };
        assert!(outbox.poll_ready(&mut cx).is_ready(), "the first goes at once");
        outbox.put(Bytes::from(vec![0; PIECE + 1]));
        for want in [PIECE, 1] {
            assert!(outbox.poll_ready(&mut cx).is_pending());
            assert_eq!(piece(&mut cx), Some(want));
            assert!(outbox.poll_ready(&mut cx).is_pending(), "hyper has it and may be waiting for room");
        }
        assert_eq!(piece(&mut cx), None);
        assert!(outbox.poll_ready(&mut cx).is_ready());
        drop(outgoing);
        assert!(outbox.poll_ready(&mut cx).is_pending());
    }
}
