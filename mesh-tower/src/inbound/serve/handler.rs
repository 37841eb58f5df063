//! From hyper's request to ours: the connection goes into its extensions, and on to the inbound layer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use crate::inbound::identify::PeerInfo;
use crate::inbound::layer::{InboundFuture, InboundService};
use crate::inbound::reply::ReplyBody;
use crate::inbound::slot::InboundSlot;
use crate::inbound::{BoxError, RequestBody};

/// The service of one connection.
pub(super) struct Handler<S> {
    peer: PeerInfo,
    service: InboundService<S>,
}

impl<S> Handler<S> {
    pub(super) fn new(app: S, slot: Arc<InboundSlot>, peer: PeerInfo) -> Self {
        Self { service: InboundService::new(app, slot, None), peer }
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
        let mut request = request.map(crate::inbound::request_body);
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request)
    }
}
