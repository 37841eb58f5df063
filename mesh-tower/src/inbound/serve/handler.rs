//! From hyper's request to ours: the connection goes into its extensions, and on to the inbound layer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use mesh_core::route::facts::is_grpc;
use tower_service::Service;

use super::RequestBody;
use super::bounded::BodyLimits;
use crate::inbound::BoxError;
use crate::inbound::identify::PeerInfo;
use crate::inbound::layer::{InboundFuture, InboundService};
use crate::inbound::slot::InboundSlot;
use crate::reply::ReplyBody;

/// The service of one connection.
pub(super) struct Handler<S> {
    peer: PeerInfo,
    limits: BodyLimits,
    service: InboundService<S>,
}

impl<S> Handler<S> {
    pub(super) fn new(app: S, slot: Arc<InboundSlot>, peer: PeerInfo, limits: BodyLimits) -> Self {
        Self { service: InboundService::new(app, slot, None), peer, limits }
    }
}

impl<S, R> hyper::service::Service<Request<Incoming>> for Handler<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody<R>>;
    type Error = Infallible;
    type Future = InboundFuture<S, RequestBody>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let limits = if is_grpc(request.headers()) { self.limits.of_call() } else { self.limits };
        let mut request = request.map(|body| RequestBody::new(body, limits));
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request).holding(|body| body)
    }
}
