//! Does what each request's route says.

use std::task::{Context, Poll};

use http::Response;
use mesh_core::error::{Code, Error};
use mesh_core::model::Action;
use tower_service::Service;

use super::future::{Responding, ShapeFuture};
use super::{answer::answer, request::shape};
use crate::outbound::ResponseBody;
use crate::outbound::route::not_found;
use crate::outbound::stage::Routed;

/// Does what the route says.
#[derive(Debug, Clone)]
pub(crate) struct Shape<S> {
    inner: S,
}

impl<S> Shape<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Routed> for Shape<S>
where
    S: Service<Routed, Response = Response<ResponseBody>, Error = Error>,
{
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = ShapeFuture<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Routed) -> Self::Future {
        let responding = Responding::new(&routed);
        match prepare(&mut routed) {
            Ok(None) => ShapeFuture::forwarded(self.inner.call(routed), responding),
            Ok(Some(response)) => ShapeFuture::done(Ok(response), responding),
            Err(error) => ShapeFuture::done(Err(error.with_config_version(routed.view.version())), responding),
        }
    }
}

/// Makes the request ready to go, or answers it.
fn prepare(routed: &mut Routed) -> Result<Option<Response<ResponseBody>>, Error> {
    let Action::Forward(forward) = &routed.decision.route.action else {
        let request = &routed.request;
        let facts = routed.call.facts_of(request.method(), request.uri(), request.headers());
        return answer(routed, &facts).map(Some);
    };
    match &routed.cluster {
        Some(Ok(_)) => shape(routed).map(|()| None),
        Some(Err(error)) if routed.call.grpc || error.code() != Code::RESOURCE_NOT_FOUND => Err(error.clone()),
        absent => {
            let name = routed.decision.cluster.as_ref().map_or("", |chosen| &chosen.name);
            let reason = match absent {
                Some(Err(error)) => format!(": {}", error.message()),
                _ => String::new(),
            };
            let error = Error::new(Code::NO_CLUSTER, format!("cluster `{name}` does not exist{reason}"));
            if routed.call.grpc {
                return Err(error);
            }
            // What the route says about a cluster that does not exist is for HTTP.
            Ok(Some(not_found(forward.cluster_not_found, &error.with_config_version(routed.view.version()))))
        }
    }
}
