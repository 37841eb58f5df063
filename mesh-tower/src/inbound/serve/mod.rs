//! The safe one-liner: a server that owns its connections, so that it can drain each of them.

mod opening;
mod heads;
mod connection;
mod body;
mod bounded;
mod handler;

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use super::BoxError;
use super::accept::{Acceptor, InboundListener, run};
use super::slot::InboundSlot;
pub use body::RequestBody;
use connection::Http;
pub(crate) use connection::ending;
pub(crate) use heads::Heads;

/// Serves `app` on what `listener` accepts, under the configuration of `slot`: HTTP/1.1 and HTTP/2, with or without TLS as
/// the filter chain of each connection says.
///
/// It returns once [`InboundSlot::shutdown`] was called and every connection has ended or its deadline is over. Dropping the
/// future closes everything at once.
///
/// `app` may be an axum `Router`, tonic's `Routes` or any Tower service. It is cloned for each request; an error or a panic
/// of it fails that request only.
pub async fn serve<L, S, R>(slot: Arc<InboundSlot>, listener: L, app: S)
where
    L: InboundListener,
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let acceptor = Acceptor::new(slot);
    run(listener, acceptor, Http::new(app)).await;
}
