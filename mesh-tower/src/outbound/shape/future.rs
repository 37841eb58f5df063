//! A response on its way back: its headers are changed as the route says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Method, Response, Uri, Version};
use mesh_core::error::Error;
use mesh_core::route::Decision;
use mesh_core::route::format::FormatFacts;
use mesh_core::route::mutate::mutate_response;
use pin_project::pin_project;

use crate::outbound::stage::{Call, Routed};
use crate::outbound::view::TargetView;
use crate::outbound::{ResponseBody, Tries};

/// The future of [`Shape`](super::Shape).
#[pin_project]
pub(crate) struct ShapeFuture<F> {
    #[pin]
    stage: Stage<F>,
    responding: Option<Box<Responding>>,
}

#[pin_project(project = Projected)]
enum Stage<F> {
    Done(Option<Box<Result<Response<ResponseBody>, Error>>>),
    Forwarded(#[pin] F),
}

/// What response mutations may speak of. Kept only where there are any.
pub(super) struct Responding {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    call: Call,
    decision: Decision,
    view: Arc<TargetView>,
}

impl Responding {
    pub(super) fn new(routed: &Routed) -> Option<Box<Self>> {
        let mut levels = routed.decision.mutations(routed.view.table());
        let any = levels.any(|level| !(level.response_append.is_empty() && level.response_remove.is_empty()));
        let request = &routed.request;
        any.then(|| {
            Box::new(Self {
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                headers: request.headers().clone(),
                call: routed.call.clone(),
                decision: routed.decision.clone(),
                view: routed.view.clone(),
            })
        })
    }

    fn apply(&self, response: &mut Response<ResponseBody>) {
        let facts = FormatFacts {
            request: self.call.facts_of(&self.method, &self.uri, &self.headers),
            version: self.version,
            remote: self.call.downstream.remote(),
            local: self.call.downstream.local(),
            peer: self.call.downstream.peer(),
            status: Some(response.status()),
        };
        for level in self.decision.mutations(self.view.table()) {
            mutate_response(level, response.headers_mut(), &facts);
        }
    }
}

impl<F> ShapeFuture<F> {
    pub(super) fn done(result: Result<Response<ResponseBody>, Error>, responding: Option<Box<Responding>>) -> Self {
        Self { stage: Stage::Done(Some(Box::new(result))), responding }
    }

    pub(super) fn forwarded(future: F, responding: Option<Box<Responding>>) -> Self {
        Self { stage: Stage::Forwarded(future), responding }
    }
}

impl<F: Tries> Tries for ShapeFuture<F> {
    fn retries(&self) -> u32 {
        match &self.stage {
            Stage::Done(_) => 0,
            Stage::Forwarded(future) => future.retries(),
        }
    }
}

impl<F> Future for ShapeFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut done = match this.stage.project() {
            Projected::Done(done) => *done.take().expect("a future is not polled after it is done"),
            Projected::Forwarded(future) => ready!(future.poll(cx)),
        };
        if let (Some(responding), Ok(response)) = (this.responding, &mut done)
            && !response.body().is_onward()
        {
            responding.apply(response);
        }
        Poll::Ready(done)
    }
}
