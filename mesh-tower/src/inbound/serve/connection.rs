//! One connection: HTTP over it until it ends, is drained, or is silent from the start.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};
use tower_service::Service;

use super::Heads;
use super::handler::Handler;
use crate::inbound::accept::Deliver;
use crate::inbound::identify::PeerInfo;
use crate::inbound::options::InboundLimits;
use crate::inbound::split::MeshIo;
use crate::inbound::{BoxError, RequestBody};
use crate::io::BoxStream;

/// The length of HTTP/2's preface: until so much has come, nobody knows which HTTP it is. No HTTP/1.1 request is shorter.
const PREFACE: usize = 24;

/// Serves HTTP on a connection.
#[derive(Clone)]
pub(super) struct Http<S> {
    app: S,
}

impl<S> Http<S> {
    pub(super) fn new(app: S) -> Self {
        Self { app }
    }
}

impl<S, R> Deliver for Http<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    async fn deliver(self, io: BoxStream, peer: PeerInfo, handshake: OwnedSemaphorePermit) {
        drop(handshake);
        let slot = peer.connection().slot.clone();
        let limits = &slot.options().limits;
        let heads = Heads::default();
        let service = Handler::new(self.app, slot.clone(), peer.clone(), heads.clone());
        let builder = builder(limits);
        let io = TokioIo::new(MeshIo::plain(io, peer.clone(), heads));
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut ending = pin!(ending(&peer, slot.options().drain_grace));
        let mut silent = pin!(silent(&peer, limits.handshake_timeout));
        let deadline = tokio::select! {
            done = connection.as_mut() => return ended(&peer, done),
            () = silent.as_mut() => {
                tracing::debug!(target: "mesh", "closed a connection of {}: it sent nothing", peer.remote_addr());
                return;
            }
            deadline = ending.as_mut() => deadline,
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            done = connection.as_mut() => ended(&peer, done),
            () = sleep_until(deadline) => {
                tracing::info!(target: "mesh", "closed a connection of {}: its time to drain is over", peer.remote_addr());
            }
        }
    }
}

fn ended(peer: &PeerInfo, done: Result<(), BoxError>) {
    if let Err(error) = done {
        tracing::debug!(target: "mesh", "the connection of {} ended: {error}", peer.remote_addr());
    }
}

/// Resolves when the connection must be drained, to the time when it must be gone.
pub(crate) async fn ending(peer: &PeerInfo, grace: Duration) -> Instant {
    let connection = peer.connection();
    let mut drain = connection.drain.clone();
    let drained = async {
        // An error means that the generation is gone, which is the same.
        let _ = drain.wait_for(|drain| *drain).await;
    };
    tokio::select! {
        () = drained => Instant::now() + grace,
        deadline = connection.slot.shutting_down() => deadline,
    }
}

/// Resolves if the client has not said within `limit` which HTTP it speaks; from then on HTTP's own timeouts hold.
async fn silent(peer: &PeerInfo, limit: Duration) {
    sleep(limit).await;
    if peer.connection().bytes_read() >= PREFACE {
        std::future::pending::<()>().await;
    }
}

fn builder(limits: &InboundLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.max_headers)
        .max_buf_size(usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX).max(SMALLEST_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .enable_connect_protocol();
    builder
}

/// hyper panics at less.
const SMALLEST_BUFFER: usize = 8192;
