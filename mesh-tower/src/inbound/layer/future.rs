//! The rest of a request's way: its filters, the application, and the filters again with the response.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version, request};
use http_body::Body;
use mesh_core::error::{Code, Error};
use mesh_core::policy::grpc::GrpcStatus;
use pin_project::pin_project;
use tower_service::Service;

use crate::filter::{FilterRun, Hold, Pace};
use crate::inbound::BoxError;
use crate::inbound::normalize::{Asked, restore};
use crate::inbound::{Held, Reporting, RequestFacts};
use crate::observe::ServedObserver;
use crate::reply::{Reply, ReplyBody};

/// The future of [`InboundService`](super::InboundService).
#[pin_project]
pub struct InboundFuture<S, B>
where
    S: Service<Request<B>>,
{
    #[pin]
    stage: Stage<S, B, S::Future>,
    run: Option<FilterRun<RequestFacts>>,
    version: Version,
    /// What the connection was asked to become. It ends with any answer that does not grant it: nobody has looked at what comes
    /// after such a request.
    asked: Option<Asked>,
    served: Option<ServedObserver>,
    report: Option<Reporting>,
    grpc: bool,
    /// How filters read the body, where the mesh has made it.
    hold: Option<fn(&mut B) -> &mut dyn Hold>,
}

#[pin_project(project = Projected)]
enum Stage<S, B, F> {
    /// The mesh answers.
    Reply(Option<Response<Bytes>>),
    /// The filters judge the request.
    Filter { head: Option<Box<request::Parts>>, body: Option<B>, service: Option<S> },
    /// The application is not ready yet.
    Ready { request: Option<Request<B>>, service: S },
    /// The application works.
    Handle(#[pin] F),
}

impl<S, B> InboundFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn refused(reply: Reply, grpc: bool, served: Option<ServedObserver>) -> Self {
        let stage = Stage::Reply(Some(reply.into_response(grpc)));
        Self { stage, run: None, version: Version::HTTP_2, asked: None, served, report: None, grpc, hold: None }
    }

    pub(super) fn asking(self, asked: Option<Asked>) -> Self {
        Self { asked, ..self }
    }

    /// Filters may read the body so.
    pub(in crate::inbound) fn holding(self, hold: fn(&mut B) -> &mut dyn Hold) -> Self {
        Self { hold: Some(hold), ..self }
    }

    pub(super) fn admitted(
        service: S,
        request: Request<B>,
        run: FilterRun<RequestFacts>,
        served: Option<ServedObserver>,
        report: Option<Reporting>,
    ) -> Self {
        let grpc = run.facts().grpc;
        let version = request.version();
        let stage = if run.is_empty() {
            Stage::Ready { request: Some(request), service }
        } else {
            let (head, body) = request.into_parts();
            Stage::Filter { head: Some(Box::new(head)), body: Some(body), service: Some(service) }
        };
        Self { stage, run: Some(run), version, asked: None, served, report, grpc, hold: None }
    }
}

impl<S, B, R> Future for InboundFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<ReplyBody<R>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let entered = self.as_mut().project().served.as_ref().map(ServedObserver::enter);
        let polled = catch_unwind(AssertUnwindSafe(|| self.as_mut().step(cx)));
        let response = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(response))) => response,
            Ok(Poll::Ready(Err(error))) => self.as_mut().fail(&error),
            Err(panic) => {
                let error = self.as_mut().blame(&text_of(panic.as_ref()));
                self.as_mut().fail(&error)
            }
        };
        drop(entered);
        let this = self.project();
        let mut response = match this.run {
            Some(run) => finish(run, *this.version, *this.grpc, response),
            None => response,
        };
        if this.asked.is_some_and(|asked| !asked.is_granted(response.status())) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(report) = this.report.take() {
            report.attach(&mut response, *this.grpc);
        }
        if let Some(served) = this.served.take() {
            let (status, grpc) = (response.status(), this.grpc.then(|| GrpcStatus::of(response.headers())).flatten());
            response.body_mut().observed(served, status, grpc);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, B, R> InboundFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    /// From stage to stage until there is a response.
    fn step(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Response<ReplyBody<R>>, Error>> {
        const POLLED_AGAIN: &str = "a future is not polled after it is done";
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                Projected::Reply(reply) => {
                    return Poll::Ready(Ok(reply.take().expect(POLLED_AGAIN).map(ReplyBody::ours)));
                }
                Projected::Filter { head, body, service } => {
                    let run = this.run.as_mut().expect("the filter stage has its run");
                    let held = this.hold.zip(body.as_mut()).map(|(hold, body)| hold(body));
                    let verdict = ready!(run.poll(cx, head.as_mut().expect(POLLED_AGAIN), held));
                    let (head, body) = (head.take().expect(POLLED_AGAIN), body.take().expect(POLLED_AGAIN));
                    match verdict {
                        Ok(()) => Stage::Ready {
                            request: Some(Request::from_parts(*head, body)),
                            service: service.take().expect(POLLED_AGAIN),
                        },
                        Err(reply) => Stage::Reply(Some(reply.into_response(run.facts().grpc))),
                    }
                }
                Projected::Ready { request, service } => {
                    ready!(service.poll_ready(cx)).map_err(failed)?;
                    let mut request = request.take().expect(POLLED_AGAIN);
                    restore(&mut request);
                    Stage::Handle(service.call(request))
                }
                Projected::Handle(future) => {
                    return future
                        .poll(cx)
                        .map(|done| done.map(|response| response.map(ReplyBody::app)).map_err(failed));
                }
            };
            this.stage.set(next);
        }
    }

    /// Answers in the application's place.
    fn fail(self: Pin<&mut Self>, error: &Error) -> Response<ReplyBody<R>> {
        tracing::error!(target: "mesh", "{error}");
        let mut this = self.project();
        // What failed or panicked is dropped now, not when the connection gets to it.
        this.stage.set(Stage::Reply(None));
        let grpc = this.run.as_ref().is_some_and(|run| run.facts().grpc);
        Reply::of(error).into_response(grpc).map(ReplyBody::ours)
    }

    /// The error for a panic: a filter's or the application's.
    fn blame(self: Pin<&mut Self>, panic: &str) -> Error {
        match self.project().stage.project() {
            Projected::Filter { .. } => Error::new(Code::FILTER_FAILED, format!("a filter panicked: {panic}")),
            _ => Error::new(Code::HANDLER_FAILED, format!("the application panicked: {panic}")),
        }
    }
}

/// Shows the response to the filters, and tells an HTTP/1 client of a connection that is to end.
/// A filter that panics fails its own request only.
fn finish<R: Body>(
    run: &mut FilterRun<RequestFacts>,
    version: Version,
    grpc: bool,
    response: Response<ReplyBody<R>>,
) -> Response<ReplyBody<R>> {
    let shown = catch_unwind(AssertUnwindSafe(|| run.show(response)));
    let (mut head, mut body) = shown.unwrap_or_else(|panic| broken(&text_of(panic.as_ref()), grpc)).into_parts();
    if let Some(pacer) = Pace::take(&mut head) {
        body.pace(pacer);
    }
    if version == Version::HTTP_2 && !body.is_over() {
        body.shares(Held::new(&run.facts().peer));
    }
    let mut response = Response::from_parts(head, body);
    if version <= Version::HTTP_11 && run.facts().peer.is_draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What the client gets where a filter panicked over the response.
fn broken<R>(panic: &str, grpc: bool) -> Response<ReplyBody<R>> {
    let error = Error::new(Code::FILTER_FAILED, format!("a filter panicked: {panic}"));
    tracing::error!(target: "mesh", "{error}");
    Reply::of(&error).into_response(grpc).map(ReplyBody::ours)
}

/// An application that passes requests on through the mesh fails with the mesh's own errors, which say more.
fn failed(error: impl Into<BoxError>) -> Error {
    let error = match error.into().downcast::<Error>() {
        Ok(ours) => return *ours,
        Err(other) => other,
    };
    Error::new(Code::HANDLER_FAILED, format!("the application failed: {error}")).with_source(error)
}

/// What a panic says.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

impl<S, B> fmt::Debug for InboundFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundFuture").finish_non_exhaustive()
    }
}
