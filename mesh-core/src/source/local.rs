//! A control transport that stays in the process: the engine asks, a [`Responder`] answers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::responder::{ResourceSet, Responder};
use crate::ads::{ControlStream, ControlTransport, Opening, TransportError};
use crate::bootstrap::ServerConfig;
use crate::publish::Reader;

/// Streams over the set of resources that a [`Publisher`](crate::publish::Publisher) publishes. Each new set is pushed to
/// every open stream.
#[derive(Clone)]
pub struct LocalTransport {
    sets: Reader<ResourceSet>,
}

impl LocalTransport {
    /// Streams over what `sets` reads.
    pub fn new(sets: Reader<ResourceSet>) -> Self {
        Self { sets }
    }
}

impl ControlTransport for LocalTransport {
    fn open(&self, _server: &ServerConfig, path: &str) -> Opening {
        let Some(variant) = Responder::variant(path) else {
            let error = TransportError::new(format!("{path} is no method of ADS"));
            return Box::pin(std::future::ready(Err(error)));
        };
        let mut sets = self.sets.clone();
        // The first set is answered from; only later ones are changes.
        let _ = sets.poll_changed(&mut Context::from_waker(Waker::noop()));
        let responder = Responder::of(variant, sets.current());
        let stream = LocalStream { responder, sets, outbox: VecDeque::new(), waiting: None };
        Box::pin(std::future::ready(Ok(Box::new(stream) as Box<dyn ControlStream>)))
    }
}

impl fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransport").finish_non_exhaustive()
    }
}

struct LocalStream {
    responder: Responder,
    sets: Reader<ResourceSet>,
    outbox: VecDeque<Bytes>,
    waiting: Option<Waker>,
}

impl ControlStream for LocalStream {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, message: Bytes) {
        self.outbox.extend(self.responder.handle_request(&message));
        // What the client refuses is in its own events.
        self.responder.take_rejections();
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn finish(&mut self) {}

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            if let Some(message) = self.outbox.pop_front() {
                return Poll::Ready(Some(Ok(message)));
            }
            match self.sets.poll_changed(cx) {
                Poll::Ready(Ok(())) => self.outbox.extend(self.responder.set_resources(Arc::clone(&self.sets.load()))),
                // Without a publisher the last set stays.
                Poll::Ready(Err(_)) | Poll::Pending => {
                    self.waiting = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }
}
