//! Keeps each request that may be redirected.

use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::Error;
use mesh_core::model::BodyLimit;
use mesh_core::policy::internal_redirect::can_follow;
use tower_service::Service;

use super::RedirectLayer;
use super::future::{RedirectFuture, Watch};
use crate::outbound::ResponseBody;
use crate::outbound::kept::KeptRequest;
use crate::outbound::stage::Routed;

/// Follows redirects.
#[derive(Debug, Clone)]
pub(crate) struct Redirect<S> {
    inner: S,
    settings: RedirectLayer,
}

impl<S> Redirect<S> {
    pub(super) fn new(inner: S, settings: RedirectLayer) -> Self {
        Self { inner, settings }
    }

    /// Keeps the request, if its route follows redirects.
    fn watch(&self, routed: &mut Routed) -> Option<Box<Watch>> {
        routed.forward()?.internal_redirect.as_ref()?;
        if routed.call.grpc || !can_follow(routed.request.method(), routed.request.headers()) {
            return None;
        }
        let listener = routed.view.snapshot.listener.buffer_limit;
        let room = BodyLimit::bytes(routed.decision.route.body_limit, listener, self.settings.replay_bytes);
        let kept = KeptRequest::new(std::mem::take(&mut routed.request), room, true);
        routed.request = kept.again();
        Some(Box::new(Watch {
            kept,
            call: routed.call.clone(),
            view: routed.view.clone(),
            decision: routed.decision.clone(),
            trail: routed.trail.take().unwrap_or_default(),
            own_connections: self.settings.own_connections,
        }))
    }
}

impl<S> Service<Routed> for Redirect<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RedirectFuture<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Routed) -> Self::Future {
        let watch = self.watch(&mut routed);
        RedirectFuture::new(self.inner.call(routed), watch)
    }
}
