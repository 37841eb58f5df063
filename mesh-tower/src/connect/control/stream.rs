//! One call: its messages out, its messages in, and how it ended.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use mesh_core::ads::{ControlStream, TransportError};
use tokio::sync::oneshot;

use super::outgoing::{Outbox, Outgoing};
use crate::connect::message::{Deframer, frame, status};

/// The response's head, on its way.
type Head = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// A call under way.
pub(super) struct GrpcStream {
    outbox: Outbox,
    /// A message that could not be framed.
    fault: Option<TransportError>,
    state: State,
    deframer: Deframer,
    /// hyper ends a connection that nobody can send on.
    _sender: SendRequest<Outgoing>,
    /// Its drop tells the connection that the stream is gone.
    _alive: oneshot::Sender<()>,
}

/// How far the response is.
enum State {
    Head(Head),
    Body(Incoming),
    Ended,
}

impl GrpcStream {
    pub(super) fn new(outbox: Outbox, head: Head, sender: SendRequest<Outgoing>, alive: oneshot::Sender<()>) -> Self {
        let (state, deframer) = (State::Head(head), Deframer::default());
        Self { outbox, fault: None, state, deframer, _sender: sender, _alive: alive }
    }

    /// The next message. What was read before is used up first, so that no more is read than one message needs.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TransportError>> {
        loop {
            if let Some(message) = self.deframer.next()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match &mut self.state {
                State::Ended => return Poll::Ready(Ok(None)),
                State::Head(head) => {
                    let response = ready!(head.as_mut().poll(cx));
                    let response = response.map_err(|error| broken("the call failed", &error))?;
                    self.state = begin(response)?;
                }
                State::Body(body) => {
                    let frame = ready!(Pin::new(body).poll_frame(cx));
                    self.take(frame)?;
                }
            }
        }
    }

    fn take(&mut self, frame: Option<hyper::Result<http_body::Frame<Bytes>>>) -> Result<(), TransportError> {
        let Some(frame) = frame else {
            return Err(TransportError::new("the server ended the call without a grpc-status"));
        };
        let frame = frame.map_err(|error| broken("the stream broke", &error))?;
        match frame.into_data() {
            Ok(data) => self.deframer.push(&data),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    status(&trailers)?;
                    if !self.deframer.is_empty() {
                        return Err(TransportError::new("the server ended the call in the middle of a message"));
                    }
                    self.state = State::Ended;
                }
            }
        }
        Ok(())
    }
}

/// What the head says: messages follow, the call is over already, or the server is none of gRPC.
fn begin(response: Response<Incoming>) -> Result<State, TransportError> {
    let (head, body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        return status(&head.headers).map(|()| State::Ended);
    }
    if head.status != StatusCode::OK {
        return Err(TransportError::new(format!("the server answered with HTTP status {}", head.status)));
    }
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
    if !kind.starts_with(b"application/grpc") {
        let kind = String::from_utf8_lossy(kind);
        return Err(TransportError::new(format!("the server answered with content-type `{kind}`, not with gRPC")));
    }
    Ok(State::Body(body))
}

/// An error of hyper with everything that it hides behind itself.
pub(super) fn broken(what: &str, error: &hyper::Error) -> TransportError {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    TransportError::new(text)
}

impl ControlStream for GrpcStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault));
        }
        self.outbox.poll_ready(cx).map(Ok)
    }

    fn send(&mut self, message: Bytes) {
        match frame(&message) {
            Ok(framed) => self.outbox.put(framed),
            Err(fault) => self.fault = Some(fault),
        }
    }

    fn finish(&mut self) {
        self.outbox.finish();
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        let message = ready!(self.poll_message(cx));
        if message.is_err() {
            self.state = State::Ended;
            self.deframer = Deframer::default();
        }
        Poll::Ready(message.transpose())
    }
}
