//! A request among its filters, and the response on its way back through them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, request};
use mesh_core::error::{Code, Error};
use pin_project::pin_project;
use tower_service::Service;

use crate::body::MeshBody;
use crate::filter::{FilterRun, Pace};
use crate::outbound::stage::Routed;
use crate::outbound::{OutboundFacts, ResponseBody, Tries};

/// The future of [`Filter`](super::Filter).
#[pin_project]
pub(crate) struct FilterFuture<S: Service<Routed>> {
    #[pin]
    stage: Stage<S>,
    run: Option<Box<FilterRun<OutboundFacts>>>,
}

#[pin_project(project = Projected)]
enum Stage<S: Service<Routed>> {
    Judged { inner: S, held: Option<Box<Held>> },
    Passed(#[pin] S::Future),
}

/// A request that filters may still change.
struct Held {
    head: request::Parts,
    body: MeshBody,
    routed: Routed,
}

impl<S: Service<Routed>> FilterFuture<S> {
    pub(super) fn unfiltered(future: S::Future) -> Self {
        Self { stage: Stage::Passed(future), run: None }
    }

    pub(super) fn filtered(inner: S, mut routed: Routed, run: FilterRun<OutboundFacts>) -> Self {
        let (head, body) = std::mem::take(&mut routed.request).into_parts();
        let held = Some(Box::new(Held { head, body, routed }));
        Self { stage: Stage::Judged { inner, held }, run: Some(Box::new(run)) }
    }
}

impl<S: Service<Routed>> Tries for FilterFuture<S>
where
    S::Future: Tries,
{
    fn retries(&self) -> u32 {
        match &self.stage {
            Stage::Judged { .. } => 0,
            Stage::Passed(future) => future.retries(),
        }
    }
}

impl<S> Future for FilterFuture<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error>,
{
    type Output = Result<Response<ResponseBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                Projected::Judged { inner, held } => {
                    let run = this.run.as_mut().expect("a judged request has its filters");
                    let request = held.as_mut().expect("a future is not polled after it is done");
                    let verdict = ready!(judged(run, cx, &mut request.head));
                    match verdict {
                        Err(error) => return Poll::Ready(Err(error)),
                        Ok(Err(reply)) => {
                            let response = reply.into_response(run.facts().grpc);
                            return Poll::Ready(shown(run, response.map(|text| ResponseBody::ours(text.into()))));
                        }
                        Ok(Ok(())) => {}
                    }
                    let Held { head, body, mut routed } = *held.take().expect("it was there a moment ago");
                    routed.request = Request::from_parts(head, body);
                    Stage::Passed(inner.call(routed))
                }
                Projected::Passed(future) => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(match this.run {
                        // What goes on is nothing that filters have to see.
                        Some(run) if !response.body().is_onward() => shown(run, response),
                        _ => Ok(response),
                    });
                }
            };
            this.stage.set(next);
        }
    }
}

type Verdict = Result<Result<(), Box<crate::reply::Reply>>, Error>;

/// A panic of a filter fails its request only.
fn judged(run: &mut FilterRun<OutboundFacts>, cx: &mut Context<'_>, head: &mut request::Parts) -> Poll<Verdict> {
    match catch_unwind(AssertUnwindSafe(|| run.poll(cx, head, None))) {
        Ok(polled) => polled.map(Ok),
        Err(_) => Poll::Ready(Err(panicked())),
    }
}

fn shown(
    run: &mut FilterRun<OutboundFacts>,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Error> {
    let shown = catch_unwind(AssertUnwindSafe(|| run.show(response))).map_err(|_| panicked())?;
    let (mut head, mut body) = shown.into_parts();
    if let Some(pacer) = Pace::take(&mut head) {
        body.pace(pacer);
    }
    Ok(Response::from_parts(head, body))
}

fn panicked() -> Error {
    Error::new(Code::FILTER_FAILED, "an HTTP filter panicked")
}
