//! One connection: HTTP over it until it ends, or is drained.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use super::bounded::BodyLimits;
use super::handler::Handler;
use super::opening::{Opened, Version, open};
use super::{Heads, RequestBody};
use crate::inbound::BoxError;
use crate::inbound::accept::{Deliver, Place};
use crate::inbound::identify::PeerInfo;
use crate::inbound::normalize::Limits;
use crate::inbound::options::InboundLimits;
use crate::inbound::split::MeshIo;
use crate::io::BoxStream;

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
    async fn deliver(self, io: BoxStream, peer: PeerInfo, mut place: Place) {
        let of_head = Limits::of(&peer.connection().slot.options().limits, &peer.connection().chain.chain.http);
        let opened = place.kept(open(io, &peer, room(of_head))).await;
        drop(place);
        match opened {
            // A place of its own: who has not asked for anything yet has no room for HTTP.
            Some(Some(opened)) => Box::pin(self.run(opened, peer, of_head)).await,
            Some(None) => {}
            None => {
                tracing::debug!(target: "mesh", "closed a connection of {}: it took long, and others wait", peer.remote_addr());
            }
        }
    }
}

impl<S, R> Http<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    async fn run(self, opened: Opened, peer: PeerInfo, of_head: Limits) {
        let Opened { io, version, deadline } = opened;
        let slot = peer.connection().slot.clone();
        let limits = &slot.options().limits;
        let of_body = BodyLimits::of(limits, of_head);
        let service = Handler::new(self.app, slot.clone(), peer.clone(), of_body);
        let streams = peer.connection().chain.chain.http.head.max_streams.unwrap_or(limits.max_concurrent_streams);
        let builder = builder(limits, of_head, streams.min(limits.max_concurrent_streams));
        let builder = match version {
            Version::Http1 => builder.http1_only(),
            Version::Http2 => builder.http2_only(),
        };
        let io = TokioIo::new(MeshIo::plain(Box::new(io), peer.clone(), Heads::new()));
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let ending = async {
            match deadline {
                Some(deadline) => deadline,
                None => ending(&peer, slot.options().drain_grace).await,
            }
        };
        let deadline = tokio::select! {
            done = connection.as_mut() => return ended(&peer, done),
            deadline = ending => deadline,
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

/// How much of an answer waits for its stream's turn: a frame's worth. A client that opens every window and takes nothing makes
/// us keep so much for each stream; hyper's own 400 KiB came to 200 MiB for ten connections of fifty.
const SEND_BUFFER: usize = 16 * 1024;

/// How many bytes of a head of HTTP/1 are held: with room for spaces that need not be there.
fn room(head: Limits) -> usize {
    head.bytes.saturating_add(SMALLEST_BUFFER)
}

/// Heads are counted exactly where requests are normalised. Here they are bounded by what it takes to count them: HTTP/1's by a
/// buffer with room for spaces that need not be there, HTTP/2's by its own way to count, 32 bytes more for each header.
fn builder(limits: &InboundLimits, head: Limits, streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let counted = head.headers.saturating_add(1).saturating_mul(32).saturating_add(head.bytes);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(head.headers)
        .max_buf_size(room(head));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(counted).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .enable_connect_protocol();
    builder
}

/// hyper panics at less.
const SMALLEST_BUFFER: usize = 8192;
