//! Has each request judged by its route's filters.

use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::Error;
use tower_service::Service;

use super::FilterFuture;
use crate::filter::FilterRun;
use crate::outbound::stage::Routed;
use crate::outbound::{OutboundFacts, ResponseBody};

/// Runs HTTP filters.
#[derive(Debug, Clone)]
pub(crate) struct Filter<S> {
    inner: S,
}

impl<S> Filter<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Routed> for Filter<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = FilterFuture<S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> FilterFuture<S> {
        let chosen = routed.decision.cluster.as_ref();
        let weighted = chosen.and_then(|chosen| chosen.weighted).map(|pick| pick.index);
        let chain = routed.view.filters(&routed.decision.route, weighted);
        if chain.is_empty() {
            return FilterFuture::unfiltered(self.inner.call(routed));
        }
        let facts = OutboundFacts {
            target: routed.view.snapshot.target.clone(),
            route: routed.decision.route.clone(),
            host: routed.decision.host.clone(),
            cluster: chosen.map(|chosen| chosen.name.clone()),
            grpc: routed.call.grpc,
            config_version: routed.view.version(),
            downstream: routed.call.downstream.clone(),
        };
        FilterFuture::filtered(self.inner.clone(), routed, FilterRun::new(chain, facts))
    }
}
