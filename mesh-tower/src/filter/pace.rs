//! A response body that comes no faster than it may (Envoy's `response_rate_limit` fault).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response;
use http_body::{Body, Frame, SizeHint};
use mesh_core::policy::limit::BreakerGuard;
use tokio::time::{Instant, Sleep};

/// How often a part of the body is let through.
const TICK: Duration = Duration::from_millis(50);

/// Asks for a slow response, in the extensions of its head: filters see heads, and whoever owns the body obeys.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Bytes per second.
    rate: u64,
    /// The request counts as faulted until its response is over.
    active: Arc<BreakerGuard>,
}

/// Lets a body through at its pace.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Bytes in each tick; at least one.
    slice: usize,
    /// What has come and must wait.
    rest: Bytes,
    wait: Pin<Box<Sleep>>,
    _active: Arc<BreakerGuard>,
}

impl Pace {
    pub(crate) fn new(rate: u64, active: BreakerGuard) -> Self {
        Self { rate, active: Arc::new(active) }
    }

    /// What the filters have asked for.
    pub(crate) fn take(head: &mut response::Parts) -> Option<Box<Pacer>> {
        let Self { rate, active } = head.extensions.remove()?;
        let slice = usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1);
        let wait = Box::pin(tokio::time::sleep(Duration::ZERO));
        Some(Box::new(Pacer { slice, rest: Bytes::new(), wait, _active: active }))
    }
}

impl Pacer {
    /// The next part of `body` whose turn it is.
    pub(crate) fn poll<E>(
        &mut self,
        cx: &mut Context<'_>,
        frame: impl FnOnce(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        ready!(self.wait.as_mut().poll(cx));
        if self.rest.is_empty() {
            match ready!(frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => self.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let part = self.rest.split_to(self.slice.min(self.rest.len()));
        self.wait.as_mut().reset(Instant::now() + TICK);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    /// How much is to come, where what is behind says `rest`.
    pub(crate) fn hint(&self, behind: &SizeHint) -> SizeHint {
        let waiting = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = behind.upper() {
            hint.set_upper(upper + waiting);
        }
        hint.set_lower(behind.lower() + waiting);
        hint
    }

    /// Whether the body is over, where what is behind it is.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }
}

/// [`Pacer::poll`] over a body that can be moved.
pub(crate) fn poll_paced<B>(
    pacer: &mut Option<Box<Pacer>>,
    mut body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>>
where
    B: Body<Data = Bytes>,
{
    match pacer {
        None => body.poll_frame(cx),
        Some(pacer) => pacer.poll(cx, |cx| body.as_mut().poll_frame(cx)),
    }
}
