//! A request with a limit: up to the response's head here, to its end in the response's body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Response;
use mesh_core::error::{Code, Error};
use pin_project::pin_project;
use tokio::time::Sleep;

use super::quiet::Quiet;
use crate::outbound::{ResponseBody, Tries};

/// The future of [`Deadline`](super::Deadline).
#[pin_project]
pub(crate) struct DeadlineFuture<F> {
    #[pin]
    inner: F,
    limit: Option<Instant>,
    idle: Option<Duration>,
    /// Watches over the time before the response begins, where there is an idle limit.
    quiet: Option<Box<Quiet>>,
    started: Instant,
    /// Made when the request has to wait for the first time.
    #[pin]
    timer: Option<Sleep>,
}

impl<F> DeadlineFuture<F> {
    pub(super) fn new(inner: F, limit: Option<Instant>, started: Instant) -> Self {
        Self { inner, limit, idle: None, quiet: None, started, timer: None }
    }

    /// With a limit on silence, watched over by `quiet` until the response begins.
    pub(super) fn with_idle(mut self, idle: Option<Duration>, quiet: Option<Box<Quiet>>) -> Self {
        (self.idle, self.quiet) = (idle, quiet);
        self
    }
}

impl<F: Tries> Tries for DeadlineFuture<F> {
    fn retries(&self) -> u32 {
        self.inner.retries()
    }
}

impl<F> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Error>> + Tries,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(done) = this.inner.as_mut().poll(cx) {
            return Poll::Ready(done.map(|mut response| {
                response.body_mut().limit(*this.limit, *this.idle, *this.started);
                response
            }));
        }
        if let Some(Poll::Ready(error)) = this.quiet.as_mut().map(|quiet| quiet.poll(cx)) {
            return Poll::Ready(Err(error.with_retries(this.inner.retries())));
        }
        let Some(limit) = *this.limit else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(tokio::time::sleep_until(limit.into())));
        }
        match this.timer.as_pin_mut().map(|timer| timer.poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(over(*this.started, limit).with_retries(this.inner.retries()))),
            _ => Poll::Pending,
        }
    }
}

/// The error of a call whose time is up.
pub(crate) fn over(started: Instant, limit: Instant) -> Error {
    let took = limit.saturating_duration_since(started);
    Error::new(Code::DEADLINE, format!("the call was not over {took:?} after it began"))
}
