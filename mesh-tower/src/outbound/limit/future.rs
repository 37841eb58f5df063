//! An attempt that counts against its cluster's limit until its response is over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use mesh_core::balance::CandidateState;
use mesh_core::policy::limit::BreakerGuard;
use pin_project::pin_project;

use crate::outbound::ResponseBody;
use crate::outbound::stage::{At, AttemptFailed};

/// The future of [`Limit`](super::Limit).
#[pin_project]
pub(crate) struct LimitFuture<F>(#[pin] Stage<F>);

#[pin_project(project = Projected)]
enum Stage<F> {
    Refused(Option<Box<AttemptFailed>>),
    Entered {
        #[pin]
        inner: F,
        guard: Option<BreakerGuard>,
    },
}

impl<F> LimitFuture<F> {
    pub(super) fn refused(failed: AttemptFailed) -> Self {
        Self(Stage::Refused(Some(Box::new(failed))))
    }

    pub(super) fn entered(inner: F, guard: BreakerGuard) -> Self {
        Self(Stage::Entered { inner, guard: Some(guard) })
    }
}

impl<F: At> At for LimitFuture<F> {
    fn endpoint(&self) -> Option<&Arc<CandidateState>> {
        match &self.0 {
            Stage::Refused(_) => None,
            Stage::Entered { inner, .. } => inner.endpoint(),
        }
    }
}

impl<F> Future for LimitFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, AttemptFailed>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            Projected::Refused(failed) => {
                Poll::Ready(Err(*failed.take().expect("a future is not polled after it is done")))
            }
            Projected::Entered { inner, guard } => {
                let mut response = ready!(inner.poll(cx))?;
                response.body_mut().hold_breaker(guard.take());
                Poll::Ready(Ok(response))
            }
        }
    }
}
