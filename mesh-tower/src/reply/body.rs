//! The body of a response: the application's, or the mesh's own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use mesh_core::error::{Code, Error};
use mesh_core::policy::grpc::GrpcStatus;
use pin_project::pin_project;

use crate::BoxError;
use crate::filter::Pacer;
use crate::inbound::{Held, Reporting};
use crate::observe::{ServedEnd, ServedObserver};

/// The body of a response: the application's `B`, or a text of the mesh.
///
/// A panic inside the application's body fails that response, not the connection it shares with others.
#[pin_project]
#[derive(Debug)]
pub struct ReplyBody<B> {
    #[pin]
    kind: Kind<B>,
    /// How fast it may come, where a fault slows it down.
    pacer: Option<Box<Pacer>>,
    served: Option<Served>,
    /// What the trailers are to say of the load.
    report: Option<Reporting>,
    /// What it shares of its connection's budget, where others are on the connection.
    held: Option<Held>,
}

/// Who is told how the response ends, and what it has said so far.
#[derive(Debug)]
struct Served {
    observer: ServedObserver,
    status: StatusCode,
    grpc: Option<GrpcStatus>,
}

impl Served {
    fn end(self, error: Option<&Error>) {
        self.observer.end(&ServedEnd { status: Some(self.status), grpc_status: self.grpc, error });
    }
}

#[pin_project(project = Projected)]
#[derive(Debug)]
enum Kind<B> {
    App(#[pin] B),
    Ours(Bytes),
    Done,
}

impl<B> ReplyBody<B> {
    pub(crate) fn app(body: B) -> Self {
        Self { kind: Kind::App(body), pacer: None, served: None, report: None, held: None }
    }

    pub(crate) fn ours(text: Bytes) -> Self {
        Self {
            kind: if text.is_empty() { Kind::Done } else { Kind::Ours(text) },
            pacer: None,
            served: None,
            report: None,
            held: None,
        }
    }
}

impl<B: Body> ReplyBody<B> {
    /// Lets the body through no faster than `pacer` says.
    pub(crate) fn pace(&mut self, pacer: Box<Pacer>) {
        self.pacer = Some(pacer);
    }

    /// Tells `observer` when the response is over.
    pub(crate) fn observed(&mut self, observer: ServedObserver, status: StatusCode, grpc: Option<GrpcStatus>) {
        let served = Served { observer, status, grpc };
        if self.is_over() {
            served.end(None);
        } else {
            self.served = Some(served);
        }
    }

    /// Has the trailers say the load.
    pub(crate) fn reported(&mut self, report: Reporting) {
        self.report = Some(report);
    }

    /// Has it wait while its connection holds too much.
    pub(crate) fn shares(&mut self, held: Held) {
        self.held = Some(held);
    }

    /// Whether nothing of it is left, not even trailers.
    pub(crate) fn is_over(&self) -> bool {
        let over = match &self.kind {
            Kind::App(body) => body.is_end_stream(),
            Kind::Ours(_) => false,
            Kind::Done => true,
        };
        over && self.pacer.as_deref().is_none_or(Pacer::is_over)
    }
}

impl<B> Body for ReplyBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.as_mut().project();
        if let Some(held) = &*this.held {
            ready!(held.poll_room(cx));
        }
        let mut polled = match this.pacer {
            None => poll_kind(this.kind.as_mut(), cx),
            Some(pacer) => pacer.poll(cx, |cx| poll_kind(this.kind.as_mut(), cx)),
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(report)) = (&mut polled, &*this.report)
            && let Some(trailers) = frame.trailers_mut()
        {
            report.write(trailers);
        }
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(held)) = (frame.data_ref(), &*this.held) {
                    held.gave(data.len());
                }
                if let (Some(trailers), Some(served)) = (frame.trailers_ref(), &mut *this.served) {
                    served.grpc = GrpcStatus::of(trailers).or(served.grpc);
                }
                // A server does not ask again for what has said that it is over.
                if self.is_over()
                    && let Some(served) = self.project().served.take()
                {
                    served.end(None);
                }
            }
            Poll::Ready(done) => {
                if let Some(served) = this.served.take() {
                    let error = done.as_ref().and_then(|done| done.as_ref().err());
                    served.end(error.and_then(|error| error.downcast_ref()));
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.kind {
            Kind::App(body) => body.size_hint(),
            Kind::Ours(text) => SizeHint::with_exact(text.len() as u64),
            Kind::Done => SizeHint::with_exact(0),
        };
        match &self.pacer {
            None => hint,
            Some(pacer) => pacer.hint(&hint),
        }
    }
}

fn poll_kind<B>(mut kind: Pin<&mut Kind<B>>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match kind.as_mut().project() {
        Projected::App(body) => match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
            Ok(polled) => polled.map_err(Into::into),
            Err(_) => {
                kind.set(Kind::Done);
                let error = Error::new(Code::HANDLER_FAILED, "the body of the response panicked");
                Poll::Ready(Some(Err(error.into())))
            }
        },
        Projected::Ours(text) => {
            let text = std::mem::take(text);
            kind.set(Kind::Done);
            Poll::Ready(Some(Ok(Frame::data(text))))
        }
        Projected::Done => Poll::Ready(None),
    }
}
