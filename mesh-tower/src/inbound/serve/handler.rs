//! From hyper's request to ours: the connection goes into its extensions, and on to the inbound layer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use super::RequestBody;
use crate::inbound::BoxError;
use crate::inbound::identify::PeerInfo;
use crate::inbound::layer::{InboundFuture, InboundService};
use crate::inbound::normalize::Limits;
use crate::inbound::slot::InboundSlot;
use crate::reply::ReplyBody;

/// The service of one connection.
pub(super) struct Handler<S> {
    peer: PeerInfo,
    limits: Limits,
    service: InboundService<S>,
}

impl<S> Handler<S> {
    pub(super) fn new(app: S, slot: Arc<InboundSlot>, peer: PeerInfo, limits: Limits) -> Self {
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
        let mut request = request.map(|body| RequestBody::new(body, self.limits));
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request).holding(|body| body)
    }
}
