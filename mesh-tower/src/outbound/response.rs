//! The body of a response, and what lasts as long as it does: the endpoint's and the cluster's counts, the call's limits.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use mesh_core::balance::{CandidateState, PickGuard};
use mesh_core::error::{Code, Error};
use mesh_core::policy::grpc::GrpcStatus;
use mesh_core::policy::limit::BreakerGuard;
use mesh_core::policy::retry::RetryPermit;
use pin_project::pin_project;
use tokio::time::Sleep;

use super::deadline::over;
use super::now;
use super::redirect::Onward;
use crate::BoxError;
use crate::body::MeshBody;
use crate::filter::{Pacer, poll_paced};
use crate::mesh::InFlightGuard;
use crate::observe::{AttemptEnd, AttemptObserver, CallEnd, CallObserver};

/// The body of a response of the mesh. Its errors are the mesh's own [`Error`]: a broken connection, or a limit that was
/// reached while it was read.
#[pin_project]
pub struct ResponseBody {
    body: MeshBody,
    /// How fast it may come, where a fault slows it down.
    pacer: Option<Box<Pacer>>,
    held: Held,
    limits: Limits,
    /// Made when the body has to wait for the first time.
    #[pin]
    timer: Option<Sleep>,
    upstream: Option<SocketAddr>,
    retries: u32,
    /// There is no response: a redirect is followed.
    onward: Option<Box<Onward>>,
}

/// What ends when the exchange does.
#[derive(Default)]
struct Held {
    picked: Option<(Option<PickGuard>, Arc<CandidateState>)>,
    breaker: Option<BreakerGuard>,
    retry: Option<RetryPermit>,
    attempt: Option<AttemptObserver>,
    call: Option<(InFlightGuard, CallObserver)>,
    said: Said,
}

/// What the response has said of its outcome.
#[derive(Default, Clone, Copy)]
struct Said {
    status: Option<StatusCode>,
    grpc: Option<GrpcStatus>,
    retries: u32,
}

#[derive(Default, Clone, Copy)]
struct Limits {
    deadline: Option<(Instant, Instant)>,
    idle: Option<Duration>,
}

impl ResponseBody {
    /// A body of the mesh itself.
    pub(crate) fn ours(body: MeshBody) -> Self {
        let (held, limits) = (Held::default(), Limits::default());
        Self { body, pacer: None, held, limits, timer: None, upstream: None, retries: 0, onward: None }
    }

    /// What stands in the place of a response whose redirect is followed.
    pub(crate) fn onward(onward: Box<Onward>) -> Self {
        Self { onward: Some(onward), ..Self::default() }
    }

    /// Whether this is no response.
    pub(crate) fn is_onward(&self) -> bool {
        self.onward.is_some()
    }

    /// The request that goes on in the response's place.
    pub(crate) fn take_onward(&mut self) -> Option<Box<Onward>> {
        self.onward.take()
    }

    /// The address of the endpoint that the response came from; None: the mesh answered (a redirect, a direct response, a
    /// filter).
    pub fn endpoint_address(&self) -> Option<SocketAddr> {
        self.upstream
    }

    /// How many attempts the retry policy asked for beside the first. An attempt whose request never left is replaced
    /// without being counted.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The body of an endpoint's response.
    pub(crate) fn picked(
        body: MeshBody,
        guard: Option<PickGuard>,
        state: Arc<CandidateState>,
        address: SocketAddr,
        attempt: Option<AttemptObserver>,
        head: &response::Parts,
    ) -> Self {
        let said = Said { status: Some(head.status), grpc: GrpcStatus::of(&head.headers), retries: 0 };
        let held = Held { picked: Some((guard, state)), attempt, said, ..Held::default() };
        Self {
            body,
            pacer: None,
            held,
            limits: Limits::default(),
            timer: None,
            upstream: Some(address),
            retries: 0,
            onward: None,
        }
    }

    /// Lets the body through no faster than `pacer` says.
    pub(crate) fn pace(&mut self, pacer: Box<Pacer>) {
        self.pacer = Some(pacer);
    }

    pub(crate) fn hold_breaker(&mut self, guard: Option<BreakerGuard>) {
        self.held.breaker = guard;
    }

    pub(crate) fn hold_retry(&mut self, permit: Option<RetryPermit>, retries: u32) {
        self.held.retry = permit;
        self.held.said.retries = retries;
        self.retries = retries;
    }

    /// The response as the application sees it: its head is final.
    pub(crate) fn hold_call(
        &mut self,
        guard: InFlightGuard,
        observer: CallObserver,
        status: StatusCode,
        grpc: Option<GrpcStatus>,
    ) {
        self.held.call = Some((guard, observer));
        self.held.said = Said { status: Some(status), grpc, ..self.held.said };
        if self.body.is_end_stream() {
            self.held.end(None);
        }
    }

    /// Drops what is left of the body. The call counts as ended, by what its head said, where dropping the body itself counts
    /// as the caller's cancelling.
    pub fn discard(mut self) {
        self.held.end(None);
    }

    /// The endpoint that the response came from; None: the mesh answered.
    pub(crate) fn endpoint(&self) -> Option<&Arc<CandidateState>> {
        self.held.picked.as_ref().map(|(_, state)| state)
    }

    /// Ends the body at `deadline`, or after a silence of `idle`. The earlier of two deadlines stays.
    pub(crate) fn limit(&mut self, deadline: Option<Instant>, idle: Option<Duration>, started: Instant) {
        if let Some(deadline) = deadline
            && self.limits.deadline.is_none_or(|(before, _)| deadline < before)
        {
            self.limits.deadline = Some((deadline, started));
        }
        self.limits.idle = self.limits.idle.or(idle);
    }
}

impl Held {
    fn on_trailers(&mut self, trailers: &HeaderMap) {
        if let Some((Some(guard), _)) = &mut self.picked {
            guard.on_trailers(trailers, now);
        }
        self.said.grpc = GrpcStatus::of(trailers).or(self.said.grpc);
    }

    fn on_failure(&mut self, error: &Error) {
        if let Some((Some(guard), _)) = &mut self.picked {
            guard.on_failure();
        }
        self.end(Some(error));
    }

    /// The exchange is over, though the body may be kept.
    fn end(&mut self, error: Option<&Error>) {
        let Self { attempt, call, said, .. } = std::mem::take(self);
        let Said { status, grpc: grpc_status, retries } = said;
        if let Some(attempt) = attempt {
            attempt.end(&AttemptEnd { status, grpc_status, error });
        }
        if let Some((_, call)) = call {
            call.end(&CallEnd { status, grpc_status, error, retries });
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut this = self.project();
        match poll_paced(this.pacer, Pin::new(&mut *this.body), cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.held.on_trailers(trailers);
                    this.held.end(None);
                } else if is_over(this.body, this.pacer.as_deref()) {
                    this.held.end(None);
                }
                // The next silence counts from here.
                if this.limits.idle.is_some() {
                    this.timer.set(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.held.end(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                let error = broken(error).with_retries(*this.retries);
                this.held.on_failure(&error);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => {
                let Some((at, error)) = this.limits.next() else { return Poll::Pending };
                if this.timer.is_none() {
                    this.timer.set(Some(tokio::time::sleep_until(at.into())));
                }
                match this.timer.as_mut().as_pin_mut().map(|timer| timer.poll(cx)) {
                    Some(Poll::Ready(())) => {
                        // What is left of the stream is reset.
                        *this.body = MeshBody::empty();
                        this.held.on_failure(&error);
                        Poll::Ready(Some(Err(error)))
                    }
                    _ => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        is_over(&self.body, self.pacer.as_deref())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.pacer {
            None => self.body.size_hint(),
            // What waits has left the body and is still to come.
            Some(pacer) => pacer.hint(&self.body.size_hint()),
        }
    }
}

fn is_over(body: &MeshBody, pacer: Option<&Pacer>) -> bool {
    body.is_end_stream() && pacer.is_none_or(Pacer::is_over)
}

impl Limits {
    /// When the body must have made progress, if a limit says so, and the error if it has not.
    fn next(&self) -> Option<(Instant, Error)> {
        let idle = self.idle.and_then(|idle| Some((tokio::time::Instant::now().into_std().checked_add(idle)?, idle)));
        match (self.deadline, idle) {
            (Some((at, started)), Some((quiet, _))) if at <= quiet => Some((at, over(started, at))),
            (_, Some((at, idle))) => {
                Some((at, Error::new(Code::DEADLINE, format!("the response was silent for {idle:?}"))))
            }
            (Some((at, started)), None) => Some((at, over(started, at))),
            (None, None) => None,
        }
    }
}

/// Errors of the mesh stay what they are.
fn broken(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(error) => {
            Error::new(Code::BROKEN, format!("the connection broke during the response: {error}")).with_source(error)
        }
    }
}

impl Default for ResponseBody {
    /// Without a byte: what services in front of a client answer by themselves.
    fn default() -> Self {
        Self::ours(MeshBody::empty())
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseBody").field(&self.body).finish()
    }
}
