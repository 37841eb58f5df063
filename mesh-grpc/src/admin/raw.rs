//! A gRPC service whose methods turn bytes into bytes, so that large answers are encoded off the application's runtime threads.
//!
//! A unary call is a stream of one message on the wire, so there is one way for both: each request is answered by one message.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Status, Streaming};
use tower_service::Service;

use crate::codec::Whole;

/// What a service does.
pub(super) trait Methods: Send + Sync + 'static {
    /// Its full name.
    const NAME: &'static str;
    /// Its methods.
    const METHODS: &'static [&'static str];

    /// Answers a request of one of [`METHODS`](Self::METHODS).
    fn answer(&self, method: &'static str, request: Bytes) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// A service of [`Methods`].
pub(super) struct Raw<M>(Arc<M>);

impl<M> Raw<M> {
    pub(super) fn new(methods: M) -> Self {
        Self(Arc::new(methods))
    }
}

impl<M> Clone for Raw<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Methods> NamedService for Raw<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Methods> Service<Request<Body>> for Raw<M> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = request.uri().path().rsplit('/').next();
        let Some(method) = M::METHODS.iter().find(|method| Some(**method) == asked) else {
            let text = format!("{} has no method {}", M::NAME, asked.unwrap_or_default());
            return Box::pin(ready(Ok(Status::unimplemented(text).into_http())));
        };
        let each = Each { methods: self.0.clone(), method };
        Box::pin(async move { Ok(Grpc::new(Whole).streaming(each, request).await) })
    }
}

/// Answers each message of a call.
struct Each<M> {
    methods: Arc<M>,
    method: &'static str,
}

impl<M: Methods> StreamingService<Bytes> for Each<M> {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let (methods, method) = (self.methods.clone(), self.method);
        let answers = request.into_inner().then(move |message| {
            let methods = methods.clone();
            async move { methods.answer(method, message?).await }
        });
        ready(Ok(tonic::Response::new(Box::pin(answers))))
    }
}
