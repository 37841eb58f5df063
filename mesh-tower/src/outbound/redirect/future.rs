//! A request whose response may send it elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http::uri::Scheme;
use mesh_core::error::Error;
use mesh_core::model::{InternalRedirect, Name};
use mesh_core::policy::internal_redirect::{NotFollowed, RequestHead, Trail, follow, is_meant};
use mesh_core::route::{Decision, NoDecision};
use pin_project::pin_project;

use super::Onward;
use crate::outbound::kept::KeptRequest;
use crate::outbound::stage::{Call, forward_of};
use crate::outbound::view::TargetView;
use crate::outbound::{ResponseBody, Tries};

/// The future of [`Redirect`](super::Redirect).
#[pin_project]
pub(crate) struct RedirectFuture<F> {
    #[pin]
    inner: F,
    watch: Option<Box<Watch>>,
}

/// What a redirect is judged by. Kept only where the route follows any.
pub(super) struct Watch {
    pub(super) kept: KeptRequest,
    pub(super) call: Call,
    pub(super) view: Arc<TargetView>,
    pub(super) decision: Decision,
    pub(super) trail: Box<Trail>,
    pub(super) own_connections: bool,
}

impl<F> RedirectFuture<F> {
    pub(super) fn new(inner: F, watch: Option<Box<Watch>>) -> Self {
        Self { inner, watch }
    }
}

impl<F: Tries> Tries for RedirectFuture<F> {
    fn retries(&self) -> u32 {
        self.inner.retries()
    }
}

impl<F> Future for RedirectFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let done = ready!(this.inner.poll(cx));
        Poll::Ready(match this.watch.take() {
            Some(watch) => done.map(|response| watch.judge(response)),
            None => done,
        })
    }
}

impl Watch {
    /// The response, or in its place the request that it sends elsewhere.
    fn judge(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let policy = forward_of(&self.decision).and_then(|forward| forward.internal_redirect.as_ref());
        let Some(policy) = policy.filter(|policy| is_meant(policy, response.status())) else {
            self.kept.commit();
            return response;
        };
        match self.follow(policy, &response) {
            Some(Ok(onward)) => {
                std::mem::take(response.body_mut()).discard();
                *response.body_mut() = ResponseBody::onward(onward);
                return response;
            }
            Some(Err(why)) => tracing::debug!(target: "mesh", "a redirect is left to the caller: {why}"),
            None => tracing::debug!(target: "mesh", "a redirect is left to the caller: the request was not kept whole"),
        }
        self.kept.commit();
        response
    }

    /// None: the request has not ended or was too long to be kept (Envoy).
    fn follow(
        &self,
        policy: &InternalRedirect,
        response: &Response<ResponseBody>,
    ) -> Option<Result<Box<Onward>, NotFollowed>> {
        if !self.kept.is_whole() {
            return None;
        }
        let sent = self.kept.head();
        let facts = self.call.facts_of(&sent.method, &sent.uri, &sent.headers);
        let (scheme, authority) = (facts.scheme, facts.authority);
        let redirect = (response.status(), response.headers());
        let dice = fastrand::u64(..);
        let route = |head: &RequestHead| self.route_of(head, dice);
        let from = (&self.decision.route.name, &*self.trail);
        let next = match follow(policy, from, (&sent, scheme, authority), redirect, route) {
            Ok(next) => next,
            Err(why) => return Some(Err(why)),
        };
        let https =
            self.own_connections && !self.call.downstream.is_there() && next.head.uri.scheme() == Some(&Scheme::HTTPS);
        let request = self.kept.elsewhere(next.head, next.drop_body);
        Some(Ok(Box::new(Onward { request, trail: Box::new(next.trail), https, dice })))
    }

    /// The name of the route that would take a request.
    fn route_of(&self, head: &RequestHead, dice: u64) -> Option<Name> {
        let facts = self.call.facts_of(&head.method, &head.uri, &head.headers);
        match self.view.index().decide(facts.authority, &facts, dice) {
            Ok(Decision { route, .. }) | Err(NoDecision::NoClusterHeader { route, .. }) => Some(route.name.clone()),
            Err(_) => None,
        }
    }
}
