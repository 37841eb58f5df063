//! Starts each call's attempts.

use std::task::{Context, Poll};

use http::{Method, Response};
use mesh_core::error::Error;
use mesh_core::model::{BodyLimit, HedgePolicy};
use mesh_core::policy::retry::Attempts;
use tower_service::Service;

use super::future::RetryFuture;
use super::hedged::Hedged;
use super::layer::RetryLayer;
use super::plan::Plan;
use crate::outbound::ResponseBody;
use crate::outbound::kept::KeptRequest;
use crate::outbound::pick::auto_host;
use crate::outbound::stage::{At, Attempt, AttemptFailed, Routed, Tried};

/// Makes attempts.
#[derive(Debug, Clone)]
pub(crate) struct Retry<S> {
    inner: S,
    settings: RetryLayer,
}

impl<S> Retry<S> {
    pub(super) fn new(inner: S, settings: RetryLayer) -> Self {
        Self { inner, settings }
    }

    fn plan(&self, routed: Routed) -> (Plan, Option<HedgePolicy>, http::Request<crate::body::MeshBody>) {
        let hedge = hedge(&routed);
        let forward = routed.forward();
        let policy = forward.and_then(|forward| forward.retry.as_ref()).or(routed.decision.host.retry.as_ref());
        let steered = routed.steering.as_ref().and_then(|steering| steering.retry(policy));
        let policy = steered.as_ref().or(policy);
        let request = &routed.request;
        let facts = routed.call.facts_of(request.method(), request.uri(), request.headers());
        let attempts = Attempts::new(policy, &facts);
        let listener = routed.view.snapshot.listener.buffer_limit;
        let replay_bytes = BodyLimit::bytes(routed.decision.route.body_limit, listener, self.settings.replay_bytes);
        let auto_host = auto_host(&routed.decision.route.action, routed.call.grpc);
        let metadata = routed.decision.metadata_match().cloned();
        let host = &routed.decision.host;
        let Routed { request, call, view, cluster, hash, deadline, .. } = routed;
        let cluster = cluster.and_then(Result::ok);
        let cluster = cluster.expect("the layer before lets only requests with a cluster pass");
        if attempts.may_retry() || hedge.is_some() {
            cluster.state().budget().earn(&cluster.state().config().cluster.circuit_breakers);
        }
        let plan = Plan {
            attempts,
            call,
            count_in_request: host.request_attempt_count,
            count_in_response: host.response_attempt_count,
            view,
            cluster,
            hash,
            deadline,
            metadata,
            auto_host,
            tried: Tried::default(),
            number: 0,
            permit: None,
            replay_bytes,
            kept: None,
        };
        (plan, hedge, request)
    }
}

/// How the route hedges an HTTP request, if it does; gRPC has hedging of its own, which no resource configures.
fn hedge(routed: &Routed) -> Option<HedgePolicy> {
    let policy = routed.forward().and_then(|forward| forward.hedge).or(routed.decision.host.hedge);
    let asked = routed.steering.as_ref().and_then(|steering| steering.hedge_on_per_try_timeout);
    let mut policy = match (policy, asked) {
        _ if routed.call.grpc => return None,
        (None, None) => return None,
        (policy, _) => policy.unwrap_or(HedgePolicy { initial_requests: 1, on_per_try_timeout: false }),
    };
    policy.on_per_try_timeout = asked.unwrap_or(policy.on_per_try_timeout);
    (policy.on_per_try_timeout || policy.initial_requests > 1).then_some(policy)
}

impl<S> Service<Routed> for Retry<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed> + Clone,
    S::Future: At,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = RetryFuture<S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> RetryFuture<S> {
        let (mut plan, hedge, request) = self.plan(routed);
        // A tunnel is not a request that could be made again.
        if !(plan.attempts.may_retry() || hedge.is_some()) || request.method() == Method::CONNECT {
            return RetryFuture::in_turn(self.inner.clone(), plan, request);
        }
        let kept = KeptRequest::new(request, plan.replay_bytes, self.settings.keep_extensions);
        if let Some(hedge) = hedge {
            plan.kept = Some(kept);
            return RetryFuture::hedged(Hedged::new(self.inner.clone(), plan, hedge));
        }
        let request = kept.again();
        plan.kept = Some(kept);
        RetryFuture::in_turn(self.inner.clone(), plan, request)
    }
}
