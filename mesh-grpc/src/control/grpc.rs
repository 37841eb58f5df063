//! gRPC over HTTP/2, for methods whose messages are bytes.
//!
//! Responses are framed here and not by tonic, because a response has to be torn in its middle too.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use mesh_core::lrs::STREAM_LOAD_STATS;
use mesh_core::source::responder::Responder;
use tokio::sync::mpsc;
use tonic::codec::{DecodeBuf, Decoder};
use tonic::{Status, Streaming};

use super::conversation::Conversation;
use super::load::Listening;
use super::plane::Shared;

/// The largest request: a hundred thousand names and a long NACK are below it.
const LARGEST_REQUEST: usize = 64 << 20;

/// What goes out on a stream.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A message.
    Message(Bytes),
    /// The first half of a message.
    Half(Bytes),
    /// The stream is reset.
    Reset,
    /// The end, with this status.
    End(Status),
}

/// Answers the head of a request, and has the stream served.
pub(super) fn respond(request: Request<Incoming>, peer: SocketAddr, shared: &Arc<Shared>) -> Response<StreamBody> {
    let path = request.uri().path();
    let variant = Responder::variant(path);
    if variant.is_none() && path != STREAM_LOAD_STATS {
        let text = format!("the control plane speaks ADS, SDS and {STREAM_LOAD_STATS}, and not {path}");
        return Status::unimplemented(text).into_http();
    }
    let requests = Streaming::new_request(Raw, request.into_body(), None, Some(LARGEST_REQUEST));
    // One message waits while another is written: a slow reader slows the answers.
    let (sender, receiver) = mpsc::channel(1);
    match variant {
        Some(variant) => tokio::spawn(Conversation::new(shared.clone(), peer, variant, sender).run(requests)),
        None => tokio::spawn(Listening::new(shared.clone(), peer, sender).run(requests)),
    };
    let mut response = Response::new(StreamBody { receiver: Some(receiver) });
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Messages as bytes.
#[derive(Debug)]
struct Raw;

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// A response's body: what the conversation sends. None: it is over, or never began.
#[derive(Debug, Default)]
pub(super) struct StreamBody {
    receiver: Option<mpsc::Receiver<Outgoing>>,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Torn;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Torn>>> {
        let Some(receiver) = &mut self.receiver else { return Poll::Ready(None) };
        let next = match std::task::ready!(receiver.poll_recv(cx)) {
            Some(Outgoing::Message(message)) => return Poll::Ready(Some(Ok(Frame::data(framed(&message))))),
            Some(Outgoing::Half(message)) => {
                let whole = framed(&message);
                return Poll::Ready(Some(Ok(Frame::data(whole.slice(..whole.len() / 2)))));
            }
            Some(Outgoing::End(status)) => Ok(Frame::trailers(trailers(&status))),
            Some(Outgoing::Reset) | None => Err(Torn),
        };
        self.receiver = None;
        Poll::Ready(Some(next))
    }

    fn is_end_stream(&self) -> bool {
        self.receiver.is_none()
    }
}

/// The message behind its five-byte prefix: not compressed, and its length.
fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    // A set of resources of 4 GiB does not come this far: it would not have fitted in its message.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Its text is ours, so this cannot be; without a status, clients take it as UNKNOWN.
        tracing::debug!(target: "mesh", "{status} cannot be a header");
    }
    trailers
}

/// The stream is reset on purpose.
#[derive(Debug)]
pub(super) struct Torn;

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("torn on purpose")
    }
}

impl std::error::Error for Torn {}
