//! The request's body: one message at a time, taken when HTTP/2's windows have room.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

/// Where messages are put.
pub(super) struct Outbox(Arc<Mutex<Slot>>);

/// The body that hyper takes them from.
pub(super) struct Outgoing(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    message: Option<Bytes>,
    /// hyper has a message and has not asked for the next: not all of it is on its way.
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

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut slot = lock(&self.0);
        slot.ended = true;
        if let Some(reader) = slot.reader.take() {
            reader.wake();
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut slot = lock(&self.0);
        // hyper asks when there is room beyond what it has already.
        slot.under_way = false;
        if let Some(message) = slot.message.take() {
            slot.under_way = true;
            return Poll::Ready(Some(Ok(Frame::data(message))));
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
