//! Gives each request its limit.

use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::Error;
use mesh_core::policy::deadline::{HttpTimeouts, deadline, earlier, http_timeouts};
use mesh_core::policy::steering::{self, Steering};
use tower_service::Service;

use super::DeadlineFuture;
use super::quiet::Quiet;
use crate::outbound::stage::Routed;
use crate::outbound::{ResponseBody, Tries};

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
    S::Future: Tries,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Routed) -> Self::Future {
        let started = routed.call.started;
        if self.from == From::Beginning {
            let limit = routed.deadline;
            return DeadlineFuture::new(self.inner.call(routed), limit, started);
        }
        let timeouts = route_timeouts(&mut routed);
        let limit = deadline(tokio::time::Instant::now().into_std(), timeouts.route);
        routed.deadline = earlier(routed.deadline, limit);
        let quiet = timeouts.idle.map(|idle| Box::new(Quiet::over(routed.request.body_mut(), idle)));
        DeadlineFuture::new(self.inner.call(routed), limit, started).with_idle(timeouts.idle, quiet)
    }
}

/// The route's limits on an HTTP request, as the request itself may want them. They are read here, where Envoy's router
/// does, so that filters can set the headers.
fn route_timeouts(routed: &mut Routed) -> HttpTimeouts {
    let none = HttpTimeouts { route: None, stream: None, idle: None };
    if routed.call.grpc || routed.forward().is_none() {
        return none;
    }
    if routed.call.internal {
        routed.steering = Steering::take(routed.request.headers_mut()).map(Box::new);
    } else {
        steering::strip(routed.request.headers_mut());
    }
    let mut timeouts = routed.forward().map_or(none, |forward| http_timeouts(forward, None));
    if let Some(timeout) = routed.steering.as_ref().and_then(|steering| steering.timeout) {
        timeouts.route = Some(timeout).filter(|timeout| !timeout.is_zero());
    }
    timeouts
}
