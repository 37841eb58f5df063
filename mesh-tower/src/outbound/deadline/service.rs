//! Gives each request its limit.

use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::Error;
use mesh_core::policy::deadline::{deadline, earlier, http_timeouts};
use tower_service::Service;

use super::DeadlineFuture;
use crate::outbound::ResponseBody;
use crate::outbound::stage::Routed;

/// Which limit a [`Deadline`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The one that counts from the call's beginning.
    Beginning,
    /// The route's timeout, which counts from here.
    Here,
}

/// Ends requests whose time is up.
#[derive(Debug, Clone)]
pub(crate) struct Deadline<S> {
    inner: S,
    from: From,
}

impl<S> Deadline<S> {
    pub(super) fn new(inner: S, from: From) -> Self {
        Self { inner, from }
    }
}

impl<S> Service<Routed> for Deadline<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Routed) -> Self::Future {
        let (mut limit, mut idle) = (routed.deadline, None);
        if self.from == From::Here {
            limit = None;
            if let (Some(forward), false) = (routed.forward(), routed.call.grpc) {
                let timeouts = http_timeouts(forward, None);
                limit = deadline(tokio::time::Instant::now().into_std(), timeouts.route);
                idle = timeouts.idle;
            }
            routed.deadline = earlier(routed.deadline, limit);
        }
        let started = routed.call.started;
        DeadlineFuture::new(self.inner.call(routed), limit, idle, started)
    }
}
