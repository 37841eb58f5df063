//! The connections of one endpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::error::Error;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::{Busy, Idle};
use crate::connect::WireProtocol;
use crate::connect::link::Lost;
use crate::connect::way::{Way, Wire};
use crate::io::BoxStream;

/// The connections of one endpoint: idle ones, and the count of all.
///
/// The lock is held for a push or a pop, never across an await: it is what hyper's own connection handle costs, at a place
/// where each request owns a connection anyway. Whoever has a turn finds an idle connection or may open one: turns are
/// `max_connections`, and no connection is busy without one, so there are never more connections than turns.
#[derive(Debug)]
pub(super) struct Pool {
    way: Arc<Way>,
    turns: Arc<Semaphore>,
    connections: Mutex<Connections>,
    /// Tells the one that waits in [`lost`](Self::lost).
    changed: Notify,
    /// Tells those that must wait for a connection that stands.
    returned: Notify,
}

#[derive(Debug, Default)]
struct Connections {
    /// The one used last on top: the others may age and be closed by the server.
    idle: Vec<Idle>,
    live: u32,
    /// Why there is none.
    end: Option<End>,
    closed: bool,
}

/// How the last connection ended.
#[derive(Debug)]
enum End {
    /// As announced by a response: the server is well.
    Announced,
    /// Without a word.
    Broken,
    /// It could not be replaced.
    Failed(Error),
}

impl Pool {
    pub(super) fn new(way: Arc<Way>) -> Arc<Self> {
        let most = usize::try_from(way.plan.max_connections.max(1)).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            way,
            turns: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            connections: Mutex::default(),
            changed: Notify::new(),
            returned: Notify::new(),
        })
    }

    pub(super) fn peer(&self) -> &str {
        &self.way.peer
    }

    /// The right to use a connection.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        self.turns.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A connection that takes a request: one that waits for it, or another. Of an endpoint that is withdrawn, one that
    /// stands is waited for.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Busy, Error> {
        loop {
            let returned = self.returned.notified();
            if let Some(idle) = self.idle() {
                return Ok(idle);
            }
            if !self.way.plan.state.is_withdrawn() || self.lock().live == 0 {
                return self.open().await;
            }
            returned.await;
        }
    }

    /// A connection that waits for a request.
    fn idle(&self) -> Option<Busy> {
        // One that has ended is dropped outside the lock: it may be the last one of its connection, which takes the lock.
        std::iter::from_fn(|| self.pop()).find_map(Idle::take)
    }

    fn pop(&self) -> Option<Idle> {
        self.lock().idle.pop()
    }

    /// Another connection. Only HTTP/1.1 is offered, even where the first one was negotiated.
    async fn open(self: &Arc<Self>) -> Result<Busy, Error> {
        if self.way.plan.state.is_withdrawn() {
            let error = self.way.withdrawn();
            self.failed(&error);
            return Err(error);
        }
        let opened = match timeout(self.way.plan.connect_timeout, self.way.open(WireProtocol::Http1)).await {
            Ok(Ok(Wire::Http1(io) | Wire::Http2(io))) => self.start(io).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.way.timed_out()),
        };
        opened.inspect_err(|error| self.failed(error))
    }

    /// Speaks HTTP/1.1 on `io`.
    pub(super) async fn start(self: &Arc<Self>, io: BoxStream) -> Result<Busy, Error> {
        Busy::start(io, self).await
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, idle: Idle) {
        let mut connections = self.lock();
        if !connections.closed {
            connections.idle.push(idle);
        }
        drop(connections);
        self.returned.notify_one();
    }

    /// A connection stands.
    pub(super) fn opened(&self) {
        let mut connections = self.lock();
        connections.live += 1;
        connections.end = None;
    }

    /// A connection ended; `announced` by the server, or not.
    pub(super) fn ended(&self, announced: bool) {
        let mut connections = self.lock();
        connections.live -= 1;
        connections.idle.retain(Idle::is_ready);
        if connections.live == 0 {
            connections.end = Some(if announced { End::Announced } else { End::Broken });
            self.changed.notify_one();
            self.returned.notify_waiters();
        }
    }

    fn failed(&self, error: &Error) {
        let mut connections = self.lock();
        if connections.live == 0 {
            connections.end = Some(End::Failed(error.clone()));
            self.changed.notify_one();
        }
    }

    /// Until the endpoint can no longer be taken to be there.
    pub(super) async fn lost(self: &Arc<Self>) -> Lost {
        loop {
            let end = self.lock().end.take();
            match end {
                Some(End::Broken) => return Lost::Ended,
                Some(End::Failed(error)) => return Lost::Failed(error),
                Some(End::Announced) if self.way.plan.eager => self.replace().await,
                Some(End::Announced) | None => self.changed.notified().await,
            }
        }
    }

    /// Makes the idle connection that an eager endpoint keeps. If all turns are taken, requests are about to make theirs.
    async fn replace(self: &Arc<Self>) {
        let Ok(_turn) = self.turns.clone().try_acquire_owned() else { return };
        // What fails is noted by `open`.
        if let Ok(connection) = self.open().await {
            connection.keep();
        }
    }

    /// Closes what is idle; what is busy is closed when its exchange is over.
    pub(super) fn close(&self) {
        let mut connections = self.lock();
        connections.closed = true;
        connections.idle.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
