//! Judges each attempt by the load of its cluster.

use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::{Code, Error};
use mesh_core::policy::limit::{BreakerGuard, drop_category};
use mesh_core::snapshot::Children;
use tower_service::Service;

use super::LimitFuture;
use crate::outbound::ResponseBody;
use crate::outbound::cluster::ClusterState;
use crate::outbound::stage::{Attempt, AttemptFailed};

/// Refuses attempts over the cluster's limits.
#[derive(Debug, Clone)]
pub(crate) struct Limit<S> {
    inner: S,
}

impl<S> Limit<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Attempt> for Limit<S>
where
    S: Service<Attempt, Response = Response<ResponseBody>, Error = AttemptFailed>,
{
    type Response = Response<ResponseBody>;
    type Error = AttemptFailed;
    type Future = LimitFuture<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), AttemptFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        // An aggregate's attempt is an attempt of one of its leaves.
        attempt.cluster = attempt.cluster.leaf(attempt.call.grpc, attempt.call.http2).clone();
        match secured(&attempt).and_then(|()| enter(attempt.cluster.state())) {
            Ok(guard) => LimitFuture::entered(self.inner.call(attempt), guard),
            Err(error) => {
                LimitFuture::refused(AttemptFailed::refused(error.with_config_version(attempt.view.version())))
            }
        }
    }
}

/// Who asks for `https` gets TLS or nothing.
fn secured(attempt: &Attempt) -> Result<(), Error> {
    let state = attempt.cluster.state();
    if !attempt.call.https || state.config().cluster.each_tls().all(|tls| tls.is_some()) {
        return Ok(());
    }
    let text =
        format!("the request asks for https, and cluster `{}` has no TLS, or not to every endpoint", state.name());
    Err(Error::new(Code::UNPROVABLE_TLS, text).with_next_step("give the cluster TLS, or ask with http"))
}

fn enter(cluster: &ClusterState) -> Result<BreakerGuard, Error> {
    let config = cluster.config();
    if let Children::Endpoints { endpoints, .. } = &config.children
        && !endpoints.drops.is_empty()
        && let Some(drop) = drop_category(&endpoints.drops, fastrand::u64(..))
    {
        cluster.dropped(Some(&drop.category));
        let text = format!("cluster `{}` drops requests of category `{}`", cluster.name(), drop.category);
        return Err(Error::new(Code::DROPPED, text));
    }
    let max = config.cluster.circuit_breakers.max_requests;
    cluster.breaker().enter(max).ok_or_else(|| {
        cluster.dropped(None);
        Error::new(Code::OVERLOADED, format!("cluster `{}` has {max} requests in flight", cluster.name()))
    })
}
