//! The end of the stack: hands the request to its endpoint, and ties the response to what must live as long.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use mesh_core::balance::{CandidateState, PickGuard};
use tower_service::Service;

use crate::connect::EndpointFuture;
use crate::observe::{AttemptEnd, AttemptObserver};
use crate::outbound::stage::{At, AttemptFailed, Picked};
use crate::outbound::{ResponseBody, now};

/// Sends requests to their endpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire;

/// The future of [`Wire`].
pub(crate) struct WireFuture {
    sent: EndpointFuture,
    /// Both are given to the response, which lasts longer.
    guard: Option<PickGuard>,
    observer: Option<AttemptObserver>,
    state: Arc<CandidateState>,
    address: SocketAddr,
}

impl Service<Picked> for Wire {
    type Response = Response<ResponseBody>;
    type Error = AttemptFailed;
    type Future = WireFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), AttemptFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, picked: Picked) -> WireFuture {
        let Picked { request, way, observer, guard, state, address } = picked;
        WireFuture { sent: way.call(request), guard: Some(guard), observer: Some(observer), state, address }
    }
}

impl At for WireFuture {
    fn endpoint(&self) -> Option<&Arc<CandidateState>> {
        Some(&self.state)
    }
}

impl Future for WireFuture {
    type Output = Result<Response<ResponseBody>, AttemptFailed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = ready!(self.sent.as_mut().poll(cx));
        let (mut guard, observer) = (self.guard.take(), self.observer.take());
        match done {
            Ok(response) => {
                let (head, body) = response.into_parts();
                if let Some(guard) = &mut guard {
                    guard.on_headers(head.status, &head.headers, now);
                }
                let body = ResponseBody::picked(body, guard, self.state.clone(), self.address, observer, &head);
                Poll::Ready(Ok(Response::from_parts(head, body)))
            }
            Err(failed) => {
                if let Some(guard) = &mut guard {
                    guard.on_failure();
                }
                if let Some(observer) = observer {
                    observer.end(&AttemptEnd { error: Some(&failed.error), ..AttemptEnd::default() });
                }
                Poll::Ready(Err(AttemptFailed::at(failed, self.state.clone())))
            }
        }
    }
}
