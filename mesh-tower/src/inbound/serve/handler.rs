//! From hyper's request to ours: the connection goes into its extensions, and on to the inbound layer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tower_service::Service;

use super::Heads;
use crate::inbound::identify::PeerInfo;
use crate::inbound::layer::{InboundFuture, InboundService};
use crate::inbound::slot::InboundSlot;
use crate::inbound::{BoxError, RequestBody};
use crate::reply::ReplyBody;

/// The service of one connection.
pub(super) struct Handler<S> {
    peer: PeerInfo,
    heads: Heads,
    service: InboundService<S>,
}

impl<S> Handler<S> {
    pub(super) fn new(app: S, slot: Arc<InboundSlot>, peer: PeerInfo, heads: Heads) -> Self {
        Self { service: InboundService::new(app, slot, None), peer, heads }
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
        if !request.body().is_end_stream() || request.headers().contains_key(UPGRADE) {
            self.heads.mix();
        }
        let mut request = request.map(crate::inbound::request_body);
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request)
    }
}
