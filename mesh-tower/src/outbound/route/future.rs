//! A routed request; one whose cluster is named by a header may have to wait until that cluster is known.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::Error;
use mesh_core::model::Name;
use mesh_core::publish::Reader;
use pin_project::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use crate::outbound::ResponseBody;
use crate::outbound::stage::Routed;
use crate::outbound::target::{TargetSlot, TargetState};

/// How long a request waits for a cluster that it names itself, if its own limit is not shorter: as long as a resource may
/// take to come (gRFC A57).
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// The future of [`Route`](super::Route).
#[pin_project]
pub(crate) struct RouteFuture<S: Service<Routed>>(#[pin] Stage<S>);

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
        Self(Stage::Done(Some(Box::new(Err(error)))))
    }

    pub(super) fn answered(response: Response<ResponseBody>) -> Self {
        Self(Stage::Done(Some(Box::new(Ok(response)))))
    }

    pub(super) fn routed(future: S::Future) -> Self {
        Self(Stage::Routed(future))
    }

    pub(super) fn waiting(inner: S, routed: Routed, slot: &TargetSlot, name: Name) -> Self {
        let now = tokio::time::Instant::now();
        let until = routed.deadline.map_or(now + PATIENCE, |at| (now + PATIENCE).min(at.into()));
        let patience = tokio::time::sleep_until(until);
        let waiting = Waiting { inner, routed: Some(routed), name, reader: slot.reader(), patience };
        Self(Stage::Waiting(Box::pin(waiting)))
    }
}

impl<S> Future for RouteFuture<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().0;
        loop {
            let next = match stage.as_mut().project() {
                Projected::Done(done) => {
                    return Poll::Ready(*done.take().expect("a future is not polled after it is done"));
                }
                Projected::Waiting(waiting) => match waiting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(future) => Stage::Routed(future),
                },
                Projected::Routed(future) => return future.poll(cx),
            };
            stage.set(next);
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
