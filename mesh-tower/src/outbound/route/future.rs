//! A routed request; one whose cluster is named by a header may have to wait until that cluster is known.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use mesh_core::error::Error;
use mesh_core::model::Name;
use mesh_core::publish::Reader;
use pin_project::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::service::Onwards;
use crate::outbound::ResponseBody;
use crate::outbound::stage::Routed;
use crate::outbound::target::{TargetSlot, TargetState};

/// How long a request waits for a cluster that it names itself, if its own limit is not shorter: as long as a resource may
/// take to come (gRFC A57).
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// The future of [`Route`](super::Route).
#[pin_project]
pub(crate) struct RouteFuture<S: Service<Routed>> {
    #[pin]
    stage: Stage<S>,
    onwards: Option<Box<Onwards<S>>>,
}

#[pin_project(project = Projected)]
enum Stage<S: Service<Routed>> {
    Done(Option<Box<Result<Response<ResponseBody>, Error>>>),
    Waiting(Pin<Box<Waiting<S>>>),
    Routed(#[pin] S::Future),
}

/// A request whose cluster has been asked for.
#[pin_project]
struct Waiting<S> {
    inner: S,
    routed: Option<Routed>,
    name: Name,
    reader: Reader<TargetState>,
    #[pin]
    patience: Sleep,
}

impl<S: Service<Routed>> RouteFuture<S> {
    pub(super) fn failed(error: Error) -> Self {
        Self { stage: Stage::Done(Some(Box::new(Err(error)))), onwards: None }
    }

    pub(super) fn answered(response: Response<ResponseBody>) -> Self {
        Self { stage: Stage::Done(Some(Box::new(Ok(response)))), onwards: None }
    }

    pub(super) fn routed(future: S::Future, onwards: Option<Box<Onwards<S>>>) -> Self {
        Self { stage: Stage::Routed(future), onwards }
    }

    pub(super) fn waiting(
        inner: S,
        routed: Routed,
        slot: &TargetSlot,
        name: Name,
        onwards: Option<Box<Onwards<S>>>,
    ) -> Self {
        let now = tokio::time::Instant::now();
        let until = routed.deadline.map_or(now + PATIENCE, |at| (now + PATIENCE).min(at.into()));
        let patience = tokio::time::sleep_until(until);
        let waiting = Waiting { inner, routed: Some(routed), name, reader: slot.reader(), patience };
        Self { stage: Stage::Waiting(Box::pin(waiting)), onwards }
    }
}

impl<S> Future for RouteFuture<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let mut this = self.as_mut().project();
            let next = match this.stage.as_mut().project() {
                Projected::Done(done) => {
                    return Poll::Ready(*done.take().expect("a future is not polled after it is done"));
                }
                Projected::Waiting(waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(future) => Stage::Routed(future),
                },
                Projected::Routed(future) => {
                    let mut done = ready!(future.poll(cx));
                    let onward = done.as_mut().ok().and_then(|response| response.body_mut().take_onward());
                    let (Some(onward), Some(onwards)) = (onward, this.onwards.take()) else { return Poll::Ready(done) };
                    let next = onwards.follow(*onward);
                    self.set(next);
                    continue;
                }
            };
            this.stage.set(next);
        }
    }
}

impl<S: Service<Routed>> Waiting<S> {
    /// The request goes on with its cluster, or without one when the time is up.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<S::Future> {
        let this = self.project();
        let found = loop {
            if let TargetState::Ready(view) = &**this.reader.load()
                && let Some(cluster) = view.cluster(this.name)
            {
                break Some(cluster);
            }
            if this.reader.poll_changed(cx).is_pending() {
                match this.patience.poll(cx) {
                    Poll::Ready(()) => break None,
                    Poll::Pending => return Poll::Pending,
                }
            }
        };
        let mut routed = this.routed.take().expect("a future is not polled after it is done");
        routed.cluster = found;
        Poll::Ready(this.inner.call(routed))
    }
}
