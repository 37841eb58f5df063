//! Chooses an endpoint for each attempt.

use std::task::{Context, Poll};

use http::Response;
use tower_service::Service;

use super::PickFuture;
use crate::outbound::ResponseBody;
use crate::outbound::stage::{Attempt, AttemptFailed, Picked};

/// Chooses endpoints.
#[derive(Debug, Clone)]
pub(crate) struct Pick<S> {
    inner: S,
}

impl<S> Pick<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Attempt> for Pick<S>
where
    S: Service<Picked, Response = Response<ResponseBody>, Error = AttemptFailed> + Clone,
{
    type Response = Response<ResponseBody>;
    type Error = AttemptFailed;
    type Future = PickFuture<S>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), AttemptFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> PickFuture<S> {
        PickFuture::new(self.inner.clone(), attempt)
    }
}
