//! Waits for a target's first configuration, where there is none yet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Request, Response};
use mesh_core::error::{Code, Error};
use mesh_core::publish::Reader;
use pin_project::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::Way;
use crate::body::MeshBody;
use crate::outbound::ResponseBody;
use crate::outbound::passthrough::Passing;
use crate::outbound::stage::{Call, Resolved};
use crate::outbound::target::{TargetSlot, TargetState};
use crate::outbound::view::{TargetView, waiting};

/// The future of [`Resolve`](super::Resolve).
#[pin_project]
pub(crate) struct ResolveFuture<S: Service<Resolved>>(#[pin] Stage<S>);

#[pin_project(project = Projected)]
enum Stage<S: Service<Resolved>> {
    Failed(Option<Error>),
    /// Rare, and large: boxed, so that the common way stays small.
    Waiting(Pin<Box<Waiting<S>>>),
    /// The host is not in the mesh, and let pass.
    Passing(Passing),
    Found(#[pin] S::Future),
}

/// A request that waits for its target's configuration.
#[pin_project]
struct Waiting<S> {
    inner: S,
    way: Way,
    reader: Reader<TargetState>,
    slot: Arc<TargetSlot>,
    request: Option<Request<MeshBody>>,
    call: Call,
    authority: Option<Arc<str>>,
    #[pin]
    until: Option<Sleep>,
}

impl<S: Service<Resolved>> ResolveFuture<S> {
    pub(super) fn failed(error: Error) -> Self {
        Self(Stage::Failed(Some(error)))
    }

    pub(super) fn found(future: S::Future) -> Self {
        Self(Stage::Found(future))
    }

    pub(super) fn passing(future: Passing) -> Self {
        Self(Stage::Passing(future))
    }

    pub(super) fn waiting(
        inner: S,
        way: Way,
        slot: Arc<TargetSlot>,
        request: Request<MeshBody>,
        call: Call,
        authority: Option<Arc<str>>,
        until: Option<Instant>,
    ) -> Self {
        let until = until.map(|at| tokio::time::sleep_until(at.into()));
        let reader = slot.reader();
        let waiting = Waiting { inner, way, reader, slot, request: Some(request), call, authority, until };
        Self(Stage::Waiting(Box::pin(waiting)))
    }
}

impl<S> Future for ResolveFuture<S>
where
    S: Service<Resolved, Response = Response<ResponseBody>, Error = Error>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().0;
        loop {
            let next = match stage.as_mut().project() {
                Projected::Failed(error) => {
                    return Poll::Ready(Err(error.take().expect("a future is not polled after it is done")));
                }
                Projected::Waiting(waiting) => match ready!(waiting.as_mut().poll(cx)) {
                    Ok(next) => next,
                    Err(error) => return Poll::Ready(Err(error)),
                },
                Projected::Passing(future) => return future.as_mut().poll(cx),
                Projected::Found(future) => return future.poll(cx),
            };
            stage.set(next);
        }
    }
}

impl<S: Service<Resolved>> Waiting<S> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stage<S>, Error>> {
        let this = self.project();
        loop {
            match &**this.reader.load() {
                TargetState::Ready(view) => {
                    let request = this.request.take().expect("a future is not polled after it is done");
                    let (view, authority): (Arc<TargetView>, _) = (view.clone(), this.authority.take());
                    let resolved = Resolved {
                        request,
                        call: this.call.clone(),
                        view,
                        authority,
                        dice: fastrand::u64(..),
                        trail: None,
                    };
                    return Poll::Ready(Ok(Stage::Found(this.inner.call(resolved))));
                }
                TargetState::Missing(why) => {
                    if let Some(passthrough) = this.way.passthrough().filter(|_| why.absent) {
                        let request = this.request.take().expect("a future is not polled after it is done");
                        let passing = passthrough.clone().send(request, this.call.clone());
                        return Poll::Ready(Ok(Stage::Passing(passing)));
                    }
                    if !this.call.wait_for_ready {
                        return Poll::Ready(Err(this.way.missing(why)));
                    }
                }
                TargetState::Waiting => {}
            }
            if this.reader.poll_changed(cx).is_pending() {
                break;
            }
        }
        match this.until.as_pin_mut().map(|until| until.poll(cx)) {
            Some(Poll::Ready(())) => {
                let why = waiting(this.slot.listener());
                Poll::Ready(Err(Error::new(Code::DEADLINE, format!("the time was up while {}", why.message()))))
            }
            _ => Poll::Pending,
        }
    }
}
