//! One HTTP/1.1 connection, and how its sender comes back to the pool.
//!
//! The sender travels with the exchange: dropped with it, the connection closes, as HTTP/1.1 has no other way to cancel. When
//! the head of the response is there, the sender is left with the connection's own task, which puts it back into the pool
//! once the body has been read to its end. So no body is wrapped and no task is made for a request.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use mesh_core::error::{Code, Error};
use tokio::sync::OwnedSemaphorePermit;

use super::pool::Pool;
use crate::body::MeshBody;
use crate::io::BoxStream;

/// What may send the next request on an idle connection.
#[derive(Debug)]
pub(super) struct Idle {
    wire: SendRequest<MeshBody>,
    member: Weak<Member>,
}

impl Idle {
    /// Whether it can take a request now.
    pub(super) fn is_ready(&self) -> bool {
        self.wire.is_ready()
    }

    /// Takes it for an exchange, unless it has ended.
    pub(super) fn take(self) -> Option<Busy> {
        let member = self.member.upgrade()?;
        self.wire.is_ready().then_some(Busy { wire: self.wire, member })
    }
}

/// A connection in the hands of one exchange.
#[derive(Debug)]
pub(super) struct Busy {
    wire: SendRequest<MeshBody>,
    member: Arc<Member>,
}

/// A connection of a pool. It is counted until its task has ended and so has the exchange on it: only the exchange knows
/// whether the end was announced.
#[derive(Debug)]
struct Member {
    pool: Arc<Pool>,
    /// A sender whose response is still being read. The lock is held for a move only, and by two sides at most.
    reading: Mutex<Option<Reading>>,
    /// Whether the connection's end was announced, or is an upgrade: no sign that the server is lost.
    retired: AtomicBool,
}

#[derive(Debug)]
struct Reading {
    wire: SendRequest<MeshBody>,
    /// Its turn is over when the connection is free again, not before.
    _turn: OwnedSemaphorePermit,
}

impl Busy {
    /// Speaks HTTP/1.1 on `io`, as a connection of `pool`.
    pub(super) async fn start(io: BoxStream, pool: &Arc<Pool>) -> Result<Self, Error> {
        let (wire, connection) = Builder::new().handshake(TokioIo::new(io)).await.map_err(|error| {
            Error::new(Code::NO_CONNECTION, format!("cannot speak HTTP/1.1 to {}", pool.peer())).with_source(error)
        })?;
        pool.opened();
        let member =
            Arc::new(Member { pool: pool.clone(), reading: Mutex::default(), retired: AtomicBool::new(false) });
        tokio::spawn(drive(connection.with_upgrades(), member.clone()));
        Ok(Self { wire, member })
    }

    /// Sends `request`.
    pub(super) async fn send(
        &mut self,
        request: Request<MeshBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<MeshBody>>> {
        // Dropped while it waits (the caller's time is up), the connection ends by our own doing.
        self.member.retired.store(true, Ordering::Release);
        let sent = self.wire.try_send_request(request).await;
        self.member.retired.store(false, Ordering::Release);
        sent
    }

    /// Comes back to the pool, now or when `response` has been read.
    pub(super) fn give_back(self, response: &Response<Incoming>, turn: OwnedSemaphorePermit) {
        let Self { wire, member } = self;
        if announces_end(response) {
            member.retired.store(true, Ordering::Release);
        }
        // Asked under the lock: the task asks under it, too, after each step, so that one of the two sees the end.
        let mut reading = member.reading();
        if wire.is_ready() {
            drop(reading);
            member.free(wire);
        } else {
            *reading = Some(Reading { wire, _turn: turn });
        }
    }

    /// Goes to the pool unused.
    pub(super) fn keep(self) {
        self.member.free(self.wire);
    }
}

impl Member {
    fn free(self: &Arc<Self>, wire: SendRequest<MeshBody>) {
        self.pool.keep(Idle { wire, member: Arc::downgrade(self) });
    }

    /// Frees the connection if the response on it has been read.
    fn settle(self: &Arc<Self>) {
        let read = self.reading().take_if(|reading| reading.wire.is_ready());
        if let Some(Reading { wire, _turn }) = read {
            self.free(wire);
        }
    }

    fn reading(&self) -> MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.pool.ended(*self.retired.get_mut());
    }
}

/// Moves the connection on, and its sender back into the pool whenever it becomes free.
async fn drive(connection: impl Future<Output = hyper::Result<()>>, member: Arc<Member>) {
    let mut connection = pin!(connection);
    poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        if polled.is_pending() {
            member.settle();
        }
        polled.map(drop)
    })
    .await;
}

/// Whether the response says that the connection ends with it, or turns into something else (RFC 9112, section 9.3).
fn announces_end<B>(response: &Response<B>) -> bool {
    let says = |token: &str| response.headers().get_all(CONNECTION).iter().any(|value| has_token(value, token));
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || says("close")
        || (response.version() == Version::HTTP_10 && !says("keep-alive"))
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
