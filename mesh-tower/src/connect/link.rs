//! The life of one endpoint's connections, as a task with one typed state.
//!
//! ```text
//!            connect()            stands                lost
//!   Idle ---------------> Connecting ------> Ready ----------------+
//!    ^                     ^     |                                 |
//!    |  on demand          |     | failed        eager: at once    |
//!    +------- Waiting <----|-----+           (or after a wait, if  |
//!               |          |                  it never lasts)      |
//!               +----------+---------------------------------------+
//!                  eager
//! ```
//!
//! A dropped handle leads from everywhere to Closed. While the endpoint is withdrawn, nothing leads from Idle, and what is
//! established is dropped.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Request;
use mesh_core::balance::CandidateState;
use mesh_core::error::{Code, Error};
use mesh_core::policy::retry::Failure;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::{BoxFuture, EndpointFuture, EndpointHandle, EndpointPlan, EndpointService, Failed, StateListener};
use crate::body::MeshBody;

/// Makes what takes an endpoint's requests: a connection, or a service of the application.
pub(super) trait Establish: Send + Sync + 'static {
    /// Makes one. It bounds its own time.
    fn establish(&self) -> BoxFuture<'_, Result<Established, Error>>;
}

/// What takes requests now.
pub(super) struct Established {
    /// Takes them.
    pub(super) service: Box<dyn EndpointService>,
    /// Ends when it no longer does.
    pub(super) lost: BoxFuture<'static, Lost>,
}

/// Why it no longer does.
#[derive(Debug)]
pub(super) enum Lost {
    /// The connection ended, or the server announced that it will.
    Ended,
    /// Another connection was needed, and could not be made.
    Failed(Error),
}

/// What requests and the task share.
struct Shared {
    service: ArcSwapOption<Box<dyn EndpointService>>,
    last_error: ArcSwapOption<Error>,
    demand: Notify,
    peer: String,
}

/// The way to one endpoint; see [`EndpointHandle`].
pub(super) struct Link {
    shared: Arc<Shared>,
    /// Dropping it tells the task.
    _alive: oneshot::Sender<Infallible>,
}

impl Link {
    /// Starts the task of `plan`'s endpoint on `runtime`.
    pub(super) fn start(
        plan: &EndpointPlan,
        peer: String,
        establish: impl Establish,
        backoff: Backoff,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            service: ArcSwapOption::empty(),
            last_error: ArcSwapOption::empty(),
            demand: Notify::new(),
            peer,
        });
        let (alive, closed) = oneshot::channel();
        let task = Task {
            establish,
            shared: shared.clone(),
            state: plan.state.clone(),
            changed: plan.changed.clone(),
            eager: plan.eager,
            connecting: plan.connecting.clone(),
            backoff,
        };
        runtime.spawn(task.run(closed));
        Self { shared, _alive: alive }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("to", &self.shared.peer).finish_non_exhaustive()
    }
}

impl EndpointService for Link {
    fn call(&self, request: Request<MeshBody>) -> EndpointFuture {
        match &*self.shared.service.load() {
            Some(service) => service.call(request),
            None => Box::pin(std::future::ready(Err(self.shared.not_connected(request)))),
        }
    }
}

impl EndpointHandle for Link {
    fn connect(&self) {
        if self.shared.service.load().is_none() {
            self.shared.demand.notify_one();
        }
    }

    fn last_error(&self) -> Option<Error> {
        self.shared.last_error.load().as_deref().cloned()
    }
}

impl Shared {
    #[cold]
    fn not_connected(&self, request: Request<MeshBody>) -> Failed {
        let error = Error::new(Code::NO_CONNECTION, format!("{} is not connected", self.peer));
        Failed { failure: Failure::BeforeRequest, error, request: Some(Box::new(request)) }
    }
}

/// Where the endpoint is in its life.
enum State {
    /// Not connected, and nobody asked.
    Idle,
    /// A connection is being made.
    Connecting,
    /// Requests can go there.
    Ready(Ready),
    /// No attempt is made for so long.
    Waiting(Duration),
    /// The handle was dropped.
    Closed,
}

struct Ready {
    since: Instant,
    lost: BoxFuture<'static, Lost>,
}

struct Task<E> {
    establish: E,
    shared: Arc<Shared>,
    state: Arc<CandidateState>,
    changed: Arc<dyn StateListener>,
    eager: bool,
    connecting: Arc<Semaphore>,
    backoff: Backoff,
}

impl<E: Establish> Task<E> {
    async fn run(mut self, mut closed: oneshot::Receiver<Infallible>) {
        let mut state = self.at_rest();
        while !matches!(state, State::Closed) {
            state = tokio::select! {
                biased;
                _ = &mut closed => State::Closed,
                next = self.step(state) => next,
            };
        }
        self.state.set_not_ready();
        self.shared.service.store(None);
        self.changed.state_changed();
    }

    /// What to do without a connection.
    fn at_rest(&self) -> State {
        if self.eager && !self.state.is_withdrawn() { State::Connecting } else { State::Idle }
    }

    async fn step(&mut self, state: State) -> State {
        match state {
            State::Idle => {
                self.shared.demand.notified().await;
                if self.state.is_withdrawn() { State::Idle } else { State::Connecting }
            }
            State::Connecting => {
                // It is never closed; without a turn there would be no bound, and nothing else amiss.
                let turn = self.connecting.clone().acquire_owned().await;
                let established = self.establish.establish().await;
                drop(turn);
                match established {
                    // Withdrawn meanwhile: who knows whose it is.
                    Ok(_) if self.state.is_withdrawn() => State::Idle,
                    Ok(established) => self.stands(established),
                    Err(error) => self.failed(error),
                }
            }
            State::Ready(ready) => {
                let lost = ready.lost.await;
                self.lost(lost, ready.since)
            }
            State::Waiting(wait) => {
                sleep(wait).await;
                self.at_rest()
            }
            State::Closed => State::Closed,
        }
    }

    fn stands(&mut self, established: Established) -> State {
        self.shared.last_error.store(None);
        self.shared.service.store(Some(Arc::new(established.service)));
        self.state.set_ready();
        self.changed.state_changed();
        State::Ready(Ready { since: Instant::now(), lost: established.lost })
    }

    fn failed(&mut self, error: Error) -> State {
        tracing::debug!(%error, "could not connect");
        self.shared.last_error.store(Some(Arc::new(error)));
        self.state.set_failed();
        self.shared.service.store(None);
        self.changed.state_changed();
        State::Waiting(self.backoff.after_failure())
    }

    fn lost(&mut self, lost: Lost, since: Instant) -> State {
        if let Lost::Failed(error) = lost {
            return self.failed(error);
        }
        // First the state, then the service: a request in between finds a connection that gives it back.
        self.state.set_not_ready();
        self.shared.service.store(None);
        self.changed.state_changed();
        match self.backoff.after_loss(since.elapsed()) {
            Duration::ZERO => self.at_rest(),
            wait => State::Waiting(wait),
        }
    }
}
